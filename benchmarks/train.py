"""The time of a training step.

    python -m benchmarks train --config=configs/cityscapes.py [--torch]

It is the step that training uses, on one batch of random frames and labels, with random weights.
On a CPU the crops are smaller than the configuration's, so that it ends within minutes; `--full` or
`--size` and `--batch` choose others.

PyTorch does in a step what the original does: the frames of a clip through the backbone one after
the other (query first), both heads, logits up-sampled to the labels, cross-entropy, SGD. Frames
come as uint8 and are normalised on the device, as here. Source:
`mmseg/models/segmentors/encoder_decoder.py`, `decode_heads/decode_head.py`; torch's SGD.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from flax import nnx

from benchmarks import command
from benchmarks.chips import peak_flops
from benchmarks.command import Sizes
from benchmarks.findings import Findings, Target, load_note, publish
from benchmarks.flops import training_flops
from benchmarks.harness import (
    Race,
    Side,
    TorchWay,
    Work,
    columns,
    host_peak_bytes,
    race,
    table_rows,
)
from benchmarks.inference import random_model
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.samples import Batch, empty_batch
from tmanet_jax.errors import counted
from tmanet_jax.models.losses import LossConfig
from tmanet_jax.parallel.sharding import check_batch_size, make_mesh, put_batch, replicated
from tmanet_jax.settings import Settings
from tmanet_jax.training.setup import initial_state
from tmanet_jax.training.step import TrainState, compile_train_step
from tmanet_jax.weights.names import Tensors, to_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.torch_network import TMANet

OURS = "JAX, this project"

ON_CPU = Sizes((257, 257), 2)
"""Without options."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}
"""Of the loss of the first step, relative, by compute type."""

PUBLISHED_STEP_TFLOP = 40.1
"""Of the Cityscapes configuration: what the targets for a GPU speak of."""

GPU_SECONDS, GPU_TFLOPS, GPU_SPEED_UP = 0.127, 0.4 * 790, 1.2
CPU_RATIO = 1.1


def add_command(commands: command.Subparsers) -> None:
    """`train`."""
    parser = command.add(commands, "train", __doc__, _run)
    command.add_options(parser, "torch", "size", "batch", "full", "turns", "json")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    configured = Sizes(settings.data.augmentation.crop_size, settings.batch_size)
    settings = with_sizes(settings, *command.sizes_of(options, configured, ON_CPU))
    publish(measure(settings, turns=options.turns, with_torch=options.torch), options.json)


def with_sizes(settings: Settings, size: tuple[int, int], batch_size: int) -> Settings:
    """The settings with other crops and another batch."""
    augmentation = dataclasses.replace(settings.data.augmentation, crop_size=size)
    data = dataclasses.replace(settings.data, augmentation=augmentation)
    return dataclasses.replace(settings, batch_size=batch_size, data=data)


def without_dropout(settings: Settings) -> Settings:
    """The settings with steps whose losses can be compared."""
    head = dataclasses.replace(settings.model.head, dropout=0.0)
    model = dataclasses.replace(settings.model, head=head)
    return dataclasses.replace(settings, model=model)


def measure(settings: Settings, *, turns: int, with_torch: bool = False) -> Findings:
    """Takes the time of training steps, this project's and PyTorch's in turns.

    Nothing is dropped from the activations beside PyTorch, so that losses can be compared.

    Args:
        settings: network, loss and optimiser, crops and batch.
        turns: counted steps of each side.
        with_torch: whether PyTorch runs beside it.

    Raises:
        UserError: the devices do not divide the batch, or a side computes another loss.
    """
    if with_torch:
        settings = without_dropout(settings)
    step = TrainSide(settings)
    rivals = torch_sides(settings, step.tensors, step.batch) if with_torch else {}
    tolerance = TOLERANCE[settings.model.dtype]
    found = race(OURS, step.side(), rivals, turns=turns, tolerance=tolerance)
    return findings_of(settings, found)


