"""What the memory is worth: the same network without memory and with it, side by side.

    python -m benchmarks baseline --config=configs/demo.py
    python -m benchmarks baseline --workdirs=runs/a,runs/b

The first trains both in OUT/per_frame and OUT/memory with `run.py`; other options are handed to it.
A run that has ended is not repeated, one that was stopped goes on. The second compares two runs
that are there. The table is printed and written to OUT/comparison.md and OUT/comparison.csv.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.findings import markdown, write_text
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.report import METRICS_FILE

PER_FRAME = "--config.model.num_memory=0"


def add_command(commands: command.Subparsers) -> None:
    """`baseline`."""
    parser = command.add(commands, "baseline", __doc__, _run)
    command.add_options(parser, config="configs/demo.py")
    parser.add_argument("--out", type=Path, default=Path("runs/baseline"))
    parser.add_argument("--workdirs", help="two runs to compare, FIRST,SECOND; trains none")


def _run(options: argparse.Namespace) -> None:
    if options.workdirs:
        workdirs = [Path(name) for name in options.workdirs.split(",")]
        if len(workdirs) != 2 or options.others:
            raise UserError(f"--workdirs must name two runs alone, not {options.workdirs!r}.")
        first, second = workdirs
    else:
        first, second = options.out / "per_frame", options.out / "memory"
        train(first, options.config, [*options.others, PER_FRAME])
        train(second, options.config, options.others)
    rows, names = compare(first, second), (first.name, second.name)
    table = comparison_table(rows, names)
    write_text(options.out / "comparison.md", table + "\n")
    write_text(options.out / "comparison.csv", comparison_csv(rows, names))
    print(f"{table}\n\ntables:   {options.out}/comparison.md, comparison.csv")


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


@dataclass(frozen=True)
class Row:
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
    one, two = _read(first), _read(second)
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
    pairs = [("mean", _means(one), _means(two)), ("group", _groups(one), _groups(two))]
    pairs += [("class", _classes(one), _classes(two))]
    pairs += [("over time", one.get("temporal", {}), two.get("temporal", {}))]
    return [
        Row(part, name, of_one[name], of_two[name])
        for part, of_one, of_two in pairs
        for name in of_one
        if name in of_two and (of_one[name], of_two[name]) != (None, None)
    ]


def comparison_csv(rows: Sequence[Row], names: tuple[str, str]) -> str:
    """Fractions; empty where no pixel defines one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("part", "name", *names, "difference"))
    writer.writerows((row.part, row.name, row.first, row.second, row.difference) for row in rows)
    return text.getvalue()


def comparison_table(rows: Sequence[Row], names: tuple[str, str]) -> str:
    """Markdown, in percent."""
    cells = [
        (row.part, row.name, *map(_percent, (row.first, row.second)), _percent(row.difference, "+"))
        for row in rows
    ]
    return markdown(("", "", *names, "difference"), cells)


def _percent(fraction: float | None, sign: str = "") -> str:
    return "-" if fraction is None else format(100 * fraction, f"{sign}.2f")


def _read(workdir: Path) -> Mapping[str, Any]:
    path = workdir / METRICS_FILE
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): train there, or evaluate with --workdir={workdir}."
        ) from error
    if not isinstance(metrics, dict) or not {
        "split",
        "clips",
        "mIoU",
        "classes",
        "mIoU_of_clip",
    } <= set(metrics):
        raise UserError(f"{path} holds no scores of an evaluation: evaluate again.")
    return metrics


def _means(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: metrics[name] for name in ("mIoU", "mAcc", "aAcc", "mDice")}


def _groups(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    parts = {name: metrics[name] for name in ("categories", "without_void") if name in metrics}
    return {name: part["mIoU"] for name, part in {**parts, **metrics["groups"]}.items()}


def _classes(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: scores["IoU"] for name, scores in metrics["classes"].items()}
