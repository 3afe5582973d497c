"""Frames a second, memory, size and mIoU of a network by every engine in every precision.

    python -m benchmarks engines --config=configs/cityscapes.py [--size=256x512] [--stages]

All sides get the same weights and frames of a rendered street, and take turns. Weights that
--config.init.checkpoint=FILE names are scored too, on the clips of config.data.eval_split; 8 bits
are then calibrated on the records, and else on the street. --stages: what decoding, drawing and
encoding a video of 720p take beside that.
"""

import argparse
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks import command, stages
from benchmarks.findings import Findings, Target, load_note, publish, three_digits
from benchmarks.harness import (
    host_peak_bytes,
    median_cpu,
    median_ratio,
    median_wall,
    quartiles,
    take_turns,
)
from benchmarks.inference import random_model
from data_prep.synthetic import render_dataset
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.errors import UserError
from tmanet_jax.export import cache
from tmanet_jax.export.names import PRECISIONS
from tmanet_jax.export.quantise import CalibrationSource
from tmanet_jax.inference.engine import Computation, ExportedNetwork
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.inference.stream import StreamingNetwork, StreamState
from tmanet_jax.inputs import open_split
from tmanet_jax.models.tmanet import TMANet, blank_model
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.scoring.evaluate import evaluate
from tmanet_jax.scoring.stream_clips import StreamClipSegmenter
from tmanet_jax.settings import Settings
from tmanet_jax.video.frames import open_frames
from tmanet_jax.weights import load
from tmanet_jax.weights.files import classes_of_number

OURS = "jax float32"
DEFAULT_SIZE = (256, 512)
"""Of frames, where none is asked for and the network is no trained one."""

SPEED_UPS = {"openvino bfloat16": 1.9, "openvino int8": 3.0}
"""Frames a second, in those of ours: to be reached."""

RIVALS = ("onnxruntime float32", "openvino float32")
"""Whose frames a second ours are to reach."""

POINTS_LOST = {"openvino bfloat16": 0.2, "openvino int8": 1.0}
"""Of mIoU in percent, at most."""

COLUMNS = (
    *("", "ms", "quartiles", "CPU ms", "frames/s of ours", "memory, MB", "on disk, MB"),
    *("labels as ours", "mIoU"),
)


@dataclasses.dataclass(frozen=True)
class Workload:
    """What all sides compute.

    Attributes:
        model: in float32.
        classes: what it tells apart.
        evaluation: how frames are segmented.
        records: clips on which it is scored; None: its weights are random.
    """

    model: TMANet
    classes: ClassSet
    evaluation: EvalConfig
    records: ClipRecords | None = None


@dataclasses.dataclass(frozen=True)
class Side:
    """An engine in a precision, ready to run.

    Attributes:
        step: segments the next frame of the video, to labels HxW.
        peak: bytes that loading it and its first frame add to the process at most, or None.
        on_disk: bytes of what it reads.
        mean_iou: a fraction; None if nothing is scored.
    """

    step: Callable[[], np.ndarray]
    peak: int | None
    on_disk: int
    mean_iou: float | None


def add_command(commands: command.Subparsers) -> None:
    """`engines`."""
    parser = command.add(commands, "engines", __doc__, _run)
    command.add_options(parser, "size", "turns", "json")
    parser.add_argument("--stages", action="store_true", help="of a whole prediction at 720p, too")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    network = network_of(settings)
    size = options.size or (settings.data.render.size if network.records else DEFAULT_SIZE)
    frames = rendered_street(size)
    chosen, failed = computations(settings.data.dir if network.records else frames)
    sides = {name: side_of(network, computation, frames) for name, computation in chosen.items()}
    publish(measure(network, size, sides, failed, options.turns), options.json)
    if options.stages:
        protocol = network.evaluation.protocol
        if not network.records:
            protocol = protocol.but(scale=0.5)
        segmenters = {
            name: Segmenter(
                _in_precision(network.model, computation), network.classes, protocol, computation
            )
            for name, computation in chosen.items()
        }
        publish(stages.measure(segmenters, network.classes, frames), None)


def network_of(settings: Settings) -> Workload:
    """The trained network that is named, with the clips to score it on, or a random one."""
    if settings.init.checkpoint:
        loaded = load.load_model(settings.init.checkpoint, dtype="float32", attention="chunked")
        settings = dataclasses.replace(settings, model=loaded.model.config)
        records = open_split(
            settings, settings.data.eval_split, memory_range=settings.model.head.num_memory
        )
        evaluation = settings.evaluation.for_weights(loaded.protocol)
        return Workload(loaded.model, loaded.classes, evaluation, records)
    config = dataclasses.replace(settings.model, dtype="float32", attention="chunked")
    evaluation = settings.evaluation.override(mode="whole")
    classes = classes_of_number(config.head.num_classes)
    return Workload(random_model(config, settings.seed), classes, evaluation)


def rendered_street(size: tuple[int, int]) -> list[np.ndarray]:
    """Thirty frames of one drive, HxWx3."""
    with tempfile.TemporaryDirectory(prefix="street-") as folder:
        render_dataset(folder, size=size, val=1, degraded_val=0.0, progress=False)
        (drive,) = Path(folder, "leftImg8bit_sequence", "val").iterdir()
        with open_frames(drive) as frames:
            return [one.pixels_HxWx3 for one in frames.frames if one.pixels_HxWx3 is not None]


