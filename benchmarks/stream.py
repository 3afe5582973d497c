"""Frames a second of a video: streaming against T + 1 backbone passes, and against PyTorch.

    python -m benchmarks stream --config=configs/cityscapes.py [--size=256x512] [--torch]

All sides are given the same weights and frames, and must agree before any time is taken.

The original sends all T + 1 frames of a clip through the backbone for each frame of the video and
holds the whole matrix of scores. Kept keys and values need one backbone pass a frame: PyTorch does
both, so that one comparison is of programs and not of algorithms.
"""

import argparse
import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import command
from benchmarks.chips import peak_flops
from benchmarks.findings import Findings, Target, load_note, publish
from benchmarks.flops import stream_flops
from benchmarks.harness import (
    Race,
    Side,
    Work,
    columns,
    median_wall,
    race,
    table_rows,
    take_turns,
)
from benchmarks.inference import random_model
from tmanet_jax import protocol
from tmanet_jax.errors import UserError
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.weights.names import to_tensors

if TYPE_CHECKING:
    from benchmarks import torch_network

SPEED_UP_OF_MEMORY = {2: 2.5, 4: 3.8}
"""By T: how many times the frames a second of T + 1 passes streaming is to reach."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Of the logits, relative to the largest, by compute type: programs round differently."""

DEFAULT_SIZE = (256, 512)
"""Of frames, where none is asked for."""

GPU_FRAMES_PER_SECOND = 100
"""To be reached at 1024x2048, T=2, in bfloat16, by one stream on one H200."""

STREAMING, WHOLE_CLIP = "JAX, streaming", "JAX, T + 1 passes"
TORCH_WHOLE_CLIP, TORCH_CACHED = "torch, T + 1 passes", "torch, cached"