class TrainSide:
    """The training step, compiled, with its state and a batch.

    Attributes:
        tensors: the weights before the first step.
        batch: on the host.
    """

    def __init__(self, settings: Settings):
        mesh = make_mesh(config=settings.mesh)
        check_batch_size(settings.batch_size, mesh, settings.accumulate)
        model = random_model(settings.model, settings.seed)
        # Copies: the first step gives the buffers of the state away.
        self.tensors: Tensors = {
            name: np.array(tensor) for name, tensor in to_tensors(nnx.state(model)).items()
        }
        self.batch = random_batch(settings)
        recipe, state = initial_state(settings, model, class_weights=None)
        self._state: TrainState = jax.device_put(state, replicated(mesh))
        self._on_device = put_batch(self.batch, mesh)
        step = compile_train_step(recipe, mesh)
        self._program = step.lower(self._state, self._on_device).compile()

    def side(self) -> Side:
        """Its steps, and what they need: of a chip's memory as the compiler planned it."""
        is_planned = jax.default_backend() != "cpu"
        return Side(self.step, (lambda _: self.planned_bytes()) if is_planned else host_peak_bytes)

    def planned_bytes(self) -> int:
        """State, batch and whatever else the program holds at one time."""
        plan = self._program.memory_analysis()
        assert plan is not None, "this backend plans no memory"
        return (
            plan.argument_size_in_bytes
            + plan.output_size_in_bytes
            - plan.alias_size_in_bytes
            + plan.temp_size_in_bytes
        )

    def step(self) -> tuple[np.ndarray]:
        """One step to its end; returns the loss before it."""
        self._state, metrics = self._program(self._state, self._on_device)
        jax.block_until_ready(self._state)
        return (np.asarray(metrics.losses.total),)


def random_batch(settings: Settings) -> Batch:
    """Random pixels; random labels, one in twenty of them ignored."""
    rng = np.random.default_rng(settings.seed)
    head, size = settings.model.head, settings.data.augmentation.crop_size
    batch = empty_batch(settings.batch_size, head.num_memory + 1, size)
    batch.frames[...] = rng.integers(0, 256, batch.frames.shape, np.uint8)
    batch.labels[...] = rng.integers(0, head.num_classes, batch.labels.shape, np.uint8)
    batch.labels[rng.random(batch.labels.shape) < 0.05] = IGNORE
    batch.sizes[...] = size
    batch.indices[...] = np.arange(settings.batch_size)
    return batch


def findings_of(settings: Settings, found: Race) -> Findings:
    """The table of a race of steps, and how it does on the targets."""
    model, batch_size = settings.model, settings.batch_size
    height, width = settings.data.augmentation.crop_size
    devices = jax.devices()
    peak = peak_flops(devices[0].device_kind)
    flops = training_flops(model, (height, width), batch_size)
    work = Work(flops, batch_size, None if peak is None else peak * len(devices))
    notes = [
        f"{flops / 1e12:.4g} TFLOP a step, counted.",
        "Memory: on a chip what the compiler planned for state, batch and step; on a CPU what a "
        "step adds to weights, optimiser state and batch.",
        load_note(),
    ]
    if found.best_rival():
        notes.insert(
            0,
            f"Losses of the first step agree to {found.difference:.1e}. No dropout. PyTorch's "
            "memory after its first step.",
        )
    return Findings(
        title=(
            f"Training step, {counted(batch_size, 'clip')} of T={model.head.num_memory}, "
            f"{height}x{width}, {model.backbone}, {model.dtype}"
            f"{', rematerialised' if model.remat else ''}, on {len(devices)} "
            f"{devices[0].device_kind}"
        ),
        columns=columns(),
        rows=table_rows(found, work),
        targets=_targets(found, flops),
        notes=notes,
    )


