"""The time of the forward pass.

    python -m benchmarks inference --config=configs/cityscapes.py [--torch]

The backbone alone on one frame of each clip, and the whole clip to logits at stride 8. Random
weights and frames. On a CPU the frames are 256x512 and one at a time; `--full` or `--size` and
`--batch` choose others. Then what bfloat16 changes in the logits.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import command
from benchmarks.chips import peak_flops
from benchmarks.command import Sizes
from benchmarks.findings import Findings, Target, load_note, publish
from benchmarks.flops import backbone_flops, clip_flops
from benchmarks.harness import Side, TorchWay, Work, columns, race, table_rows
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tmanet import ModelConfig, TMANet, abstract_model
from tmanet_jax.settings import Settings
from tmanet_jax.weights.names import (
    Tensors,
    expected_dtype,
    expected_shapes,
    to_tensors,
    with_tensors,
)

BACKBONE, CLIP = "JAX, backbone", "JAX, whole clip"

ON_CPU = Sizes((256, 512), 1)
"""Without options."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Of features and logits, relative to the largest, by compute type."""

BACKBONE_RATIO = 1.0
"""Seconds of the backbone in those of the best rival: at most this."""

RESIDUAL_GAIN = 0.25
"""Of the bottlenecks' last batch norms; with 1 the sums of a deep network would explode."""


def add_command(commands: command.Subparsers) -> None:
    """`inference`."""
    parser = command.add(commands, "inference", __doc__, _run)
    command.add_options(parser, "torch", "size", "batch", "full", "turns", "json")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    configured = Sizes(settings.evaluation.protocol.crop_size, settings.evaluation.batch_size)
    sizes = command.sizes_of(options, configured, ON_CPU)
    findings = measure(settings, *sizes, turns=options.turns, with_torch=options.torch)
    publish(findings, options.json)


def measure(
    settings: Settings,
    size: tuple[int, int],
    batch_size: int,
    *,
    turns: int,
    with_torch: bool = False,
) -> Findings:
    """Takes the time of forward passes, this project's and PyTorch's in turns.

    Args:
        settings: its network, with random weights, on which speed does not depend.
        size: height and width of the frames.
        batch_size: clips.
        turns: counted calls of each side.
        with_torch: whether PyTorch runs beside it.

    Raises:
        UserError: a side computes something else.
    """
    config = settings.model
    model = random_model(config, settings.seed)
    shape = (batch_size, config.head.num_memory + 1, *size, 3)
    frames = np.random.default_rng(settings.seed).integers(0, 256, shape, np.uint8)
    peak = peak_flops(jax.devices()[0].device_kind)
    rows, notes, targets = [], [], []
    for name, function, inputs, flops in (
        (BACKBONE, encode, frames[:, -1], backbone_flops(config, size)),
        (CLIP, segment, frames, clip_flops(config, size)),
    ):
        side, rivals = Side(forward(model, inputs, function)), {}
        if with_torch:
            rivals = torch_sides(config, to_tensors(nnx.state(model)), inputs)
        found = race(name, side, rivals, turns=turns, tolerance=TOLERANCE[config.dtype])
        rows += table_rows(found, Work(batch_size * flops, batch_size, peak))
        notes.append(f"{name}: {batch_size * flops / 1e12:.4g} TFLOP, counted.")
        if best := found.best_rival():
            notes.append(f"{name}: sides agree to {found.difference:.1e} of the largest number.")
        if best and function is encode:
            told = f"s of the backbone, in those of the best rival ({best})"
            targets = [Target(told, found.ratio(name, best), BACKBONE_RATIO, at_least=False)]
    return Findings(
        title=(
            f"Forward pass, {batch_size} x {size[0]}x{size[1]}, {config.backbone}, "
            f"T={config.head.num_memory}, {config.dtype}, on {jax.devices()[0].device_kind}; "
            '"times ours" within the backbone and within the clip'
        ),
        columns=columns(),
        rows=rows,
        targets=targets,
        notes=[*notes, effect_of_bfloat16(model, frames), load_note()],
    )


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
    graphdef, state = nnx.split(abstract_model(config))
    return nnx.merge(graphdef, with_tensors(state, tensors))


