"""Seconds from the command line to the end of the first training step, at two starts.

    python -m benchmarks start --config=configs/demo.py [--json=FILE]

Other options are handed to `run.py`. Each start is a process in a workdir of its own; the first one
finds the compilation cache empty, the second one full. One more start, before them, does not count:
it renders records where the configuration asks for that.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command
from benchmarks.findings import Findings, Target, load_note, publish
from tmanet_jax.errors import UserError

SECOND_START_SECONDS = 10
STARTS = ("first start", "second start")
_FIRST_STEP = "step 1 of "


def add_command(commands: command.Subparsers) -> None:
    """`start`."""
    parser = command.add(commands, "start", __doc__, _run)
    command.add_options(parser, "json", config="configs/demo.py")


def _run(options: argparse.Namespace) -> None:
    run = [sys.executable, "run.py", f"--config={options.config}", *options.others]
    with tempfile.TemporaryDirectory(prefix="starts-") as directory:
        seconds = measure(run, Path(directory))
    publish(findings_of(" ".join([options.config, *options.others]), seconds), options.json)


def measure(command: Sequence[str], directory: Path) -> list[float]:
    """Seconds of each start.

    Args:
        command: trains; a workdir is added to it.
        directory: an empty one, for workdirs and cache.

    Raises:
        UserError: a run ended before its first step.
    """
    seconds = []
    for start, cache in enumerate(("unused", "cache", "cache")):
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(directory / cache)}
        seconds.append(_seconds_to_first_step(command, directory / str(start), environment))
    return seconds[1:]  # the one before rendered what was missing, and read every file once


def _seconds_to_first_step(
    command: Sequence[str], workdir: Path, environment: dict[str, str]
) -> float:
    """Waits for the log's line of the first step, then ends the run."""
    log, began = workdir / "train.log", time.monotonic()
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            [*command, "--config.log.every=1", f"--workdir={workdir}"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            while not (log.exists() and _FIRST_STEP in log.read_text()):
                if process.poll() is not None:
                    output.seek(0)
                    told = output.read().decode(errors="replace").strip().splitlines()[-5:]
                    raise UserError("The run ended before its first step: " + " ".join(told))
                time.sleep(0.02)
            return time.monotonic() - began
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def findings_of(name: str, seconds: Sequence[float]) -> Findings:
    """A row a start."""
    return Findings(
        title=f"Seconds to the end of the first training step, {name}",
        columns=("", "s"),
        rows=[(start, f"{each:.1f}") for start, each in zip(STARTS, seconds, strict=True)],
        targets=[
            Target("s of the second start", seconds[-1], SECOND_START_SECONDS, at_least=False)
        ],
        notes=(
            "From the start of the interpreter: imports, records, weights, tracing, compilation "
            "(second start: from the cache), the first batch, the step. " + load_note(),
        ),
    )
