"""The time of the forward pass.

    python -m benchmarks inference --config=configs/cityscapes.py [--torch]

The backbone alone on one frame of each clip, and the whole clip to logits at stride 8. Random
weights and frames. On a CPU the frames are 256x512 and one at a time; `--full` or `--size` and
`--batch` choose others. Then what bfloat16 changes in the logits.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import command, comparison
from benchmarks.chips import peak_flops
from benchmarks.comparison import Comparison, Side, Work
from benchmarks.compilation import Compilation, compile_twice
from benchmarks.flops import clip_flops, forward_flops
from benchmarks.harness import Report, Target, publish
from benchmarks.stream import random_model
from benchmarks.train import Case
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.settings import Settings
from tmanet_jax.weights.names import Tensors, to_tensors, with_tensors

BACKBONE, CLIP = "JAX, backbone", "JAX, whole clip"

CPU_CASE = Case((256, 512), 1)
"""Without options, on a CPU."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Of features and logits, relative to the largest, by compute type."""

BACKBONE_RATIO = 1.0
"""CPU seconds of the backbone in those of the best peer: at most this."""


class PeerSides(NamedTuple):
    """Another program's ways, by name; a call returns what this project's side of it does."""

    backbone: Mapping[str, Side]
    clip: Mapping[str, Side]


Peer = Callable[[ModelConfig, Tensors, np.ndarray], PeerSides]
"""Network, weights and uint8 clips BxSxHxWx3 -> another program's ways."""


class Precision(NamedTuple):
    """What bfloat16 changes in the logits, against float32 with the same weights.

    Attributes:
        error: root mean square of the difference, relative to that of the logits.
        agreement: share of positions whose arg-max is the same.
    """

    error: float
    agreement: float

    def __str__(self) -> str:
        return (
            f"bfloat16 against float32, same weights: logits differ by {self.error:.2%} (RMS), "
            f"the arg-max agrees at {self.agreement:.2%} of the positions."
        )


def add_command(commands: command.Subparsers) -> None:
    """`inference`."""
    parser = command.add(commands, "inference", __doc__, _run)
    command.add_options(parser, "torch", "size", "batch", "full", "turns", "json")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    peer: Peer | None = None
    if options.torch:
        from benchmarks.torch_images import image_sides

        peer = image_sides
    case = case_of(settings, size=options.size, batch_size=options.batch, is_full=options.full)
    publish(measure(settings, case, turns=options.turns, peer=peer), options.json)


def case_of(
    settings: Settings, *, size: tuple[int, int] | None, batch_size: int | None, is_full: bool
) -> Case:
    """What is asked for; otherwise a window of the configuration, or on a CPU less."""
    if jax.default_backend() == "cpu" and not is_full:
        return Case(size or CPU_CASE.size, batch_size or CPU_CASE.batch_size)
    evaluation = settings.evaluation
    return Case(size or evaluation.protocol.crop_size, batch_size or evaluation.batch_size)


def measure(settings: Settings, case: Case, *, turns: int, peer: Peer | None = None) -> Report:
    """Takes the time of forward passes, this project's and the peer's in turns.

    Args:
        settings: its network, with random weights, on which speed does not depend.
        case: sizes.
        turns: counted calls of each side.
        peer: another program of the same network.

    Raises:
        UserError: a peer computes something else.
    """
    config = settings.model
    model = random_model(config, settings.seed)
    shape = (case.batch_size, config.head.num_memory + 1, *case.size, 3)
    frames = np.random.default_rng(settings.seed).integers(0, 256, shape, np.uint8)
    backbone, clip = Forward(model, frames[:, -1], encode), Forward(model, frames, segment)
    peers = PeerSides({}, {})
    if peer is not None:
        peers = peer(config, to_tensors(nnx.state(model)), frames)
    tolerance = TOLERANCE[config.dtype]
    of_backbone = comparison.compare(
        BACKBONE, Side(backbone), peers.backbone, turns=turns, tolerance=tolerance
    )
    of_clip = comparison.compare(CLIP, Side(clip), peers.clip, turns=turns, tolerance=tolerance)
    precision = compare_precisions(model, frames)
    return _report(config, case, (backbone, clip), (of_backbone, of_clip), precision)


