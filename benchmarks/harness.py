"""What all benchmarks share: sides that take turns, medians, targets, a table and JSON.

Machines are shared and their speed drifts, so the sides of a comparison run in turns in one
process, and what is quoted is the median of each side and the median of the ratios turn by turn.
"""

import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tmanet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one call of a side took, in seconds.

    Attributes:
        wall: by the clock.
        cpu: of this process, all threads together.
    """

    wall: float
    cpu: float


@dataclasses.dataclass(frozen=True)
class Target:
    """A number that a benchmark is to reach.

    Attributes:
        name: what is measured, with its unit.
        value: what was found.
        target: what is asked for.
        at_least: whether the value must be at least the target, or else at most.
    """

    name: str
    value: float
    target: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the value reaches the target."""
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclasses.dataclass(frozen=True)
class Report:
    """What a benchmark found, for people and for programs.

    Attributes:
        title: what was measured, with the sizes that were used.
        columns: heading of each column of the table.
        rows: the table's cells.
        targets: what was to be reached.
        notes: sentences below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """The table in Markdown, then the targets, then the notes."""
        lines = [
            f"{self.title}\n({machine()})\n",
            _row(self.columns),
            _row(["---"] * len(self.columns)),
        ]
        lines += [_row(row) for row in self.rows]
        lines += ["", *(_told(target) for target in self.targets), *self.notes]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Everything, the targets as a list of name, value, target, at_least, met."""
        values = dataclasses.asdict(self) | {
            "machine": machine(),
            "targets": [dataclasses.asdict(t) | {"met": t.met} for t in self.targets],
        }
        return json.dumps(values, indent=2)

    def write_json(self, path: Path) -> None:
        """Raises UserError if the file cannot be written."""
        try:
            path.write_text(self.to_json() + "\n")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}.") from error


def publish(report: Report, json_path: Path | None) -> None:
    """Prints a report and, if there is a path, writes its JSON there.

    Raises:
        UserError: the file cannot be written; the report has been printed.
    """
    print(report)
    if json_path:
        report.write_json(json_path)


def take_turns(
    sides: Mapping[str, Callable[[], object]], *, turns: int, warm_up: int = 1
) -> dict[str, list[Turn]]:
    """Calls the sides one after the other, again and again; each call must finish its work.

    Args:
        sides: what to call, by name.
        turns: counted calls of each side.
        warm_up: calls of each side before those.
    """
    for _ in range(warm_up):
        for call in sides.values():
            call()
    taken: dict[str, list[Turn]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, call in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            taken[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return taken


def median_wall(turns: Sequence[Turn]) -> float:
    """Median of the seconds by the clock."""
    return statistics.median(turn.wall for turn in turns)


def median_cpu(turns: Sequence[Turn]) -> float:
    """Median of the CPU seconds."""
    return statistics.median(turn.cpu for turn in turns)


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median of the ratios turn by turn."""
    return statistics.median(n / d for n, d in zip(numerator, denominator, strict=True))


def machine() -> str:
    """The processor architecture, usable cores and Python of this machine."""
    return (
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _told(target: Target) -> str:
    relation = "at least" if target.at_least else "at most"
    verdict = "met" if target.met else "NOT met"
    return f"{target.name}: {target.value:.3g}, target {relation} {target.target:.3g}: {verdict}"
