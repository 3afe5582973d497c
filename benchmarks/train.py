"""The time of a training step.

    python -m benchmarks train --config=configs/cityscapes.py [--torch]

It is the step that training uses, on one batch of random frames and labels, with random weights.
On a CPU the crops are smaller than the configuration's, so that it ends within minutes; `--full` or
`--size` and `--batch` choose others.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from benchmarks import command, comparison
from benchmarks.chips import peak_flops
from benchmarks.comparison import Comparison, Side, Work
from benchmarks.compilation import Compilation, compile_twice
from benchmarks.flops import training_flops
from benchmarks.harness import Report, Target, median_wall, publish
from benchmarks.stream import random_model
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.pipeline import Batch
from tmanet_jax.data.samples import empty_batch
from tmanet_jax.errors import counted
from tmanet_jax.parallel.sharding import check_batch_size, make_mesh, put_batch, replicated
from tmanet_jax.settings import Settings
from tmanet_jax.train.recipe import initial_state
from tmanet_jax.train.step import TrainState, compile_train_step
from tmanet_jax.weights.names import Tensors, to_tensors

OURS = "JAX, this project"

CPU_SIZE, CPU_BATCH = (257, 257), 2
"""Without options, on a CPU."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}
"""Of the loss of the first step, relative, by compute type."""

PUBLISHED_STEP_TFLOP = 40.1
"""Of the Cityscapes configuration: what the targets for a GPU speak of."""

GPU_SECONDS, GPU_TFLOPS, GPU_SPEED_UP = 0.127, 0.4 * 790, 1.2
CPU_RATIO = 1.1

Peer = Callable[[Settings, Tensors, Batch], Mapping[str, Side]]
"""Settings, weights and batch -> another program's ways; a call is a step, and returns its loss."""


class Case(NamedTuple):
    """What is measured.

    Attributes:
        size: height and width of the crops.
        batch_size: clips.
    """

    size: tuple[int, int]
    batch_size: int


def add_command(commands: command.Subparsers) -> None:
    """`train`."""
    parser = command.add(commands, "train", __doc__, _run)
    command.add_options(parser, "torch", "size", "batch", "full", "turns", "json")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    peer: Peer | None = None
    if options.torch:
        from benchmarks.torch_train import train_sides

        peer = train_sides
    case = case_of(settings, size=options.size, batch_size=options.batch, is_full=options.full)
    publish(measure(settings, case, turns=options.turns, peer=peer), options.json)


def case_of(
    settings: Settings, *, size: tuple[int, int] | None, batch_size: int | None, is_full: bool
) -> Case:
    """What is asked for; otherwise the configuration's own, or on a CPU less."""
    is_small = jax.default_backend() == "cpu" and not is_full
    own_size, own_batch = settings.data.augmentation.crop_size, settings.batch_size
    if is_small:
        own_size = (min(own_size[0], CPU_SIZE[0]), min(own_size[1], CPU_SIZE[1]))
        own_batch = min(own_batch, CPU_BATCH)
    return Case(size or own_size, batch_size or own_batch)


def measure(settings: Settings, case: Case, *, turns: int, peer: Peer | None = None) -> Report:
    """Takes the time of training steps, this project's and the peer's in turns.

    Nothing is dropped from the activations where there is a peer, so that losses can be compared.

    Args:
        settings: network, loss and optimiser.
        case: sizes.
        turns: counted steps of each side.
        peer: another program of the same step.

    Raises:
        UserError: the devices do not divide the batch, or a peer computes another loss.
    """
    settings = with_case(settings, case)
    if peer is not None:
        head = dataclasses.replace(settings.model.head, dropout=0.0)
        settings = dataclasses.replace(
            settings, model=dataclasses.replace(settings.model, head=head)
        )
    step = TrainSide(settings, case)
    peers = {} if peer is None else peer(settings, step.tensors, step.batch)
    tolerance = TOLERANCE[settings.model.dtype]
    return measure_step(settings, case, step, peers, turns=turns, tolerance=tolerance)


def measure_step(
    settings: Settings,
    case: Case,
    step: "TrainSide",
    peers: Mapping[str, Side],
    *,
    turns: int,
    tolerance: float,
) -> Report:
    """Checks that the first losses agree, then lets this project's step and the peers take turns.

    Raises:
        UserError: a peer computes another loss.
    """
    found = comparison.compare(OURS, step.side(), peers, turns=turns, tolerance=tolerance)
    return _report(settings, case, step, found)


