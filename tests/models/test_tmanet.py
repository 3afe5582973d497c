"""The whole network: shapes, its seam, memory order, T = 0, gradients into the memory, dtypes."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.made.small_networks import initialised, kept, merged
from tmanet_jax.errors import UserError
from tmanet_jax.models.fcn_head import FCNHeadConfig
from tmanet_jax.models.layers import MatmulPrecision
from tmanet_jax.models.resnet import BLOCKS_OF_DEPTH, ResNet, ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import (
    AUX_HEAD,
    Logits,
    ModelConfig,
    TMANet,
    abstract_model,
    num_parameters,
    reading,
)


def small_config(num_memory: int = 2, **changes: Any) -> ModelConfig:
    config = ModelConfig(
        backbone=ResNetConfig(depth=18, width=8, blocks=(1, 1, 1, 1)),
        head=TMAHeadConfig(
            num_classes=5,
            num_memory=num_memory,
            key_channels=8,
            value_channels=16,
            channels=16,
        ),
        aux=dataclasses.replace(AUX_HEAD, channels=8),
    )
    return dataclasses.replace(config, **changes)


def frames(batch: int, num_frames: int, height: int = 33, width: int = 49) -> jax.Array:
    rng = np.random.default_rng(batch + num_frames)
    return jnp.asarray(rng.standard_normal((batch, num_frames, height, width, 3)), jnp.float32)


@nnx.jit(static_argnames="train")
def apply(model: TMANet, clip: jax.Array, train: bool = False) -> Logits:
    return model(clip, train=train)


def trained(config: ModelConfig) -> TMANet:
    """A network whose every parameter and statistic is off its initial value."""
    return merged(*_trained(config))


@functools.cache
def _trained(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    model = initialised(config)
    rng = np.random.default_rng(0)

    def moved(x: jax.Array) -> np.ndarray:  # numpy compiles nothing
        return np.asarray(x) + 0.1 * rng.standard_normal(x.shape).astype(x.dtype)

    nnx.update(model, jax.tree.map(moved, nnx.state(model, nnx.Param)))
    return kept(model)


@pytest.mark.parametrize("num_memory", [0, 1, 2, 4])
@pytest.mark.parametrize("size", [(33, 49), (32, 64), (7, 100)])
def test_logits_have_an_eighth_of_the_frames_size(num_memory: int, size: tuple[int, int]) -> None:
    model = abstract_model(small_config(num_memory))
    clip = jax.ShapeDtypeStruct((2, num_memory + 1, *size, 3), jnp.float32)
    logits = nnx.eval_shape(lambda model, clip: model(clip), model, clip)
    assert logits.main.shape == logits.aux.shape == (2, *model.config.feature_size(size), 5)


@pytest.mark.parametrize("depth", sorted(BLOCKS_OF_DEPTH))
def test_every_depth_has_the_parameters_of_its_paper(depth: int) -> None:
    published_millions = {18: 11.18, 34: 21.28, 50: 23.51, 101: 42.50, 152: 58.14}
    backbone = abstract_resnet(ResNetConfig(depth=depth))
    count = sum(x.size for x in jax.tree.leaves(nnx.state(backbone, nnx.Param)))
    assert count / 1e6 == pytest.approx(published_millions[depth], abs=0.03)


@pytest.mark.parametrize("depth", [18, 50], ids=["two convolutions", "three convolutions"])
@pytest.mark.parametrize("deep_stem", [True, False])
def test_stages_have_a_quarter_and_an_eighth_of_the_frames_size(
    depth: int, deep_stem: bool
) -> None:
    features = nnx.eval_shape(
        lambda model, x: model(x, train=False),
        abstract_resnet(ResNetConfig(depth=depth, deep_stem=deep_stem)),
        jax.ShapeDtypeStruct((1, 65, 97, 3), jnp.float32),
    )
    sizes = [stage.shape[1:3] for stage in features]
    assert sizes == [(17, 25), (9, 13), (9, 13), (9, 13)]


def abstract_resnet(config: ResNetConfig) -> ResNet:
    return nnx.eval_shape(lambda: ResNet(config, rngs=nnx.Rngs(0)))


def test_call_is_encode_and_read() -> None:
    model = trained(small_config())
    clip = frames(2, 3)

    @nnx.jit
    def remember(model: TMANet, frames: jax.Array) -> list[Any]:
        return model.remember(model.encode(frames))

    memory = [remember(model, clip[:, t])[t] for t in range(2)]
    read = nnx.jit(lambda model, frames, memory: model.read(model.encode(frames), memory))
    by_parts = read(model, clip[:, 2], memory)
    np.testing.assert_allclose(apply(model, clip).main, by_parts, atol=1e-4)


def test_the_order_of_the_memory_counts() -> None:
    model = trained(small_config())
    clip = frames(1, 3)
    swapped = clip[:, jnp.array([1, 0, 2])]
    assert float(jnp.abs(apply(model, clip).main - apply(model, swapped).main).max()) > 1e-3


def test_a_clip_of_another_length_is_refused() -> None:
    model = initialised(small_config())
    with pytest.raises(ValueError, match="a clip of 3 frames was expected"):
        model(frames(1, 2))


def memory_gradient_norm(config: ModelConfig) -> float:
    graphdef, state = nnx.split(trained(config))

    @jax.jit
    @jax.grad
    def gradient(clip: jax.Array, state: nnx.State) -> jax.Array:
        model = nnx.merge(graphdef, state, copy=True)
        return (model(clip, train=True).main ** 2).sum()

    return float(jnp.abs(gradient(frames(2, 3), state)[:, :2]).sum())


def test_gradients_into_the_memory_can_be_switched_off() -> None:
    assert memory_gradient_norm(small_config(memory_gradient=True)) > 0
    assert memory_gradient_norm(small_config(memory_gradient=False)) == 0


def test_without_memory_gradients_forward_and_statistics_are_the_same() -> None:
    with jax.enable_x64(True):
        clip = frames(2, 3).astype("float64")
        models = [
            trained(small_config(memory_gradient=flows, dtype="float64")) for flows in (True, False)
        ]
        logits = [apply(model, clip, train=True).main for model in models]
        np.testing.assert_allclose(logits[0], logits[1], rtol=1e-9)
        statistics = [jax.tree.leaves(nnx.state(model, nnx.BatchStat)) for model in models]
        for flowing, stopped in zip(*statistics, strict=True):
            np.testing.assert_allclose(flowing, stopped, rtol=1e-6)


def test_bfloat16_computes_near_float32_and_keeps_float32_state_and_logits() -> None:
    clip = frames(1, 3)
    exact = apply(trained(small_config()), clip).main
    model = trained(small_config(dtype="bfloat16"))
    logits = apply(model, clip).main
    assert logits.dtype == jnp.float32
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {
        jnp.dtype("float32"),
        jnp.dtype("int32"),
    }
    error = jnp.sqrt(jnp.mean((logits - exact) ** 2) / jnp.mean(exact**2))
    assert float(error) < 0.05


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_every_float32_product_is_as_precise_as_asked_for(precision: MatmulPrecision) -> None:
    """Forward and backward, on a chip that knows several precisions."""
    config = small_config(precision=precision, remat=True)
    graphdef, state = nnx.split(abstract_model(config))

    def loss(state: nnx.State, clip: jax.Array) -> jax.Array:
        main, aux = nnx.merge(graphdef, state)(clip, train=True)
        return main.sum() + aux.sum()

    clip = jax.ShapeDtypeStruct((2, 3, 33, 49, 3), jnp.float32)
    gradients = jax.jit(jax.grad(loss, allow_int=True)).trace(state, clip)
    program = gradients.lower(lowering_platforms=("tpu",)).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution).*", program)
    asked = [line for line in products if len(re.findall(rf"\b{precision.upper()}\b", line)) == 2]
    scores = [line for line in products if line not in asked]
    assert len(products) > 40
    assert len(scores) == (0 if precision == "highest" else 2)  # forward, and again backward
    assert all(line.count("HIGHEST") == 2 for line in scores)


@pytest.mark.parametrize(("frozen_stages", "norm_eval"), [(1, False), (-1, True)])
def test_what_is_frozen_has_no_gradient_and_keeps_its_statistics(
    frozen_stages: int, norm_eval: bool
) -> None:
    backbone = ResNetConfig(
        18, width=4, blocks=(1, 1, 1, 1), frozen_stages=frozen_stages, norm_eval=norm_eval
    )
    model = trained(small_config(0, backbone=backbone))
    trains = {path[:3] for path, _ in nnx.to_flat_state(nnx.state(model.backbone, nnx.Param))}
    assert (("stem", 0, "conv") in trains) == (("stages", 0, 0) in trains) == norm_eval
    assert ("stages", 1, 0) in trains
    before = dict(nnx.to_flat_state(nnx.state(model.backbone, nnx.BatchStat)))
    before = {path: np.asarray(leaf[...]) for path, leaf in before.items()}
    apply(model, frames(2, 1), train=True)
    moved = {
        path[:2]
        for path, leaf in nnx.to_flat_state(nnx.state(model.backbone, nnx.BatchStat))
        if not np.array_equal(leaf[...], before[path])
    }
    assert moved == (set() if norm_eval else {("stages", 1), ("stages", 2), ("stages", 3)})


def test_parameters_that_training_leaves_alone_are_counted_too() -> None:
    counts = []
    for frozen_stages in (-1, 2):
        backbone = ResNetConfig(18, width=8, blocks=(1, 1, 1, 1), frozen_stages=frozen_stages)
        counts.append(num_parameters(abstract_model(small_config(backbone=backbone))))
    assert counts[0] == counts[1] > 0


def test_a_head_without_positions_reads_no_neighbourhood() -> None:
    config = ModelConfig(head=FCNHeadConfig(num_classes=5))
    with pytest.raises(UserError, match="FCNHead reads its memory in a way of its own"):
        reading(abstract_model(config), 1)
