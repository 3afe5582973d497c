"""Does the memory help? Trains the demo with T = 0, 1, 2, 4 and several seeds, and prints a table.

    python -m benchmarks memory

Each run is `run.py --config=configs/demo.py` with another T and seed, in runs/memory_table/. Runs
that have ended are not repeated, and one that was stopped goes on; delete the folder to begin anew.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import command
from benchmarks.baseline import train
from benchmarks.findings import markdown
from tmanet_jax.command_line import parse_count
from tmanet_jax.scoring.report import METRICS_FILE

MEMORIES = (0, 1, 2, 4)
RUNS = Path("runs/memory_table")


def add_command(commands: command.Subparsers) -> None:
    """`memory`."""
    parser = command.add(commands, "memory", __doc__, _run)
    parser.add_argument(
        "--seeds", type=parse_count, default=3, help="runs for each T; default %(default)s"
    )


def _run(options: argparse.Namespace) -> None:
    seeds = range(options.seeds)
    for seed in seeds:
        for num_memory in MEMORIES:
            fields = [f"--config.model.num_memory={num_memory}", f"--config.seed={seed}"]
            train(_workdir(num_memory, seed), "configs/demo.py", fields)
    print(f"mIoU, mean (lowest to highest) of {options.seeds} seeds:\n")
    columns = ("T", "all frames", "clean frames", "spoilt frames")
    print(markdown(columns, [_row(num_memory, seeds) for num_memory in MEMORIES]))


def _workdir(num_memory: int, seed: int) -> Path:
    return RUNS / f"T{num_memory}-seed{seed}"


def _row(num_memory: int, seeds: Sequence[int]) -> list[str]:
    files = [_workdir(num_memory, seed) / METRICS_FILE for seed in seeds]
    runs = [json.loads(file.read_text()) for file in files]
    groups = [
        [run["mIoU"] for run in runs],
        *([run["groups"][name]["mIoU"] for run in runs] for name in ("clean", "degraded")),
    ]
    return [str(num_memory), *map(_mean_and_range, groups)]


def _mean_and_range(fractions: list[float]) -> str:
    """In percent, as in "61.2 (60.8 to 61.7)"."""
    percent = 100 * np.array(fractions)
    return f"{percent.mean():.1f} ({percent.min():.1f} to {percent.max():.1f})"