class VideoSide(Protocol):
    """One way to segment a video, frame by frame, from its first one."""

    def step(self, frame_HxWx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels HxW and logits hxwxC of the next frame, uint8 RGB; all work is done."""

    def state_bytes(self) -> int:
        """Size of what is kept from frame to frame."""


def add_command(commands: command.Subparsers) -> None:
    """`stream`."""
    parser = command.add(commands, "stream", __doc__, _run)
    command.add_options(parser, "torch", "size", "batch", "turns", "json")


def _run(options: argparse.Namespace) -> None:
    settings, size = command.settings_of(options), options.size or DEFAULT_SIZE
    model = random_model(settings.model, settings.seed)
    sides: dict[str, VideoSide] = {STREAMING: Streaming(model, size), WHOLE_CLIP: WholeClip(model)}
    if options.torch:
        sides |= torch_sides(model, size)
    findings = measure(settings.model, size, sides, turns=options.turns)
    if options.batch:
        note = together(model, size, options.batch, options.turns)
        findings = dataclasses.replace(findings, notes=[*findings.notes, note])
    publish(findings, options.json)


def measure(
    config: ModelConfig, size: tuple[int, int], sides: dict[str, VideoSide], *, turns: int
) -> Findings:
    """Runs all sides in turns over the same random frames.

    Args:
        config: of the network of all sides.
        size: height and width of the frames.
        sides: ways to segment a video, this project's first.
        turns: frames that count.

    Raises:
        UserError: two sides say different things of a frame.
    """
    num_frames = config.head.num_memory + 2
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, *size, 3), np.uint8)
    racing = {name: Side(_through(side, frames)) for name, side in sides.items()}
    ours = next(iter(racing))
    found = race(
        ours,
        racing.pop(ours),
        racing,
        turns=turns,
        tolerance=TOLERANCE[config.dtype],
        checks=num_frames,
    )
    work = Work(stream_flops(config, size), 1, peak_flops(jax.devices()[0].device_kind))
    states = "; ".join(f"{name} {side.state_bytes() / 1e6:.1f}" for name, side in sides.items())
    return Findings(
        title=f"Segmentation of a video, {size[0]}x{size[1]}, {config.backbone}, "
        f"T={config.head.num_memory}, {config.dtype}",
        columns=columns("frames"),
        rows=table_rows(found, work),
        targets=_targets(config, size, found),
        notes=(
            f"Medians of {turns} turns; ratios turn by turn. Random weights. TFLOP/s: of "
            "streaming's operations.",
            f"Logits of all sides agree to {found.difference:.1e} of the largest on {num_frames} "
            "frames.",
            f"MB kept from frame to frame: {states}.",
            load_note(),
        ),
    )


def _through(side: VideoSide, frames: np.ndarray) -> Callable[[], Sequence[np.ndarray]]:
    """Each call gives the logits of a frame; after all of them the last one again and again."""
    upcoming = itertools.chain(frames, itertools.repeat(frames[-1]))
    return lambda: side.step(next(upcoming))[1:]


def _targets(config: ModelConfig, size: tuple[int, int], found: Race) -> list[Target]:
    num_memory, targets = config.head.num_memory, []
    published = (size, num_memory, config.dtype) == ((1024, 2048), 2, "bfloat16")
    if jax.default_backend() == "gpu" and published:
        name = f"frames/s of {found.ours}"
        targets.append(Target(name, 1 / found.seconds, GPU_FRAMES_PER_SECOND))
    of_passes = SPEED_UP_OF_MEMORY.get(num_memory)
    asked = {WHOLE_CLIP: of_passes, TORCH_WHOLE_CLIP: of_passes, TORCH_CACHED: 1.0}
    for name, speed_up in asked.items():
        if name in found.taken and speed_up:
            text = f"frames/s of {found.ours}, times those of {name}"
            targets.append(Target(text, found.ratio(name, found.ours), speed_up))
    return targets


def together(model: TMANet, size: tuple[int, int], num_streams: int, turns: int) -> str:
    """Frames of so many videos at a time through one program, as a sentence."""
    side = Streaming(model, size, num_streams)
    frame_HxWx3 = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    seconds = median_wall(take_turns({"": lambda: side.step(frame_HxWx3)}, turns=turns)[""])
    return (
        f"{num_streams} videos at a time: {num_streams / seconds:.3g} frames/s together, "
        f"{1 / seconds:.3g} of each; state {side.state_bytes() / 1e6:.1f} MB."
    )


class Streaming:
    """`inference.stream`: one backbone pass a frame.

    Args:
        model: the network.
        size: height and width of the frames.
        num_streams: videos that go side by side; all show the same.
    """

    def __init__(self, model: TMANet, size: tuple[int, int], num_streams: int = 1):
        self._network = StreamingNetwork(model, protocol.Protocol())
        self._state = self._network.start(num_streams, size)
        self._num_streams = num_streams

    def step(self, frame_HxWx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments the next frame."""
        frames_NxHxWx3 = np.broadcast_to(frame_HxWx3, (self._num_streams, *frame_HxWx3.shape))
        self._state, output = self._network.step(
            self._state, frames_NxHxWx3, np.zeros(self._num_streams, np.bool_)
        )
        labels_NxHxW, logits_NxhxwxC = jax.device_get(output)
        return labels_NxHxW[0], logits_NxhxwxC[0]

    def state_bytes(self) -> int:
        """Of the rings of keys and values."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))


def frame_milliseconds(
    configs: Mapping[str, ModelConfig], size: tuple[int, int], turns: int = 50
) -> dict[str, float]:
    """What a streamed frame takes of each network, the median; they take turns."""
    frame_HxWx3 = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    sides = {name: Streaming(random_model(one, seed=0), size) for name, one in configs.items()}
    calls = {name: functools.partial(side.step, frame_HxWx3) for name, side in sides.items()}
    taken = take_turns(calls, turns=turns)
    return {name: 1e3 * median_wall(taken[name]) for name in configs}


class WholeClip:
    """The clip of each frame through the whole network, as evaluation does it."""

    def __init__(self, model: TMANet):
        graphdef, self._weights = nnx.split(model)
        self._length = model.config.head.num_memory + 1
        self._clip: collections.deque[np.ndarray] = collections.deque(maxlen=self._length)

        @jax.jit
        def segment(weights: nnx.State, frames_SxHxWx3: jax.Array) -> tuple[jax.Array, jax.Array]:
            network: TMANet = nnx.merge(graphdef, weights)
            _, height, width, _ = frames_SxHxWx3.shape
            size = (height, width)
            logits_1xhxwxC = network(normalize(frames_SxHxWx3[None])).main
            full = resize_bilinear(logits_1xhxwxC, size, align_corners=network.config.align_corners)
            return full.argmax(-1).astype(jnp.uint8)[0], logits_1xhxwxC[0]

        self._segment = segment

    def step(self, frame_HxWx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments the next frame."""
        self._clip.extend([frame_HxWx3] * (1 if self._clip else self._length))
        labels_HxW, logits_hxwxC = jax.device_get(
            self._segment(self._weights, np.stack(self._clip))
        )
        return labels_HxW, logits_hxwxC

    def state_bytes(self) -> int:
        """Of the frames that are kept."""
        return sum(frame.nbytes for frame in self._clip)


def torch_sides(model: TMANet, size: tuple[int, int]) -> dict[str, VideoSide]:
    """PyTorch's two ways with this network's weights, for frames of this size, ready to run.

    Raises:
        UserError: JAX runs on an accelerator; both ways are made for a CPU.
    """
    from benchmarks import torch_network, torch_run

    if jax.default_backend() != "cpu":
        raise UserError(
            "benchmarks stream --torch compares on a CPU alone (JAX_PLATFORMS=cpu): leave --torch "
            "out."
        )
    torch_run.use_all_cores()
    network = torch_network.loaded(model.config, to_tensors(nnx.state(model)))
    torch_network.fold_batch_norm(network)
    return {
        TORCH_WHOLE_CLIP: TorchWholeClip(network, size),
        TORCH_CACHED: TorchCached(network, size),
    }


class TorchWholeClip:
    """The whole clip through the network for each frame of a video."""

    def __init__(self, model: "torch_network.TMANet", size: tuple[int, int]):
        import torch

        from benchmarks import torch_run

        self._model = model
        self._length = model.config.head.num_memory + 1
        self._logits = torch_run.compiled(model, torch.zeros(1, self._length, 3, *size))
        self._clip = collections.deque[Any](maxlen=self._length)

    def step(self, frame_HxWx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments the next frame."""
        import torch

        from benchmarks import torch_run

        frame_3xHxW = torch_run.normalized(torch.from_numpy(frame_HxWx3))
        self._clip.extend([frame_3xHxW] * (1 if self._clip else self._length))
        with torch.inference_mode():
            logits_1xCxhxw = self._logits(torch.stack(list(self._clip))[None])
            return _segmented(self._model, logits_1xCxhxw, frame_HxWx3)

    def state_bytes(self) -> int:
        """Of the frames that are kept."""
        return sum(frame.nbytes for frame in self._clip)


class TorchCached:
    """One backbone pass a frame; keys and values wait until their position needs them."""

    def __init__(self, model: "torch_network.TMANet", size: tuple[int, int]):
        import torch

        from benchmarks import torch_network, torch_run

        self._model = model
        example = torch.zeros(1, 3, *size)
        self._encode = torch_run.compiled(torch_network.Encode(model), example)
        with torch.inference_mode():
            classify = torch_network.Classify(model)
            self._classify = torch_run.compiled(classify, *self._encode(example))
        num_memory = model.config.head.num_memory
        self._rings = [
            collections.deque[Any](maxlen=num_memory - position) for position in range(num_memory)
        ]

    def step(self, frame_HxWx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments the next frame."""
        import torch

        from benchmarks import torch_run

        with torch.inference_mode():
            frame_1x3xHxW = torch_run.normalized(torch.from_numpy(frame_HxWx3))[None]
            query, *newest = self._encode(frame_1x3xHxW)
            for ring, frame in zip(self._rings, newest, strict=True):
                if not ring:
                    ring.extend([frame] * (ring.maxlen or 0))
            logits_1xCxhxw = self._classify(query, *(ring[0] for ring in self._rings))
            for ring, frame in zip(self._rings, newest, strict=True):
                ring.append(frame)
            return _segmented(self._model, logits_1xCxhxw, frame_HxWx3)

    def state_bytes(self) -> int:
        """Of the keys and values that are kept."""
        return sum(key.nbytes + value.nbytes for ring in self._rings for key, value in ring)


def _segmented(
    model: "torch_network.TMANet", logits_1xCxhxw: Any, frame_HxWx3: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    height, width, _ = frame_HxWx3.shape
    full_1xCxHxW = model.full_logits(logits_1xCxhxw, (height, width))
    labels_HxW = full_1xCxHxW[0].argmax(dim=0).byte().numpy()
    return labels_HxW, logits_1xCxhxw[0].permute(1, 2, 0).numpy()
