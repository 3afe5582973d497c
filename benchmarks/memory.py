"""What the memory is worth: the same network without memory and with it, trained by `run.py`.

A run that has ended is not repeated, and one that was stopped goes on; delete its folder to begin
anew.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import command
from benchmarks.findings import markdown, write_text
from tmanet_jax.command_line import parse_count
from tmanet_jax.errors import UserError
from tmanet_jax.run_file import METRICS_FILE

TABLE = """Does the memory help? The demo trained with T = 0, 1, 2, 4 and several seeds, a table.

    python -m benchmarks memory
    python -m benchmarks memory --study --seeds=5

Each run is `run.py --config=configs/demo.py` with other fields and another seed, in
runs/memory_table/. --study: also with what may decide whether the memory is read."""

BASELINE = """What the memory is worth: the same network without memory and with it, side by side.

    python -m benchmarks baseline --config=configs/demo.py
    python -m benchmarks baseline --workdirs=runs/a,runs/b

The first trains both in OUT/per_frame and OUT/memory with `run.py`; other options are handed to it.
The second compares two runs that are there. The table is also written to OUT/comparison.md."""

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
    parser.add_argument("--workdirs", help="two runs to compare, FIRST,SECOND; trains none")


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
    if options.workdirs:
        workdirs = [Path(name) for name in options.workdirs.split(",")]
        if len(workdirs) != 2 or options.others:
            raise UserError(f"--workdirs must name two runs alone, not {options.workdirs!r}.")
        first, second = workdirs
    else:
        first, second = options.out / "per_frame", options.out / "memory"
        train(first, options.config, [*options.others, "--config.model.num_memory=0"])
        train(second, options.config, options.others)
    rows = [
        (row.part, row.name, *map(_percent, (row.first, row.second)), _percent(row.difference, "+"))
        for row in compare(first, second)
    ]
    table = markdown(("", "", first.name, second.name, "difference"), rows)
    write_text(options.out / "comparison.md", table + "\n")
    print(f"{table}\n\ntable:    {options.out}/comparison.md")


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
    runs = [read_metrics(_workdir(variant, seed)) for seed in seeds]
    groups = [
        [run["mIoU"] for run in runs],
        *([run["groups"][name]["mIoU"] for run in runs] for name in ("clean", "degraded")),
    ]
    return [variant, *map(mean_and_range, groups)]


def mean_and_range(fractions: list[float]) -> str:
    """In percent, as in "61.2 (60.8 to 61.7)"."""
    percent = 100 * np.array(fractions)
    return f"{percent.mean():.1f} ({percent.min():.1f} to {percent.max():.1f})"


class Row(NamedTuple):
    """A score of two runs, as fractions; None where no pixel defines it.

    Attributes:
        part: "mean", "group", "class" or "over time".
        name: e.g. "mIoU", "degraded", "road", "VC8".
        first: of the first run.
        second: of the second run.
    """

    part: str
    name: str
    first: float | None
    second: float | None

    @property
    def difference(self) -> float | None:
        """How much higher the second run's is."""
        if self.first is None or self.second is None:
            return None
        return self.second - self.first


def compare(first: Path, second: Path) -> list[Row]:
    """The scores of two workdirs: means, mIoU of groups, IoU of classes, consistency over time.

    Raises:
        UserError: a workdir has no scores, or the two are of different splits or clips.
    """
    one, two = read_metrics(first), read_metrics(second)
    for field, meaning in (("split", "split"), ("clips", "number of clips")):
        if one[field] != two[field]:
            raise UserError(
                f"The {meaning} is {one[field]} in {first} and {two[field]} in {second}: scores "
                "can be compared only on the same clips. Evaluate both with the same records."
            )
    if one["mIoU_of_clip"].keys() != two["mIoU_of_clip"].keys():
        raise UserError(
            f"{first} and {second} are of different clips: scores can be compared only on the same "
            "clips. Evaluate both with the same records."
        )
    return [
        Row(part, name, score, of_two[name])
        for (part, of_one), of_two in zip(_parts(one).items(), _parts(two).values(), strict=True)
        for name, score in of_one.items()
        if name in of_two and (score, of_two[name]) != (None, None)
    ]


def _parts(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    groups = {name: metrics[name] for name in ("categories", "without_void") if name in metrics}
    groups |= metrics["groups"]
    return {
        "mean": {name: metrics[name] for name in ("mIoU", "mAcc", "aAcc", "mDice")},
        "group": {name: scores["mIoU"] for name, scores in groups.items()},
        "class": {name: scores["IoU"] for name, scores in metrics["classes"].items()},
        "over time": metrics.get("temporal", {}),
    }


def _percent(fraction: float | None, sign: str = "") -> str:
    return "-" if fraction is None else format(100 * fraction, f"{sign}.2f")


def read_metrics(workdir: Path) -> Mapping[str, Any]:
    """The scores that a run left.

    Raises:
        UserError: there are none.
    """
    path = workdir / METRICS_FILE
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): train there, or evaluate with --workdir={workdir}."
        ) from error
    scores = {"split", "clips", "mIoU", "classes", "mIoU_of_clip"}
    if not isinstance(metrics, dict) or not scores <= set(metrics):
        raise UserError(f"{path} holds no scores of an evaluation: evaluate again.")
    return metrics