def computations(
    calibrate: CalibrationSource,
) -> tuple[dict[str, Computation], dict[str, str]]:
    """All that there are by engine and precision, ours first; and why others are not there."""
    found, failed = {}, {}
    for engine, precisions in PRECISIONS.items():
        for precision in precisions:
            frames = calibrate if precision == "int8" else None
            computation = Computation(engine, precision, frames)
            try:
                computation.check_there()
            except UserError as error:
                failed[f"{engine} {precision}"] = str(error)
            else:
                found[f"{engine} {precision}"] = computation
    return found, failed


def _in_precision(model: TMANet, computation: Computation) -> TMANet:
    """The network as jax computes it; other engines get the one of float32."""
    if computation.engine != "jax":
        return model
    other = blank_model(dataclasses.replace(model.config, dtype=computation.precision))
    nnx.update(other, nnx.state(model))
    return other


def side_of(network: Workload, computation: Computation, frames: Sequence[np.ndarray]) -> Side:
    """An engine loaded, its network scored."""
    height, width, _ = frames[0].shape
    protocol = dataclasses.replace(network.evaluation.protocol, memory_stride=1)
    model = _in_precision(network.model, computation)

    def new_engine() -> StreamingNetwork | ExportedNetwork:
        if computation.engine == "jax":
            return StreamingNetwork(model, protocol)
        return ExportedNetwork(model, network.classes, protocol, computation)

    state = new_engine().start(1, (height, width))  # an export is written
    if isinstance(state, StreamState):
        on_disk = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model)))
    else:
        on_disk = cache.size_of(state.folder)
    del state
    engine, upcoming, states = new_engine(), itertools.cycle(frames), list[Any]()

    def step() -> np.ndarray:
        state: Any = states.pop() if states else engine.start(1, (height, width))
        state, output = engine.step(state, next(upcoming)[None], np.zeros(1, bool))
        states.append(state)
        return np.asarray(output.labels_BxHxW[0])

    peak = host_peak_bytes(step)
    mean_iou = None
    if network.records:
        segmenter = StreamClipSegmenter(engine, network.evaluation)
        mean_iou = evaluate(segmenter, network.records).overall.mean_iou
    return Side(step, peak, on_disk, mean_iou)


def measure(
    network: Workload,
    size: tuple[int, int],
    sides: Mapping[str, Side],
    failed: Mapping[str, str],
    turns: int,
) -> Findings:
    """Frames by all sides in turns, ours first."""
    labels: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    calls = {
        name: (lambda name=name, side=side: labels[name].append(side.step()))
        for name, side in sides.items()
    }
    taken = take_turns(calls, turns=turns)
    speed_up = {
        name: median_ratio([turn.wall for turn in taken[OURS]], [turn.wall for turn in of_side])
        for name, of_side in taken.items()
    }
    rows: list[Sequence[str]] = []
    for name, side in sides.items():
        low, high = quartiles([1e3 * turn.wall for turn in taken[name]])
        agreement = np.mean([a == b for a, b in zip(labels[name], labels[OURS], strict=True)])
        rows.append(
            (
                name,
                three_digits(1e3 * median_wall(taken[name])),
                f"{three_digits(low)} to {three_digits(high)}",
                three_digits(1e3 * median_cpu(taken[name])),
                f"{speed_up[name]:.2f}",
                "-" if side.peak is None else f"{side.peak / 1e6:.0f}",
                three_digits(side.on_disk / 1e6),
                f"{agreement:.1%}",
                "-" if side.mean_iou is None else f"{100 * side.mean_iou:.2f}",
            )
        )
    empty = ("-",) * (len(COLUMNS) - 2)
    rows += [(name, f"FAILED: {why}", *empty) for name, why in failed.items()]
    config = network.model.config
    return Findings(
        title=f"A frame of a video by each engine, {size[0]}x{size[1]}, {config.backbone}, "
        f"T={config.head.num_memory}, {network.evaluation.protocol}",
        columns=COLUMNS,
        rows=rows,
        targets=_targets(sides, speed_up, is_scored=network.records is not None),
        notes=(
            f"Medians of {turns} turns; ratios turn by turn. Memory: what loading or compiling and "
            "a first frame add to the process at most. Labels: of the frames that were timed.",
            load_note(),
        ),
    )


def _targets(
    sides: Mapping[str, Side], speed_up: Mapping[str, float], *, is_scored: bool
) -> list[Target]:
    """Speed is asked of the published network, mIoU of a trained one."""
    if not is_scored:
        return [
            Target(f"frames/s of {name} in those of ours", speed_up[name], least)
            for name, least in SPEED_UPS.items()
            if name in sides
        ] + [
            Target(f"frames/s of ours in those of {name}", 1 / speed_up[name], 1.0)
            for name in RIVALS
            if name in sides
        ]
    ours = sides[OURS].mean_iou or 0.0
    return [
        Target(
            f"points of mIoU that {name} loses",
            100 * (ours - (sides[name].mean_iou or 0.0)),
            most,
            at_least=False,
        )
        for name, most in POINTS_LOST.items()
        if name in sides
    ]
