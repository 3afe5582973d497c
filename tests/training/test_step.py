"""Rematerialisation and accumulation change the memory of a step, and not its numbers."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.made.small_networks import untrained
from tests.models.test_backbone_seam import PatchesConfig
from tests.whole_frames import segment_windows
from tmanet_jax.data.samples import Batch
from tmanet_jax.models.losses import LossConfig
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import AUX_HEAD, ModelConfig, Weights
from tmanet_jax.parallel.sharding import make_mesh, put_batch
from tmanet_jax.protocol import Protocol
from tmanet_jax.training.optimizer import OptimizerConfig, make_optimizer
from tmanet_jax.training.step import (
    Recipe,
    StepMetrics,
    TrainState,
    compile_train_step,
    init_state,
    moved_average,
)

NETWORK = ModelConfig(
    backbone=ResNetConfig(depth=18, width=8, blocks=(1, 1, 1, 1)),
    head=TMAHeadConfig(
        num_classes=5,
        num_memory=1,
        key_channels=4,
        value_channels=4,
        channels=8,
        dropout=0.0,
    ),
    aux=dataclasses.replace(AUX_HEAD, channels=8),
)
SOON_COMPILED = dataclasses.replace(NETWORK, backbone=PatchesConfig())
SIZE = (40, 56)
MESH = make_mesh(jax.devices()[:1])


def noise(num_clips: int) -> Batch:
    rng = np.random.default_rng(0)
    return Batch(
        frames=rng.integers(0, 256, (num_clips, 2, *SIZE, 3), np.uint8),
        labels=rng.integers(0, 5, (num_clips, *SIZE), np.uint8),
        sizes=np.full((num_clips, 2), SIZE, np.int32),
        indices=np.arange(num_clips),
    )


def clips(batch: Batch, which: Any) -> Batch:
    return Batch(*(array[which] for array in batch))


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled step, and the state that it begins with, of numpy's arrays."""

    compiled: Any
    state: TrainState

    @property
    def temporary_bytes(self) -> int:
        return self.compiled.memory_analysis().temp_size_in_bytes

    def step(self, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """Takes a copy of the state, for it is given away."""
        return self.compiled(jax.tree.map(jnp.array, self.state), put_batch(batch, MESH))


@functools.cache
def program(
    num_clips: int, network: ModelConfig = SOON_COMPILED, *, accumulate: int = 1
) -> Program:
    optimizer = make_optimizer(OptimizerConfig(), num_steps=10)
    graphdef, state = init_state(untrained(network), optimizer)
    state = jax.tree.map(np.asarray, dataclasses.replace(state, ema=state.network))
    recipe = Recipe(
        graphdef, optimizer, LossConfig(), True, seed=0, ema_decay=0.95, accumulate=accumulate
    )
    traced = compile_train_step(recipe, MESH).lower(state, put_batch(noise(num_clips), MESH))
    return Program(traced.compile(), state)


def kept_bytes(*, remat: bool) -> int:
    """What the backbone's forward pass leaves for its backward pass."""
    network = untrained(dataclasses.replace(NETWORK, remat=remat))
    graphdef, *states = nnx.split(network.backbone, nnx.Param, ...)
    params, rest = states
    frames = jnp.zeros((2, *SIZE, 3))

    def features(params: nnx.State) -> jax.Array:
        return nnx.merge(graphdef, params, rest, copy=True)(frames, train=True).stage4

    _, backward = jax.eval_shape(lambda: jax.vjp(features, params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))


def assert_close(found: Any, expected: Any, rtol: float = 2e-4) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=2e-6)


def test_rematerialisation_changes_memory_and_not_numbers() -> None:
    batch, remat = noise(4), dataclasses.replace(NETWORK, remat=True)
    assert_close(program(4, remat).step(batch), program(4, NETWORK).step(batch))
    assert kept_bytes(remat=True) < 0.5 * kept_bytes(remat=False)


def test_a_step_moves_the_average_towards_its_weights() -> None:
    before, (after, _) = program(4).state, program(4).step(noise(4))
    assert before.ema is not None and after.ema is not None
    expected = jax.tree.map(
        lambda a, b: b if a.dtype == jnp.int32 else a + 0.9 * (np.asarray(b) - a),
        before.ema,
        after.network,
    )
    assert_close(after.ema, expected)
    assert after.scored is after.ema


def test_the_average_forgets_its_beginning_sooner_than_by_its_decay() -> None:
    average, new = (
        Weights(nnx.State({"kernel": jnp.full(3, x)}), nnx.State({"n": jnp.int32(x)}))
        for x in (1.0, 2.0)
    )
    for step, decay, kept in ((0, 0.9, 1 / 10), (10, 0.9, 11 / 20), (1000, 0.9, 0.9), (5, 0, 0.0)):
        kernel, count = jax.tree.leaves(moved_average(average, new, jnp.asarray(step), decay))
        np.testing.assert_allclose(kernel, kept + (1 - kept) * 2, rtol=1e-6)
        assert int(count) == 2


def test_where_windows_are_segmented_nothing_is_rematerialised() -> None:
    frames = jax.random.normal(jax.random.key(0), (1, 2, *SIZE, 3))

    def logits(*, remat: bool) -> jax.Array:
        model = untrained(dataclasses.replace(NETWORK, remat=remat))
        half = (SIZE[0] // 2, SIZE[1] // 2)
        protocol = Protocol("slide", half, half)
        return segment_windows(model, frames, protocol)

    assert_close(logits(remat=True), logits(remat=False))


def test_accumulation_takes_the_mean_over_its_parts() -> None:
    """Part i takes clips i, i + accumulate, ...; each has batch statistics of its own."""
    batch, both = noise(4), program(4, accumulate=2)
    state, metrics = both.step(batch)
    parts = [program(2).step(clips(batch, np.s_[i::2])) for i in range(2)]
    mean = jax.tree.map(lambda *ab: np.mean(ab, axis=0), *(state.params for state, _ in parts))
    assert_close(state.params, mean)
    losses = [metrics.losses.total for _, metrics in parts]
    assert_close(metrics.losses.total, np.mean(losses))
    assert both.temporary_bytes < 0.8 * program(4).temporary_bytes
    assert int(state.step) == 1


def test_where_the_parts_are_equal_accumulation_changes_no_number() -> None:
    """Then their batch statistics are those of the whole batch."""
    batch = clips(noise(2), [0, 0, 1, 1])
    whole, metrics = program(4).step(batch)
    parts, of_parts = program(4, accumulate=2).step(batch)
    assert_close(parts.params, whole.params)
    assert_close(of_parts, metrics)
    for once, twice in zip(
        jax.tree.leaves(whole.batch_stats), jax.tree.leaves(parts.batch_stats), strict=True
    ):
        if once.dtype == jnp.int32:  # updates of the running statistics, with each part
            assert int(twice - 1) == 2 * int(once - 1)
