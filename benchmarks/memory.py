"""What the memory is worth: the same network without memory and with it, trained by `run.py`.

A run that has ended is not repeated, and one that was stopped goes on; delete its folder to begin
anew.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import command
from benchmarks.findings import markdown
from tmanet_jax.command_line import parse_count
from tmanet_jax.errors import UserError
from tmanet_jax.run_file import METRICS_FILE
from tmanet_jax.scoring.runs import read_metrics, report_runs

TABLE = """Does the memory help? The demo trained with T = 0, 1, 2, 4 and several seeds, a table.

    python -m benchmarks memory
    python -m benchmarks memory --study --seeds=5

Each run is `run.py --config=configs/demo.py` with other fields and another seed, in
runs/memory_table/. --study: also with what may decide whether the memory is read."""

BASELINE = """What the memory is worth: the same network without memory and with it, side by side.

    python -m benchmarks baseline --config=configs/demo.py

Trains both in OUT/per_frame and OUT/memory with `run.py`, to which other options are handed, and
then is `run.py report --workdir=OUT/per_frame --workdir=OUT/memory`."""

MEMORIES = {f"T = {count}": (f"model.num_memory={count}",) for count in (0, 1, 2, 4)}
GRADIENTS = "model.memory_gradient=True"
STUDIED = {
    **{f"{name}, gradients": (*MEMORIES[name], GRADIENTS) for name in ("T = 1", "T = 2", "T = 4")},
    "T = 2, encoders not tied": ("model.tied_init=False",),
    "T = 2, scaled scores": ("model.scale_scores=True",),
    "T = 2, keys of 8": ("model.key_channels=8",),
    "T = 2, keys of 128": ("model.key_channels=128",),
    "T = 2, frames two apart": ("data.frame_stride=2", "data.memory_range=2"),
    "T = 2, 5,000 steps": ("num_steps=5000",),
}
"""Fields of the demo, whose T is 2, by what they vary."""
RUNS = Path("runs/memory_table")


def add_command(commands: command.Subparsers) -> None:
    """`memory` and `baseline`."""
    parser = command.add(commands, "memory", TABLE, _run_table)
    parser.add_argument(
        "--seeds", type=parse_count, default=3, help="runs for each T; default %(default)s"
    )
    parser.add_argument("--study", action="store_true", help="vary more than T")
    parser = command.add(commands, "baseline", BASELINE, _run_baseline)
    command.add_options(parser, config="configs/demo.py")
    parser.add_argument("--out", type=Path, default=Path("runs/baseline"))


def _run_table(options: argparse.Namespace) -> None:
    variants = MEMORIES | (STUDIED if options.study else {})
    seeds = range(options.seeds)
    for seed in seeds:
        for name, fields in variants.items():
            flags = [f"--config.{field}" for field in (*fields, f"seed={seed}")]
            train(_workdir(name, seed), "configs/demo.py", flags)
    print(f"mIoU, mean (lowest to highest) of {options.seeds} seeds:\n")
    columns = ("", "all frames", "clean frames", "spoilt frames")
    print(markdown(columns, [_of_seeds(name, seeds) for name in variants]))


def _run_baseline(options: argparse.Namespace) -> None:
    workdirs = [options.out / "per_frame", options.out / "memory"]
    train(workdirs[0], options.config, [*options.others, "--config.model.num_memory=0"])
    train(workdirs[1], options.config, options.others)
    print(report_runs(workdirs))


def train(workdir: Path, config: str, flags: Sequence[str]) -> None:
    """Trains in a process of its own, unless the run has ended.

    Raises:
        UserError: the run failed; it has said why.
    """
    if (workdir / METRICS_FILE).exists():
        return
    command = [sys.executable, "run.py", f"--config={config}", *flags, f"--workdir={workdir}"]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"The run in {workdir} failed: see above. Started again, it goes on.")


def _workdir(variant: str, seed: int) -> Path:
    return RUNS / f"{re.sub('[^0-9A-Za-z]+', '-', variant)}-seed{seed}"


def _of_seeds(variant: str, seeds: Sequence[int]) -> list[str]:
    runs = [scores_of(_workdir(variant, seed)) for seed in seeds]
    return [variant, *map(mean_and_range, zip(*runs, strict=True))]


def scores_of(workdir: Path) -> list[float]:
    """The mIoU of all frames, of the clean and of the spoilt ones."""
    metrics = read_metrics(workdir)
    return [metrics["mIoU"], *(metrics["groups"][name]["mIoU"] for name in ("clean", "degraded"))]


def mean_and_range(fractions: Sequence[float]) -> str:
    """In percent, as in "61.2 (60.8 to 61.7)"."""
    percent = 100 * np.array(fractions)
    return f"{percent.mean():.1f} ({percent.min():.1f} to {percent.max():.1f})"