def encode(network: TMANet, frames_BxHxWx3: jax.Array) -> jax.Array:
    """uint8 frames -> stage-4 features."""
    return network.encode(_normalized(frames_BxHxWx3[:, None])[:, 0]).stage4


def segment(network: TMANet, frames_BxSxHxWx3: jax.Array) -> jax.Array:
    """uint8 clips -> logits at stride 8."""
    return network(_normalized(frames_BxSxHxWx3)).main


def _normalized(frames_BxSxHxWx3: jax.Array) -> jax.Array:
    batch_size, _, height, width, _ = frames_BxSxHxWx3.shape
    return normalize(frames_BxSxHxWx3, jnp.tile(jnp.array([height, width]), (batch_size, 1)))


class Forward:
    """A function of network and frames, compiled.

    Attributes:
        compilation: of the function.
    """

    def __init__(
        self,
        model: TMANet,
        frames: np.ndarray,
        function: Callable[[TMANet, jax.Array], jax.Array],
    ):
        graphdef, self._weights = nnx.split(model)
        self._frames = jnp.asarray(frames)
        self.compilation: Compilation = compile_twice(
            lambda: jax.jit(
                lambda weights, frames: function(nnx.merge(graphdef, weights), frames)
            ).lower(self._weights, self._frames)
        )

    def __call__(self) -> np.ndarray:
        """Runs it to its end; its result in float32, NHWC."""
        return np.asarray(self.compilation.program(self._weights, self._frames), np.float32)


def compare_precisions(model: TMANet, frames_BxSxHxWx3: np.ndarray) -> Precision:
    """The logits of the network's weights in both compute types."""
    tensors = to_tensors(nnx.state(model))

    def logits(dtype: str) -> np.ndarray:
        config = dataclasses.replace(model.config, dtype=dtype)
        graphdef, state = nnx.split(nnx.eval_shape(lambda: TMANet(config, rngs=nnx.Rngs(0))))
        program = jax.jit(lambda state, frames: segment(nnx.merge(graphdef, state), frames))
        return np.asarray(program(with_tensors(state, tensors), frames_BxSxHxWx3))

    exact, rounded = logits("float32"), logits("bfloat16")
    error = np.sqrt(np.square(rounded - exact).mean() / np.square(exact).mean())
    return Precision(float(error), float((rounded.argmax(-1) == exact.argmax(-1)).mean()))


def _report(
    config: ModelConfig,
    case: Case,
    ours: tuple[Forward, Forward],
    found: tuple[Comparison, Comparison],
    precision: Precision,
) -> Report:
    height, width = case.size
    peak = peak_flops(jax.devices()[0].device_kind)
    flops = (
        case.batch_size * forward_flops(config, case.size).backbone,
        case.batch_size * clip_flops(config, case.size),
    )
    rows, notes = [], []
    for side, each, operations in zip(ours, found, flops, strict=True):
        rows += comparison.table_rows(each, Work(operations, case.batch_size, peak))
        notes.append(side.compilation.told(each.ours, operations))
    if found[0].best_peer() is not None:
        notes.append(
            f"Features agree to {found[0].difference:.1e} of the largest, logits to "
            f"{found[1].difference:.1e}."
        )
    return Report(
        title=(
            f"Forward pass, {case.batch_size} x {height}x{width}, {config.backbone}, "
            f"T={config.head.num_memory}, {config.dtype}, on {jax.devices()[0].device_kind}; "
            '"times ours" within the backbone and within the clip'
        ),
        columns=comparison.COLUMNS,
        rows=rows,
        targets=_targets(found[0]),
        notes=[*notes, str(precision), comparison.load_note()],
    )


def _targets(backbone: Comparison) -> list[Target]:
    best = backbone.best_peer()
    if best is None:
        return []
    name = f"s of the backbone, in those of the best peer ({best})"
    return [Target(name, backbone.ours_in_times_of(best), BACKBONE_RATIO, at_least=False)]
