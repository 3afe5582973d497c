"""What the memory is worth: the same network without memory and with it, trained by `run.py`.

A run that has ended is not repeated, and one that was stopped goes on; delete its folder to begin
anew.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import command
from benchmarks.corruptions import SEVERITIES
from benchmarks.findings import load_note, markdown, write_text
from benchmarks.memory_scores import (
    ALL_FRAMES,
    ONE_FRAME,
    consistency,
    corruption_scores,
    reads,
)
from benchmarks.stream import frame_milliseconds
from tmanet_jax.command_line import parse_count
from tmanet_jax.compilation_cache import use_compilation_cache
from tmanet_jax.errors import UserError
from tmanet_jax.run_file import METRICS_FILE
from tmanet_jax.scoring.runs import read_metrics, report_runs
from tmanet_jax.settings import Settings

TABLE = """Does the memory help? The demo trained with T = 0, 1, 2, 4 and several seeds, a table.

Each T with the demo's read of a position's own place, and with the original's of everything.

    python -m benchmarks memory
    python -m benchmarks memory --study --seeds=5 --jobs=2

Each run is `run.py --config=configs/demo.py` with other fields and another seed, in
runs/memory_table/. --study: also with what may decide whether the memory is read; with heads and
backbones beside it; scored over time and on corrupted frames, too."""

BASELINE = """What the memory is worth: the same network without memory and with it, side by side.

    python -m benchmarks baseline --config=configs/demo.py