def encode(network: TMANet, frames_BxHxWx3: jax.Array) -> jax.Array:
    """uint8 frames -> stage-4 features."""
    return network.encode(normalize(frames_BxHxWx3[:, None])[:, 0]).stage4


def segment(network: TMANet, frames_BxSxHxWx3: jax.Array) -> jax.Array:
    """uint8 clips -> logits at stride 8."""
    return network(normalize(frames_BxSxHxWx3)).main


def forward(
    model: TMANet, frames: np.ndarray, function: Callable[[TMANet, jax.Array], jax.Array]
) -> Callable[[], tuple[np.ndarray]]:
    """The function of network and frames, compiled at the first call; gives its result, NHWC."""
    graphdef, weights = nnx.split(model)
    program = jax.jit(lambda weights, frames: function(nnx.merge(graphdef, weights), frames))
    on_device = jnp.asarray(frames)
    return lambda: (np.asarray(program(weights, on_device)),)


def effect_of_bfloat16(model: TMANet, frames_BxSxHxWx3: np.ndarray) -> str:
    """What it changes in the logits, against float32 with the same weights, as a sentence."""

    def logits(dtype: str) -> np.ndarray:
        config = dataclasses.replace(model.config, dtype=dtype)
        graphdef, state = nnx.split(abstract_model(config))
        network = nnx.merge(graphdef, with_tensors(state, to_tensors(nnx.state(model))))
        (found,) = forward(network, frames_BxSxHxWx3, segment)()
        return found.astype(np.float32)

    exact, rounded = logits("float32"), logits("bfloat16")
    error = np.sqrt(np.square(rounded - exact).mean() / np.square(exact).mean())
    agreement = (rounded.argmax(-1) == exact.argmax(-1)).mean()
    return (
        f"bfloat16 against float32, same weights: logits differ by {error:.2%} (RMS), the arg-max "
        f"agrees at {agreement:.2%} of the positions."
    )


TORCH_WAYS: Mapping[str, TorchWay] = {
    "the original's way": TorchWay("eager", "whole", False, False, False),
    "channels last, SDPA": TorchWay(),
    "channels last, SDPA, compiled": TorchWay("inductor"),
}
TRACED = TorchWay("traced", "chunks", channels_last=False)
"""The fastest on a CPU; of no use elsewhere."""


def torch_sides(config: ModelConfig, tensors: Tensors, frames: np.ndarray) -> dict[str, Side]:
    """Every way with these weights, on these uint8 frames BxHxWx3, or clips BxSxHxWx3.

    Raises:
        UserError: torch cannot use the device that JAX uses.
    """
    from benchmarks import torch_run

    torch_run.use_all_cores()
    ways = dict(TORCH_WAYS)
    if torch_run.device_of_jax().type == "cpu":
        ways["traced, frozen, oneDNN"] = TRACED
    kind = "clip" if frames.ndim == 5 else "backbone"
    make = functools.partial(_torch_forward, config, tensors, frames)
    return torch_run.sides({f"torch, {kind}, {name}": way for name, way in ways.items()}, make)


def _torch_forward(
    config: ModelConfig, tensors: Tensors, frames: np.ndarray, way: TorchWay
) -> Callable[[], tuple[np.ndarray]]:
    import torch

    from benchmarks import torch_network, torch_run

    model = torch_run.made(config, tensors, way)
    frames_there = torch.from_numpy(np.ascontiguousarray(frames)).to(torch_run.device_of_jax())
    module = model if frames.ndim == 5 else torch_network.Stage4(model)
    autocast = torch_run.autocast(config, way)

    def run(forward: Callable[..., Any]) -> tuple[np.ndarray]:
        with torch.inference_mode(), autocast:
            inputs = torch_run.normalized(frames_there, channels_last=way.channels_last)
            return (forward(inputs).float().movedim(1, -1).cpu().numpy(),)

    if way.compiler == "eager":
        return functools.partial(run, module)
    if way.compiler == "inductor":
        return functools.partial(run, torch.compile(module, options={"freezing": True}))
    return functools.partial(run, torch_run.compiled(module, torch_run.normalized(frames_there)))
