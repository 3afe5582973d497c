"""Frames a second of a video: streaming against T + 1 backbone passes, and against a peer.

    python -m benchmarks stream --config=configs/cityscapes.py [--size=256x512] [--torch]

All sides are given the same weights and frames, and must agree before any time is taken.
"""

import argparse
import collections
import dataclasses
import resource
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import command
from benchmarks.harness import (
    Report,
    Target,
    Turn,
    median_cpu,
    median_ratio,
    median_wall,
    publish,
    take_turns,
)
from tmanet_jax import protocol
from tmanet_jax.errors import UserError
from tmanet_jax.inference.stream import FrameStream
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.settings import Settings
from tmanet_jax.weights.names import (
    Tensors,
    expected_dtype,
    expected_shapes,
    to_tensors,
    with_tensors,
)

SPEED_UP_OF_MEMORY = {2: 2.5, 4: 3.8}
"""By T: how many times the frames a second of T + 1 passes streaming is to reach."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Of the logits, relative to the largest, by compute type: programs round differently."""

DEFAULT_SIZE = (256, 512)
"""Of frames, where none is asked for."""

GPU_FRAMES_PER_SECOND = 100
"""To be reached at 1024x2048, T=2, in bfloat16, by one stream on one H200."""

RESIDUAL_GAIN = 0.25
"""Of the bottlenecks' last batch norms; with 1 the sums of a deep network would explode."""

STREAMING, WHOLE_CLIP = "JAX, streaming", "JAX, T + 1 passes"
PEER_WHOLE_CLIP, PEER_CACHED = "peer, T + 1 passes", "peer, cached"


class Segmented(NamedTuple):
    """What a side says of a frame."""

    labels_HxW: np.ndarray
    """uint8"""
    logits_hxwxC: np.ndarray
    """At stride 8."""


class VideoSide(Protocol):
    """One way to segment a video, frame by frame, from its first one."""

    def step(self, frame_HxWx3: np.ndarray) -> Segmented:
        """Segments the next frame, uint8 RGB; all work is done when it returns."""

    def state_bytes(self) -> int:
        """Size of what is kept from frame to frame."""


Peer = Callable[[Tensors, ModelConfig, tuple[int, int]], tuple[VideoSide, VideoSide]]
"""Weights, configuration and frame size -> another program's T + 1 passes, and its cached way."""


