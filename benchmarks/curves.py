"""Time and memory of a training step against the area of the crops and against T, as a picture.

    python -m benchmarks curves --config=configs/demo.py --out=docs/curves.png

One clip a step. The work grows with the area, but the memory read with its square: the line of the
formula shows what the operations alone would cost, scaled to the last point. On a CPU the default
takes some minutes; `--config=configs/cityscapes.py --sides=257,513,769` is for a GPU.
"""

import argparse
import dataclasses
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import command
from benchmarks.findings import Findings, load_note, publish
from benchmarks.flops import training_flops
from benchmarks.harness import Side, race
from benchmarks.train import OURS, TrainSide, with_sizes
from tmanet_jax.errors import UserError
from tmanet_jax.settings import Settings


class Point(NamedTuple):
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
    parser.add_argument(
        "--sides",
        type=command.parse_counts,
        default=[97, 193, 257, 321, 385],
        help="of the crops, in pixels; default 97,193,257,321,385",
    )
    parser.add_argument("--memories", type=command.parse_counts, default=[1, 2, 4], help="T")
    parser.add_argument("--out", type=Path, default=Path("docs/curves.png"))


def _run(options: argparse.Namespace) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("Curves are drawn by Matplotlib: pip install -r requirements-dev.txt.")
    run = command.settings_of(options)
    points = [
        measure(run, num_memory, side, options.turns)
        for num_memory in options.memories
        for side in options.sides
    ]
    publish(findings_of(options.config, run, points), options.json)
    draw(points, options.out)
    print(f"curves:   {options.out}")


def measure(run: Settings, num_memory: int, side: int, turns: int) -> Point:
    """Steps of one clip."""
    head = dataclasses.replace(run.model.head, num_memory=num_memory)
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, head=head))
    run = with_sizes(run, (side, side), 1)
    found = race(OURS, Side(TrainSide(run).step), {}, turns=turns, tolerance=math.inf)
    peak = found.peaks[OURS]
    megabytes = math.nan if peak is None else peak / 1e6
    flops = training_flops(run.model, (side, side), 1)
    return Point(num_memory, side, found.seconds, megabytes, flops)


def findings_of(config: str, run: Settings, points: Sequence[Point]) -> Findings:
    """A row a point."""
    return Findings(
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
        notes=(load_note(),),
    )


def draw(points: Sequence[Point], path: Path) -> None:
    """Seconds, and where they are known megabytes, side by side.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    fields = {"seconds": "seconds", "megabytes": "memory, MB"}
    if any(math.isnan(point.megabytes) for point in points):
        del fields["megabytes"]
    figure = Figure(figsize=(4.8 * len(fields), 3.6), layout="constrained")
    places = figure.subplots(1, len(fields), squeeze=False)[0]
    last = max(points, key=lambda point: point.flops)
    for axes, field in zip(places, fields, strict=True):
        for num_memory in sorted({point.num_memory for point in points}):
            of_memory = [point for point in points if point.num_memory == num_memory]
            pixels = [point.side**2 / 1000 for point in of_memory]
            values = [getattr(point, field) for point in of_memory]
            axes.plot(pixels, values, "o-", label=f"T = {num_memory}")
            if field == "seconds" and num_memory == last.num_memory:
                formula = [point.flops * last.seconds / last.flops for point in of_memory]
                axes.plot(pixels, formula, ":", label=f"T = {num_memory}, by formula")
        axes.set_title("A training step, one clip")
        axes.set(xlabel="pixels of the crop, in thousands", ylabel=fields[field], xlim=0, ylim=0)
        axes.legend()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:  # also of a format that is none
        raise UserError(f"{path} cannot be written: {error}.") from error