class TrainSide:
    """The training step, compiled, with its state and a batch.

    Attributes:
        tensors: the weights before the first step.
        batch: on the host.
        compilation: of the step.
    """

    def __init__(self, settings: Settings, case: Case):
        mesh = make_mesh(config=settings.mesh)
        check_batch_size(case.batch_size, mesh, settings.accumulate)
        model = random_model(settings.model, settings.seed)
        # Copies: the first step gives the buffers of the state away.
        self.tensors: Tensors = {
            name: np.array(tensor) for name, tensor in to_tensors(nnx.state(model)).items()
        }
        self.batch = random_batch(settings, case)
        recipe, state = initial_state(settings, model, class_weights=None)
        self._state: TrainState = jax.device_put(state, replicated(mesh))
        self._on_device = put_batch(self.batch, mesh)
        self.compilation: Compilation = compile_twice(
            lambda: compile_train_step(recipe, mesh).lower(self._state, self._on_device)
        )

    def step(self) -> np.ndarray:
        """One step to its end; returns the loss before it."""
        self._state, metrics = self.compilation.program(self._state, self._on_device)
        jax.block_until_ready(self._state)
        return np.asarray(metrics.losses.total)[None]

    def side(self) -> Side:
        """To be compared."""
        return Side(self.step)


def with_case(settings: Settings, case: Case) -> Settings:
    """The settings with other sizes."""
    augmentation = dataclasses.replace(settings.data.augmentation, crop_size=case.size)
    data = dataclasses.replace(settings.data, augmentation=augmentation)
    return dataclasses.replace(settings, batch_size=case.batch_size, data=data)


def random_batch(settings: Settings, case: Case) -> Batch:
    """Random pixels; random labels, one in twenty of them ignored."""
    rng = np.random.default_rng(settings.seed)
    head = settings.model.head
    batch = empty_batch(case.batch_size, head.num_memory + 1, case.size)
    batch.frames[...] = rng.integers(0, 256, batch.frames.shape, np.uint8)
    batch.labels[...] = rng.integers(0, head.num_classes, batch.labels.shape, np.uint8)
    batch.labels[rng.random(batch.labels.shape) < 0.05] = IGNORE
    batch.sizes[...] = case.size
    batch.indices[...] = np.arange(case.batch_size)
    return batch


def _report(settings: Settings, case: Case, step: TrainSide, found: Comparison) -> Report:
    model = settings.model
    devices = jax.devices()
    peak = peak_flops(devices[0].device_kind)
    flops = training_flops(model, case.size, case.batch_size)
    work = Work(flops, case.batch_size, None if peak is None else peak * len(devices))
    height, width = case.size
    notes = [
        step.compilation.told("A step", flops),
        "Memory: where the device counts it, the most that was ever held; on a CPU what a step "
        "adds to weights, optimiser state and batch.",
        comparison.load_note(),
    ]
    if found.taken.keys() - {found.ours}:
        notes.insert(
            0,
            f"Losses of the first step agree to {found.difference:.1e}. No dropout. Peers' memory "
            "after their first step.",
        )
    return Report(
        title=(
            f"Training step, {counted(case.batch_size, 'clip')} of T={model.head.num_memory}, "
            f"{height}x{width}, {model.backbone}, {model.dtype}"
            f"{', rematerialised' if model.remat else ''}, on {len(devices)} "
            f"{devices[0].device_kind}"
        ),
        columns=comparison.COLUMNS,
        rows=comparison.table_rows(found, work),
        targets=_targets(found, work),
        notes=notes,
    )


def _targets(found: Comparison, work: Work) -> list[Target]:
    on_gpu = jax.default_backend() == "gpu"
    best, targets = found.best_peer(), []
    seconds = median_wall(found.taken[found.ours])
    if on_gpu and abs(work.flops / 1e12 - PUBLISHED_STEP_TFLOP) < 1:
        targets += [
            Target("s a step", seconds, GPU_SECONDS, at_least=False),
            Target("TFLOP/s by formula", work.flops / seconds / 1e12, GPU_TFLOPS),
        ]
    if best is not None and on_gpu:
        name = f"steps/s, times those of the best peer ({best})"
        targets.append(Target(name, found.times_ours(best), GPU_SPEED_UP))
    elif best is not None:
        name = f"s a step, in those of the best peer ({best})"
        targets.append(Target(name, found.ours_in_times_of(best), CPU_RATIO, at_least=False))
    return targets
