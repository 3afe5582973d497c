"""Does the memory help? Trains the demo with T = 0, 1, 2, 4 and several seeds, and prints a table.

    python -m benchmarks memory

Each run is `run.py --config=configs/demo.py` with another T and seed, in runs/memory_table/. Runs
that have ended are not repeated, and one that was stopped goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import command

MEMORIES = (0, 1, 2, 4)
RUNS = Path("runs/memory_table")


def add_command(commands: command.Subparsers) -> None:
    """`memory`."""
    parser = command.add(commands, "memory", __doc__, _run)
    parser.add_argument(
        "--seeds", type=command.parse_count, default=3, help="runs for each T; default %(default)s"
    )


def _run(options: argparse.Namespace) -> None:
    """Trains what is missing, then prints the table in Markdown."""
    num_seeds = options.seeds
    for seed in range(num_seeds):
        for num_memory in MEMORIES:
            train(num_memory, seed)
    print(f"mIoU, mean (lowest to highest) of {num_seeds} seeds:\n")
    print("| T | all frames | clean frames | spoilt frames |\n| --- | --- | --- | --- |")
    for num_memory in MEMORIES:
        print(table_row(num_memory, num_seeds))


def train(num_memory: int, seed: int) -> None:
    """Trains one network in a process of its own, unless it is there; delete RUNS to begin anew."""
    if not metrics_file(num_memory, seed).exists():
        command = [
            *(sys.executable, "run.py", "--config=configs/demo.py"),
            f"--config.model.num_memory={num_memory}",
            f"--config.seed={seed}",
            f"--workdir={metrics_file(num_memory, seed).parent}",
        ]
        subprocess.run(command, check=True)


def metrics_file(num_memory: int, seed: int) -> Path:
    """Where a run leaves its scores."""
    return RUNS / f"T{num_memory}-seed{seed}" / "metrics.json"


def table_row(num_memory: int, num_seeds: int) -> str:
    """A row of Markdown, in percent."""
    runs = [json.loads(metrics_file(num_memory, seed).read_text()) for seed in range(num_seeds)]
    groups = [
        [run["mIoU"] for run in runs],
        [run["groups"]["clean"]["mIoU"] for run in runs],
        [run["groups"]["degraded"]["mIoU"] for run in runs],
    ]
    return f"| {num_memory} | " + " | ".join(mean_and_range(group) for group in groups) + " |"


def mean_and_range(fractions: list[float]) -> str:
    """As in "61.2 (60.8 to 61.7)"."""
    percent = 100 * np.array(fractions)
    return f"{percent.mean():.1f} ({percent.min():.1f} to {percent.max():.1f})"