def _targets(found: Race, flops: float) -> list[Target]:
    on_gpu = jax.default_backend() == "gpu"
    best, targets = found.best_rival(), []
    if on_gpu and abs(flops / 1e12 - PUBLISHED_STEP_TFLOP) < 1:
        targets += [
            Target("s a step", found.seconds, GPU_SECONDS, at_least=False),
            Target("TFLOP/s", flops / found.seconds / 1e12, GPU_TFLOPS),
        ]
    if best is None or best not in TORCH_WAYS:
        return targets
    if on_gpu:
        name = f"steps/s, times those of the best rival ({best})"
        targets.append(Target(name, found.ratio(best, found.ours), GPU_SPEED_UP))
    else:
        name = f"s a step, in those of the best rival ({best})"
        targets.append(Target(name, found.ratio(found.ours, best), CPU_RATIO, at_least=False))
    return targets


TORCH_BEST_ON_GPU = "torch, channels last, SDPA, compiled"

TORCH_WAYS: Mapping[str, TorchWay] = {
    "torch, the original's way": TorchWay("eager", "whole", False, False, False),
    "torch, channels last": TorchWay("eager", "whole", is_folded=False),
    "torch, channels last, SDPA": TorchWay("eager", "fused", is_folded=False),
    "torch, channels last, compiled": TorchWay("inductor", "whole", is_folded=False),
    TORCH_BEST_ON_GPU: TorchWay("inductor", "fused", is_folded=False),
}
"""The first keeps to float32 whatever the settings ask for, as the original does."""


def torch_sides(
    settings: Settings,
    tensors: Tensors,
    batch: Batch,
    ways: Mapping[str, TorchWay] = TORCH_WAYS,
) -> dict[str, Side]:
    """The ways with these weights; each call is one step on the batch.

    Raises:
        UserError: torch cannot use the device that JAX uses.
    """
    import torch

    from benchmarks import torch_run

    device = torch_run.device_of_jax()
    torch_run.use_all_cores()
    frames, labels = (torch.from_numpy(array).to(device) for array in (batch.frames, batch.labels))

    def make(way: TorchWay) -> Callable[[], tuple[np.ndarray]]:
        step = torch_step(settings, tensors, way).step
        return lambda: (np.array(step(frames, labels)),)

    return torch_run.sides(ways, make)


class TorchStep(NamedTuple):
    """A network in PyTorch, and a step that changes it.

    Attributes:
        model: the network.
        step: uint8 frames BxSxHxWx3 and labels BxHxW -> the loss before the update, which waits
            for the device.
    """

    model: "TMANet"
    step: "Callable[[Tensor, Tensor], float]"


def torch_step(settings: Settings, tensors: Tensors, way: TorchWay) -> TorchStep:
    """The network with these weights, and its optimiser."""
    import torch

    from benchmarks import torch_run

    device, model = torch_run.device_of_jax(), torch_run.made(settings.model, tensors, way).train()
    forward = model.both_logits if way.compiler == "eager" else torch.compile(model.both_logits)
    schedule, align_corners = settings.optimizer, settings.model.align_corners
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        fused=device.type == "cuda" or None,
    )
    autocast = torch_run.autocast(settings.model, way)

    def step(frames_BxSxHxWx3: "Tensor", labels_BxHxW: "Tensor") -> float:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            frames = torch_run.normalized(frames_BxSxHxWx3, channels_last=way.channels_last)
            logits = forward(frames)
        main, aux = (
            torch_cross_entropy(each.float(), labels_BxHxW.long(), settings.loss, align_corners)
            for each in (logits.main, logits.aux)
        )
        loss = main + settings.loss.aux_weight * aux
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    return TorchStep(model, step)


def torch_cross_entropy(
    logits_BxCxhxw: "Tensor", labels_BxHxW: "Tensor", config: LossConfig, align_corners: bool
) -> "Tensor":
    """Logits up-sampled to the labels; the mean over all pixels, ignored ones counting as 0."""
    from torch.nn import functional

    logits_BxCxHxW = functional.interpolate(
        logits_BxCxhxw, labels_BxHxW.shape[1:], mode="bilinear", align_corners=align_corners
    )
    loss_BxHxW = functional.cross_entropy(
        logits_BxCxHxW, labels_BxHxW, ignore_index=IGNORE, reduction="none"
    )
    if config.average == "all":
        return loss_BxHxW.mean()
    return loss_BxHxW.sum() / (labels_BxHxW != IGNORE).sum().clamp(min=1)