class Streaming:
    """`inference.stream`: one backbone pass a frame.

    Args:
        model: the network.
        size: height and width of the frames.
        num_streams: videos that go side by side; all show the same.
    """

    def __init__(self, model: TMANet, size: tuple[int, int], num_streams: int = 1):
        self._stream = FrameStream(model, protocol.Protocol())
        self._state = self._stream.start(num_streams, size)
        self._num_streams = num_streams

    def step(self, frame_HxWx3: np.ndarray) -> Segmented:
        """Segments the next frame."""
        frames_NxHxWx3 = np.broadcast_to(frame_HxWx3, (self._num_streams, *frame_HxWx3.shape))
        self._state, output = self._stream.step(
            self._state, frames_NxHxWx3, np.zeros(self._num_streams, np.bool_)
        )
        labels_BxHxW, logits_NxhxwxC = jax.device_get(output)
        return Segmented(labels_BxHxW[0], logits_NxhxwxC[0])

    def state_bytes(self) -> int:
        """Of the rings of keys and values."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))


class WholeClip:
    """The clip of each frame through the whole network, as evaluation does it."""

    def __init__(self, model: TMANet):
        graphdef, self._weights = nnx.split(model)
        length = model.config.head.num_memory + 1
        self._clip: collections.deque[np.ndarray] = collections.deque(maxlen=length)

        @jax.jit
        def segment(weights: nnx.State, frames_SxHxWx3: jax.Array) -> tuple[jax.Array, jax.Array]:
            network: TMANet = nnx.merge(graphdef, weights)
            _, height, width, _ = frames_SxHxWx3.shape
            size = (height, width)
            clip = normalize(frames_SxHxWx3[None], jnp.array([size]))
            logits_1xhxwxC = network(clip).main
            full = resize_bilinear(logits_1xhxwxC, size, align_corners=network.config.align_corners)
            return full.argmax(-1).astype(jnp.uint8)[0], logits_1xhxwxC[0]

        self._segment = segment

    def step(self, frame_HxWx3: np.ndarray) -> Segmented:
        """Segments the next frame."""
        missing = (self._clip.maxlen or 0) if not self._clip else 1
        self._clip.extend([frame_HxWx3] * missing)
        return Segmented(*jax.device_get(self._segment(self._weights, np.stack(self._clip))))

    def state_bytes(self) -> int:
        """Of the frames that are kept."""
        return sum(frame.nbytes for frame in self._clip)


def add_command(commands: command.Subparsers) -> None:
    """`stream`."""
    parser = command.add(commands, "stream", __doc__, _run)
    command.add_options(parser, "torch", "size", "batch", "turns", "json")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    peer: Peer | None = None
    if options.torch:
        from benchmarks.torch_video import video_sides

        peer = video_sides
    report = measure(
        settings,
        size=options.size or DEFAULT_SIZE,
        turns=options.turns,
        num_streams=options.batch or 1,
        peer=peer,
    )
    publish(report, options.json)


def measure(
    settings: Settings,
    *,
    size: tuple[int, int],
    turns: int,
    num_streams: int = 1,
    peer: Peer | None = None,
) -> Report:
    """Runs all sides in turns over the same frames; more streams at a time are measured after them.

    Args:
        settings: its network, with random weights, on which speed does not depend.
        size: height and width of the frames.
        turns: frames that count.
        num_streams: videos that are segmented at a time, in one more measurement.
        peer: another program of the same network.

    Raises:
        UserError: two sides say different things of a frame.
    """
    model = random_model(settings.model, settings.seed)
    sides: dict[str, VideoSide] = {STREAMING: Streaming(model, size), WHOLE_CLIP: WholeClip(model)}
    if peer is not None:
        tensors = to_tensors(nnx.state(model))
        sides[PEER_WHOLE_CLIP], sides[PEER_CACHED] = peer(tensors, settings.model, size)
    report = measure_sides(settings.model, size, sides, turns=turns)
    if num_streams == 1:
        return report
    note = _measure_streams(model, size, num_streams, turns)
    return dataclasses.replace(report, notes=[*report.notes, note])


def _measure_streams(model: TMANet, size: tuple[int, int], num_streams: int, turns: int) -> str:
    """Frames of so many videos at a time through one program."""
    side = Streaming(model, size, num_streams)
    frame_HxWx3 = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    seconds = median_wall(take_turns({"": lambda: side.step(frame_HxWx3)}, turns=turns)[""])
    return (
        f"{num_streams} videos at a time: {num_streams / seconds:.3g} frames/s together, "
        f"{1 / seconds:.3g} of each; state {side.state_bytes() / 1e6:.1f} MB."
    )


def measure_sides(
    config: ModelConfig, size: tuple[int, int], sides: Mapping[str, VideoSide], *, turns: int
) -> Report:
    """Checks that the sides agree, then lets them take turns with one more frame each.

    Raises:
        UserError: two sides say different things of a frame.
    """
    shape = (config.head.num_memory + 2, *size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    difference = check_agreement(sides, frames, TOLERANCE[config.dtype])
    calls = {name: lambda side=side: side.step(frames[-1]) for name, side in sides.items()}
    taken = take_turns(calls, turns=turns, warm_up=0)  # the check has compiled everything
    return _report(config, size, sides, taken, difference)


def random_model(config: ModelConfig, seed: int) -> TMANet:
    """Random convolutions that keep the size of what passes through them; identity batch norms."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name, shape in expected_shapes(config).items():
        if len(shape) == 4:
            fan_out = shape[0] * shape[2] * shape[3]
            tensors[name] = rng.normal(0, (2 / fan_out) ** 0.5, shape).astype(np.float32)
        else:
            is_one = name.endswith((".weight", ".running_var"))
            tensors[name] = np.full(shape, is_one, expected_dtype(name))
            if name.endswith(".bn3.weight"):
                tensors[name] *= RESIDUAL_GAIN
    graphdef, state = nnx.split(nnx.eval_shape(lambda: TMANet(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graphdef, with_tensors(state, tensors))


def check_agreement(
    sides: Mapping[str, VideoSide], frames: np.ndarray, tolerance: float = TOLERANCE["float32"]
) -> float:
    """The largest difference between the logits of two sides, relative to the largest logit.

    Raises:
        UserError: it is above the tolerance.
    """
    largest = 0.0
    for frame_HxWx3 in frames:
        reference, *others = [side.step(frame_HxWx3).logits_hxwxC for side in sides.values()]
        for name, logits in zip(list(sides)[1:], others, strict=True):
            difference = float(np.abs(logits - reference).max() / np.abs(reference).max())
            if not difference <= tolerance:
                raise UserError(
                    f"{name!r} computes something else than {next(iter(sides))!r}: their logits "
                    f"differ by {difference:.1e} of the largest. No time was taken."
                )
            largest = max(largest, difference)
    return largest


def _report(
    config: ModelConfig,
    size: tuple[int, int],
    sides: Mapping[str, VideoSide],
    taken: Mapping[str, list[Turn]],
    difference: float,
) -> Report:
    wall = {name: [turn.wall for turn in turns] for name, turns in taken.items()}
    speed_up = {name: median_ratio(wall[name], wall[STREAMING]) for name in sides}
    cpu = {
        name: median_ratio([turn.cpu for turn in turns], [turn.cpu for turn in taken[STREAMING]])
        for name, turns in taken.items()
    }
    rows = [
        (
            name,
            f"{1 / median_wall(taken[name]):.3g}",
            f"{median_wall(taken[name]):.3g}",
            f"{median_cpu(taken[name]):.3g}",
            f"{speed_up[name]:.2f}",
            f"{cpu[name]:.2f}",
            f"{side.state_bytes() / 1e6:.1f}",
        )
        for name, side in sides.items()
    ]
    num_memory = config.head.num_memory
    targets = []
    published = (size, num_memory, config.dtype) == ((1024, 2048), 2, "bfloat16")
    if jax.default_backend() == "gpu" and published:
        speed = 1 / median_wall(taken[STREAMING])
        targets.append(Target(f"frames/s of {STREAMING}", speed, GPU_FRAMES_PER_SECOND))
    for name in (WHOLE_CLIP, PEER_WHOLE_CLIP):
        if name in sides and num_memory in SPEED_UP_OF_MEMORY:
            text = f"frames/s of {STREAMING}, times those of {name}"
            targets.append(Target(text, speed_up[name], SPEED_UP_OF_MEMORY[num_memory]))
    if PEER_CACHED in sides:
        text = f"frames/s of {STREAMING}, times those of {PEER_CACHED}"
        targets.append(Target(text, speed_up[PEER_CACHED], 1.0))
    return Report(
        title=f"Segmentation of a video, {size[0]}x{size[1]}, {config.backbone}, "
        f"T={num_memory}, {config.dtype}",
        columns=(
            "",
            "frames/s",
            "s a frame",
            "CPU s a frame",
            "times streaming's s",
            "times streaming's CPU s",
            "state, MB",
        ),
        rows=rows,
        targets=targets,
        notes=(
            f"Medians of {len(taken[STREAMING])} turns; ratios turn by turn. Random weights.",
            f"Logits of all sides agree to {difference:.1e} of the largest on {num_memory + 2} "
            f"frames. Peak memory of all sides together: {_peak_megabytes():.0f} MB.",
        ),
    )


def _peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
