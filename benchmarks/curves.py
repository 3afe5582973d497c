"""Time and memory of a training step against the area of the crops and against T, as a picture.

    python -m benchmarks curves --config=configs/demo.py --out=docs/curves.png

One clip a step. The work grows with the area, but the memory read with its square: the line of the
formula shows what the operations alone would cost, scaled to the last point. On a CPU the default
takes some minutes; `--config=configs/cityscapes.py --sides=257,513,769` is for a GPU.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks import command
from benchmarks.comparison import compare, load_note
from benchmarks.flops import training_flops
from benchmarks.harness import Report, median_wall, publish
from benchmarks.line_chart import Chart, draw
from benchmarks.train import OURS, Case, TrainSide, with_case
from tmanet_jax.errors import UserError
from tmanet_jax.settings import Settings

TOLERANCE = 1e-3


class Measured(NamedTuple):
    """One point of the curves.

    Attributes:
        num_memory: T.
        side: pixels of the square crop.
        seconds: median of a step.
        megabytes: that a step needs; nan where it cannot be told.
        flops: by formula.
    """

    num_memory: int
    side: int
    seconds: float
    megabytes: float
    flops: float


def add_command(commands: command.Subparsers) -> None:
    """`curves`."""
    parser = command.add(commands, "curves", __doc__, _run)
    command.add_options(parser, "turns", "json", config="configs/demo.py")
    parser.add_argument("--sides", default="97,193,257,321,385", help="of the crops, in pixels")
    parser.add_argument("--memories", default="1,2,4", help="T")
    parser.add_argument("--out", type=Path, default=Path("docs/curves.png"))


def _run(options: argparse.Namespace) -> None:
    run = command.settings_of(options)
    points = [
        measure(run, num_memory, side, options.turns)
        for num_memory in _numbers("--memories", options.memories, 0)
        for side in _numbers("--sides", options.sides, 8)
    ]
    publish(report(options.config, run, points), options.json)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(options.out), picture(points)[..., ::-1]):
        raise UserError(f"{options.out} cannot be written: is it a .png in a folder of yours?")
    print(f"curves:   {options.out}")


def measure(run: Settings, num_memory: int, side: int, turns: int) -> Measured:
    """Steps of one clip."""
    head = dataclasses.replace(run.model.head, num_memory=num_memory)
    case = Case((side, side), 1)
    run = with_case(dataclasses.replace(run, model=dataclasses.replace(run.model, head=head)), case)
    step = TrainSide(run, case)
    found = compare(OURS, step.side(), {}, turns=turns, tolerance=TOLERANCE)
    peak = found.peaks[OURS]
    return Measured(
        num_memory,
        side,
        median_wall(found.taken[OURS]),
        float("nan") if peak is None else peak / 1e6,
        training_flops(run.model, case.size, 1),
    )


def report(config: str, run: Settings, points: Sequence[Measured]) -> Report:
    """A row a point."""
    return Report(
        title=f"Training steps of one clip, {config}, {run.model.dtype}",
        columns=("T", "crop", "s a step", "memory, MB", "GFLOP", "GFLOP/s"),
        rows=[
            (
                str(point.num_memory),
                f"{point.side}x{point.side}",
                f"{point.seconds:.3g}",
                f"{point.megabytes:.0f}",
                f"{point.flops / 1e9:.3g}",
                f"{point.flops / point.seconds / 1e9:.3g}",
            )
            for point in points
        ],
        targets=(),
        notes=(load_note(),),
    )


def picture(points: Sequence[Measured]) -> np.ndarray:
    """Seconds, then megabytes, side by side: RGB uint8."""
    pixels = "pixels of the crop, in thousands"
    memories = sorted({point.num_memory for point in points})
    seconds = {f"T = {t}": _series(points, t, "seconds") for t in memories}
    last = max(points, key=lambda point: point.flops)
    seconds[f"T = {last.num_memory}, by formula"] = [
        (x, flops * last.seconds / last.flops)
        for x, flops in _series(points, last.num_memory, "flops")
    ]
    charts = [Chart("A training step, one clip", pixels, "seconds", seconds)]
    if not any(np.isnan(point.megabytes) for point in points):
        megabytes = {f"T = {t}": _series(points, t, "megabytes") for t in memories}
        charts.append(Chart("A training step, one clip", pixels, "memory, MB", megabytes))
    return np.concatenate([draw(chart) for chart in charts], axis=1)


def _series(points: Sequence[Measured], num_memory: int, field: str) -> list[tuple[float, float]]:
    return [
        (point.side**2 / 1000, getattr(point, field))
        for point in points
        if point.num_memory == num_memory
    ]


def _numbers(option: str, text: str, least: int) -> list[int]:
    """As in 1,2,4. Raises UserError for anything else."""
    words = text.split(",")
    if not all(word.isdigit() and int(word) >= least for word in words):
        raise UserError(f"{option} is {text!r}: whole numbers from {least} on, as in 97,193.")
    return sorted(map(int, words))
