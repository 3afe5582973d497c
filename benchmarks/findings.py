"""What a measurement found: a table, targets and notes, as Markdown and as JSON."""

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from tmanet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Target:
    """A number that is to be reached.

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

    def __str__(self) -> str:
        relation, verdict = self.relation, "met" if self.met else "NOT met"
        return f"{self.name}: {self.value:.3g}, target {relation} {self.target:.3g}: {verdict}"

    @property
    def relation(self) -> str:
        """In words."""
        return "at least" if self.at_least else "at most"


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a measurement found, for people and for programs.

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
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """The table in Markdown, then the targets, then the notes."""
        table = markdown(self.columns, self.rows)
        return "\n".join(
            [f"{self.title}\n({machine()})\n", table, "", *map(str, self.targets), *self.notes]
        )

    def to_json(self) -> str:
        """Everything, the targets as a list of name, value, target, at_least, met."""
        values = dataclasses.asdict(self) | {
            "machine": machine(),
            "targets": [dataclasses.asdict(t) | {"met": t.met} for t in self.targets],
        }
        return json.dumps(values, indent=2)


def publish(findings: Findings, json_path: Path | None) -> None:
    """Prints what was found and, if there is a path, writes it there as JSON.

    Raises:
        UserError: the file cannot be written; the findings have been printed.
    """
    print(findings)
    if json_path:
        write_text(json_path, findings.to_json() + "\n")


def write_text(path: Path, text: str) -> None:
    """Raises UserError if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def three_digits(value: float) -> str:
    """Three digits, or all before the point: never with an exponent above 1."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def machine() -> str:
    """The processor architecture, usable cores and Python of this machine."""
    return (
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def load_note() -> str:
    """Whether others were working on this machine."""
    return (
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f} processes. Where others work "
        "beside it, only the ratios mean much."
    )
