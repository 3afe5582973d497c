"""Programs in processes of their own: started, watched, and ended with the test."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[1]
SECONDS = 300
"""That any of them may take."""


def environment(num_devices: int = 1) -> dict[str, str]:
    """This process's, with so many virtual devices, and several processes that can join."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(num_devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }


@contextlib.contextmanager
def started(
    command: Sequence[str], output: Path | None = None, *, num_devices: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs; it is killed at the end of the context.

    Args:
        command: its words.
        output: takes all that it prints; without it that is piped.
        num_devices: virtual devices.
    """
    with contextlib.ExitStack() as stack:
        to: int = subprocess.PIPE
        if output is not None:
            to = stack.enter_context(output.open("w")).fileno()
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment(num_devices),
            stdout=to,
            stderr=to,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Returns as soon as the condition holds; fails if the process ends before."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, f"it ended with status {process.returncode} before"
        assert time.monotonic() < deadline, f"{SECONDS} seconds were not enough"
        time.sleep(0.005)


def free_address() -> str:
    """Of this machine, for a coordinator of several processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"