Trains both in OUT/per_frame and OUT/memory with `run.py`, to which other options are handed, and
then is `run.py report --workdir=OUT/per_frame --workdir=OUT/memory`."""

_ALL = ("model.neighbourhood=None", "eval.mode=slide")
"""The original's read, in windows of the training's crop."""
_OWN = {f"T = {count}": (f"model.num_memory={count}",) for count in (0, 1, 2, 4)}
MEMORIES = _OWN | {
    f"{name}, all read": (*_OWN[name], *_ALL) for name in ("T = 1", "T = 2", "T = 4")
}
_GRADIENTS = "model.memory_gradient=True"
_FASTER = "optimizer.rates=('head.query_encoder=4','head.memory_encoders=4')"
_DEEPER = "model.blocks=(2,2,2,2)"
STUDIED = {
    "T = 1, all read, gradients": (*_OWN["T = 1"], *_ALL, _GRADIENTS),
    "T = 2, all read, gradients": (*_ALL, _GRADIENTS),
    "T = 2, all read, 5,000 steps": (*_ALL, "num_steps=5000"),
    "T = 0, 5,000 steps": (*_OWN["T = 0"], "num_steps=5000"),
    "T = 2, 5,000 steps": ("num_steps=5000",),
    "T = 2, all read, faster encoders": (*_ALL, _FASTER),
    "T = 2, read within 1": ("model.neighbourhood=1",),
    "T = 2, gradients": (_GRADIENTS,),
    "T = 2, encoders not tied": ("model.tied_init=False",),
    "T = 2, keys of 8": ("model.key_channels=8",),
    "T = 2, frames two apart": ("data.frame_stride=2", "data.memory_range=2"),
    "T = 0, PSP head": ("model.head=psp",),
    "T = 0, two blocks a stage": (*_OWN["T = 0"], _DEEPER),
    "T = 2, two blocks a stage": (_DEEPER,),
}
"""Fields of the demo, whose T is 2 and whose positions read their own place, by what they vary."""
CORRUPTED, CORRUPTED_SEEDS = (*_OWN, "T = 2, all read", "T = 0, PSP head"), 2
"""What is scored on corrupted frames: minutes a run."""
CONFIG, RUNS, SIZE = "configs/demo.py", Path("runs/memory_table"), (128, 256)
TABLE_FILE = "table.csv"


def add_command(commands: command.Subparsers) -> None:
    """`memory` and `baseline`."""
    parser = command.add(commands, "memory", TABLE, _run_table)
    parser.add_argument(
        "--seeds", type=parse_count, default=3, help="runs for each T; default %(default)s"
    )
    parser.add_argument("--study", action="store_true", help="vary and score more than T")
    parser.add_argument(
        "--jobs", type=parse_count, default=1, help="runs side by side, which share the cores"
    )
    parser.add_argument("--finished", action="store_true", help="begin no run: show what there is")
    parser = command.add(commands, "baseline", BASELINE, _run_baseline)
    command.add_options(parser, config="configs/demo.py")
    parser.add_argument("--out", type=Path, default=Path("runs/baseline"))


class Run(NamedTuple):
    """One training of the table."""

    variant: str
    seed: int

    @property
    def workdir(self) -> Path:
        """Of the run."""
        return RUNS / f"{re.sub('[^0-9A-Za-z]+', '-', self.variant)}-seed{self.seed}"

    @property
    def flags(self) -> list[str]:
        """What it has of its own."""
        fields = (*(MEMORIES | STUDIED)[self.variant], f"seed={self.seed}")
        return [f"--config.{field}" for field in fields]

    @property
    def settings(self) -> Settings:
        """Of the run."""
        return command.read_settings(CONFIG, self.flags)

    @property
    def ended(self) -> bool:
        """Whether there are scores of it."""
        return (self.workdir / METRICS_FILE).exists()


def _run_table(options: argparse.Namespace) -> None:
    variants = [*MEMORIES, *(STUDIED if options.study else ())]
    runs = [Run(name, seed) for seed in range(options.seeds) for name in variants]
    if not options.finished:
        train_all(runs, options.jobs)
    ended = {name: [run for run in runs if run.variant == name and run.ended] for name in variants}
    print(f"mIoU, mean (lowest to highest) of at most {options.seeds} seeds:\n")
    print(markdown(COLUMNS, [_row(name, of_name) for name, of_name in ended.items()]))
    print(f"\nEach run's: {_write_table(run for of_name in ended.values() for run in of_name)}")
    if options.study:
        use_compilation_cache()
        _print_study({name: of_name for name, of_name in ended.items() if of_name})


COLUMNS = ("", "seeds", "all frames", "clean frames", "spoilt frames")


def _row(variant: str, runs: Sequence[Run]) -> list[str]:
    found = zip(*(scores_of(run.workdir) for run in runs), strict=True)
    cells = [mean_and_range(fractions) for fractions in found] or [""] * 3
    return [variant, str(len(runs)), *cells]


def _write_table(runs: Iterable[Run]) -> Path:
    lines = [",".join(("variant", "seed", *COLUMNS[2:]))]
    for run in runs:
        percent = (f"{100 * fraction:.2f}" for fraction in scores_of(run.workdir))
        lines.append(",".join((f'"{run.variant}"', str(run.seed), *percent)))
    write_text(RUNS / TABLE_FILE, "\n".join(lines) + "\n")
    return RUNS / TABLE_FILE


def _print_study(ended: Mapping[str, Sequence[Run]]) -> None:
    models = {name: runs[0].settings.model for name, runs in ended.items()}
    taken = frame_milliseconds(models, SIZE)
    rows = []
    for name, runs in ended.items():
        found = [one for run in runs if (one := reads(run.settings, run.workdir))]
        near = mean_and_range([sum(one.near_T) for one in found]) if found else ""
        kept_there = mean_and_range([one.kept_there for one in found]) if found else ""
        temporal = [consistency(run.settings, run.workdir) for run in runs]
        over_time = [mean_and_range([one[score] for one in temporal]) for score in ("VC8", "mTC")]
        rows.append([name, near, kept_there, *over_time, f"{taken[name]:.1f}"])
    print("\nWhat spoilt frames read of the same place, their mIoU if they read nothing else,")
    print("consistency of videos, and a streamed frame's time:\n")
    print(markdown(("", "same place", "that alone", "VC8", "mTC", "ms a frame"), rows))
    spoilt = {
        name: _mean_corruptions(ended[name][:CORRUPTED_SEEDS])
        for name in CORRUPTED
        if name in ended
    }
    for frames in (ONE_FRAME, ALL_FRAMES):
        print(f"\nmIoU of clean clips, corrupted in {frames}, {CORRUPTED_SEEDS} seeds:\n")
        print(markdown(("", *spoilt), _corruption_rows([one[frames] for one in spoilt.values()])))
    print(f"\n{load_note()}")


Corrupted = Mapping[str, np.ndarray]
"""mIoU of each severity, by the name of the corruption."""


def _mean_corruptions(runs: Sequence[Run]) -> Mapping[str, Corrupted]:
    of_runs = [corruption_scores(run.settings, run.workdir) for run in runs]
    return {
        frames: {name: np.mean([one[frames][name] for one in of_runs], axis=0) for name in names}
        for frames, names in of_runs[0].items()
    }


def _corruption_rows(of_variants: Sequence[Corrupted]) -> list[list[str]]:
    """A row for each corruption, over severities; then for each severity, over corruptions."""

    def row(name: str, fractions: Iterable[float]) -> list[str]:
        return [name, *(f"{100 * fraction:.1f}" for fraction in fractions)]

    rows = [row(name, (one[name].mean() for one in of_variants)) for name in of_variants[0]]
    means_VxS = [np.mean([*one.values()], axis=0) for one in of_variants]
    rows += [
        row(f"severity {severity}", means_V)
        for severity, means_V in zip(SEVERITIES, zip(*means_VxS, strict=True), strict=True)
    ]
    return [*rows, row("mean", np.mean(means_VxS, axis=1))]


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


def train_all(runs: Sequence[Run], jobs: int) -> None:
    """Trains so many runs at a time, each on its share of the cores.

    Raises:
        UserError: a run failed; those that go on are waited for, and no other begins.
    """
    shares = _shares_of_cores(jobs)
    pool = ThreadPoolExecutor(jobs, initializer=lambda: _keep_to(shares.pop()))
    try:
        begun = [pool.submit(train, run.workdir, CONFIG, run.flags) for run in runs]
        for done in as_completed(begun):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _shares_of_cores(jobs: int) -> list[set[int]]:
    """Of each job; empty where a process cannot be kept to some."""
    if not hasattr(os, "sched_getaffinity"):
        return [set()] * jobs
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[job % len(cores) :: jobs]) for job in range(jobs)]


def _keep_to(cores: set[int]) -> None:
    """This thread, and the processes that it starts."""
    if cores:
        os.sched_setaffinity(0, cores)


def scores_of(workdir: Path) -> list[float]:
    """The mIoU of all frames, of the clean and of the spoilt ones."""
    metrics = read_metrics(workdir)
    return [metrics["mIoU"], *(metrics["groups"][name]["mIoU"] for name in ("clean", "degraded"))]


def mean_and_range(fractions: Sequence[float]) -> str:
    """In percent, as in "61.2 (60.8 to 61.7)"."""
    percent = 100 * np.array(fractions)
    return f"{percent.mean():.1f} ({percent.min():.1f} to {percent.max():.1f})"
