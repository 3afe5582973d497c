"""Where the time of a frame of a video goes: in the network, and in decoding, drawing and encoding.

    python -m benchmarks stages --config=configs/cityscapes.py [--sizes=480x854,720x1280]
        [--picture=FILE.svg]

Frames are segmented whole, at their own size, by random weights with a TMA head. Each stage is
timed alone, on what the stages before it made.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from flax import nnx

from benchmarks import command
from benchmarks.bars import divided_bars
from benchmarks.findings import Findings, load_note, publish, three_digits, write_text
from benchmarks.harness import Turn, median_cpu, take_turns
from benchmarks.inference import random_model
from data_prep.street.render import SnippetFrames
from tmanet_jax.data.classes import CITYSCAPES, ClassSet
from tmanet_jax.data.codec import Size, parse_size
from tmanet_jax.errors import UserError
from tmanet_jax.inference.outputs import VideoOutput
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tma_head import TMAHead
from tmanet_jax.models.tmanet import TMANet, reading
from tmanet_jax.models.upsampling import half_upsampled, labels_of
from tmanet_jax.pictures import blend
from tmanet_jax.video.frames import open_frames
from tmanet_jax.video.writer import PartWriter, join

SIZE = Size(720, 1280)
MOST_FRAMES = 15
"""So that all engines together take a few minutes."""
RATE = Fraction(25)
VIDEO = "street.mp4"
SIZES = "480x854,720x1280,1080x1920"

Part = Callable[[Any, Any], Any]
"""From the network, and what the part before made, to what this one makes."""


def add_command(commands: command.Subparsers) -> None:
    """`stages`."""
    parser = command.add(commands, "stages", __doc__, _run)
    command.add_options(parser, "turns", "json")
    parser.add_argument("--sizes", default=SIZES, metavar="HxW,...", help="default %(default)s")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="a bar for each size")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    distance = settings.evaluation.protocol.neighbourhood
    model = reading(random_model(settings.model, settings.seed), distance)
    street = SnippetFrames("val", 0, (128, 256), 0, is_degraded=False)
    pictures = [street.draw(index).image_HxWx3 for index in range(MOST_FRAMES)]
    sizes = [parse_size(text) for text in options.sizes.split(",")]
    found = of_sizes(model, pictures, sizes, options.turns)
    publish(found, options.json)
    if options.picture:
        write_text(options.picture, picture(found))


def of_sizes(
    model: TMANet, street: Sequence[np.ndarray], sizes: Sequence[Size], turns: int
) -> Findings:
    """A row of each stage, a column of CPU milliseconds for each size of frames.

    Args:
        model: with a TMA head.
        street: frames of a drive, HxWx3, which are enlarged.
        sizes: height and width in pixels.
        turns: counted calls of each part of the network.

    Raises:
        UserError: the network has another head.
    """
    taken: list[Mapping[str, float]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="stages-") as folder:
            around = _around_network(Path(folder), _enlarged(street, size), CITYSCAPES)
        within = take_turns(_network_calls(model, size), turns=turns, warm_up=0)
        of_network = {name: median_cpu(calls) for name, calls in within.items()}
        taken.append(of_network | {name: turn.cpu for name, turn in around.items()})
    head, distance = model.config.head, getattr(model.head, "neighbourhood", None)
    return Findings(
        title=f"CPU ms of a frame: {model.config.backbone}, T={head.num_memory}, "
        f"{model.config.dtype}, memory read within {'all' if distance is None else distance}",
        columns=("stage", *(f"{size.height}x{size.width}" for size in sizes)),
        rows=[(stage, *(three_digits(1e3 * one[stage]) for one in taken)) for stage in taken[0]],
        notes=(
            f"Medians of {turns} calls of the network's parts; means of {len(street)} frames.",
            load_note(),
        ),
    )


def picture(found: Findings) -> str:
    """What `of_sizes` found, as an SVG: a bar for each size of frames."""
    stages = [stage for stage, *_ in found.rows]
    sizes = zip(*([float(cell) for cell in cells] for _, *cells in found.rows), strict=True)
    return divided_bars(stages, [*zip(found.columns[1:], sizes, strict=True)], "ms")


def _network_calls(model: TMANet, size: Size) -> dict[str, Callable[[], Any]]:
    if not isinstance(model.head, TMAHead):
        raise UserError("benchmarks stages times the parts of a TMA head: choose model.head=tma.")

    def labels(model: Any, logits_BxhxwxC: jax.Array) -> jax.Array:
        upsampled = half_upsampled(logits_BxhxwxC, size, align_corners=model.config.align_corners)
        return labels_of(upsampled)

    parts: dict[str, Part] = {
        "backbone": lambda model, frames_BxHxWx3: model.encode(
            normalize(frames_BxHxWx3[:, None])[:, 0]
        ),
        "encoders": lambda model, query: (
            model.head.query_encoder(query.stage4, train=False),
            model.remember(query),
        ),
        "read": lambda model, encoded: model.head.attend(*encoded),
        "bottleneck, classifier": lambda model, read: model.head.classify(read, train=False),
        "up-sampling, arg-max": labels,
    }
    graphdef, weights = nnx.split(model)
    calls: dict[str, Callable[[], Any]] = {}  # each has been called, and so compiled, once
    given: Any = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    for name, part in parts.items():
        calls[name] = functools.partial(_finished, _compiled(part, graphdef), weights, given)
        given = calls[name]()
    return calls


def measure(
    segmenters: Mapping[str, Segmenter],
    classes: ClassSet,
    street: Sequence[np.ndarray],
    size: Size = SIZE,
) -> Findings:
    """Times each stage alone, then whole predictions by each engine, to a video of overlays.

    Args:
        segmenters: by engine and precision.
        classes: what they tell apart.
        street: frames of a drive, HxWx3; the video shows them enlarged.
        size: height and width of the video in pixels.
    """
    pictures = _enlarged(street[:MOST_FRAMES], size)
    with tempfile.TemporaryDirectory(prefix="stages-") as folder:
        taken = _around_network(Path(folder), pictures, classes)
        for name, segmenter in segmenters.items():
            list(segmenter.stream(pictures[:1]))  # compiles, or loads the export
            results = segmenter.stream(pictures)
            taken[f"resize, segment: {name}"] = _each(lambda result: None, results)
            output = Path(folder, name.replace(" ", "-"))
            taken[f"all: {name}"] = _predicting(segmenter, classes, Path(folder, VIDEO), output)
    return Findings(
        title=f"Stages of a prediction, {size.height}x{size.width}",
        columns=("stage", "ms a frame", "CPU ms a frame"),
        rows=[
            (stage, three_digits(1e3 * turn.wall), three_digits(1e3 * turn.cpu))
            for stage, turn in taken.items()
        ],
        notes=(
            f"Means of {len(pictures)} frames; the stages alone, then all of them.",
            load_note(),
        ),
    )


def _compiled(part: Part, graphdef: nnx.GraphDef) -> Callable[[nnx.State, Any], Any]:
    return jax.jit(lambda weights, given: part(nnx.merge(graphdef, weights), given))


def _finished(program: Callable[..., Any], *inputs: Any) -> Any:
    return jax.block_until_ready(program(*inputs))


def _enlarged(street: Sequence[np.ndarray], size: Size) -> list[np.ndarray]:
    return [cv2.resize(frame, (size.width, size.height)) for frame in street]


def _around_network(
    folder: Path, pictures: Sequence[np.ndarray], classes: ClassSet
) -> dict[str, Turn]:
    """Encodes, draws and decodes; leaves the video in the folder."""
    labels_HxW = np.zeros(pictures[0].shape[:2], np.uint8)
    writer = PartWriter(folder / "parts", rate=RATE, time_base=1 / RATE)
    taken = {
        "encode": _each(lambda written: None, _writing(writer, pictures)),
        "draw": _each(lambda picture: blend(picture, labels_HxW, classes), pictures),
    }
    join(folder / "parts", folder / VIDEO)
    with open_frames(folder / VIDEO) as frames:
        taken["decode"] = _each(lambda frame: None, frames.frames)
    return taken


def _writing(writer: PartWriter, pictures: Sequence[np.ndarray]) -> Iterator[None]:
    """To the end of the part: the encoder holds frames back."""
    for pts, picture in enumerate(pictures):
        writer.write(picture, pts)
        yield
    writer.close()


def _each(call: Callable[[Any], object], items: Iterable[Any]) -> Turn:
    """Seconds of a call, and of what makes the items, for each of them."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007 (the count is used after the loop)
        call(item)
    return Turn((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def _predicting(segmenter: Segmenter, classes: ClassSet, video: Path, output: Path) -> Turn:
    """As `run.py predict` does it, from a video to a video."""
    with open_frames(video) as frames:
        writer = VideoOutput(output, classes, frames, size_of_first=lambda: None, keeps_sound=False)
        taken = _each(writer.write, segmenter.stream(video))
        writer.close()
    return taken
