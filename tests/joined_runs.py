"""A tiny run in several processes that find each other on this machine."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from tests.made import tiny_runs
from tests.processes import PROJECT, environment

SECONDS = 600
"""That any run here may take."""


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    output: str
    """Of stdout and stderr together."""


class JoinedRun:
    """Processes that run; `outputs` are the files of what each prints."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], outputs: list[Path]):
        self.processes = processes
        self.outputs = outputs

    def end(self, index: int, seconds: float = SECONDS) -> Ended:
        """Waits for the end of one of them."""
        status = self.processes[index].wait(seconds)
        return Ended(status, self.outputs[index].read_text())

    def wait_until_written(self, path: Path, text: str) -> None:
        """Returns when a file holds the text; fails if a process ends before."""
        deadline = time.monotonic() + SECONDS
        while not (path.exists() and text in path.read_text()):
            for process, output in zip(self.processes, self.outputs, strict=True):
                assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, f"no {text!r} within {SECONDS} s"
            time.sleep(0.05)


def started(
    root: Path,
    data_dir: Path,
    *arguments: str,
    num_devices: int = 1,
    own: tuple[str, ...] = (),
) -> AbstractContextManager[JoinedRun]:
    """`run.py` in two processes.

    Args:
        root: takes what they print.
        data_dir: the records.
        *arguments: of both of them.
        num_devices: of each.
        own: one more argument of each.
    """
    port = free_port()
    commands = [
        tiny_runs.command(
            data_dir,
            f"--coordinator=localhost:{port}",
            "--num-processes=2",
            f"--process-id={index}",
            *arguments,
            *own[index : index + 1],
        )
        for index in range(2)
    ]
    return started_together(root, commands, num_devices)


@contextlib.contextmanager
def started_together(
    root: Path, commands: list[list[str]], num_devices: int = 1
) -> Iterator[JoinedRun]:
    """Processes that are killed at the end of the context; `root` takes what they print."""
    processes, outputs = [], [root / f"output{index}" for index in range(len(commands))]
    try:
        for words, output in zip(commands, outputs, strict=True):
            with output.open("wb") as file:
                processes.append(
                    subprocess.Popen(
                        words,
                        cwd=PROJECT,
                        env=environment(num_devices),
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )
        yield JoinedRun(processes, outputs)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]
