"""Curves of a run: the points that it told while it trained, as a file of its workdir."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tmanet_jax.errors import UserError
from tmanet_jax.run_file import CURVES_COLUMNS, CURVES_FILE


class Curve(NamedTuple):
    """Points in the order of steps.

    Attributes:
        steps_N: int64.
        values_N: float64.
    """

    steps_N: np.ndarray
    values_N: np.ndarray


def read_curves(workdir: Path) -> dict[str, Curve]:
    """All curves of a run by name; points that are not finite and torn lines are left out.

    Raises:
        UserError: there is no file, or none of curves.
    """
    path = workdir / CURVES_FILE
    try:
        lines = list(csv.reader(path.read_text().splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read ({error}): a run writes it while it trains if config.log.to "
            "names csv, as it does by default."
        ) from error
    if not lines or tuple(lines[0]) != CURVES_COLUMNS:
        raise UserError(
            f"{path} holds no curves: its first line is not {','.join(CURVES_COLUMNS)}."
        )
    points: dict[str, list[tuple[int, float]]] = {}
    for line in lines[1:]:
        point = _point(line)
        if point is not None:
            points.setdefault(line[1], []).append(point)
    return {name: _curve(of_name) for name, of_name in points.items()}


def _point(line: list[str]) -> tuple[int, float] | None:
    try:
        step, _, text = line
        value = float(text)
        return (int(step), value) if math.isfinite(value) else None
    except ValueError:
        return None


def _curve(points: list[tuple[int, float]]) -> Curve:
    steps, values = zip(*points, strict=True)
    return Curve(np.array(steps, np.int64), np.array(values))
