"""Optimisers, schedules, clipping, rates and freezing against their definitions in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.made.small_networks import SMALL
from tmanet_jax.checkpoints.arrays import by_name
from tmanet_jax.errors import UserError
from tmanet_jax.models.mobilenet import MobileNetV2Config
from tmanet_jax.models.tmanet import ModelConfig, abstract_model
from tmanet_jax.training.optimizer import (
    OptimizerConfig,
    make_optimizer,
    make_schedule,
    rates_of_groups,
)
from tmanet_jax.training.rates import factors_of_rate, names_of, without_frozen

NUM_STEPS = 20
NAMES = ("backbone.stages.0.0.kernel", "backbone.stages.0.0.bias", "head.kernel")


def arrays(seed: int) -> dict[str, jax.Array]:
    """Like a network's parameters."""
    rng = np.random.default_rng(seed)
    shapes = dict(zip(NAMES, ((3, 2), (2,), (2, 4)), strict=True))
    return {name: jnp.asarray(rng.standard_normal(shapes[name]), jnp.float32) for name in NAMES}


def first_updates(config: OptimizerConfig, grads: Any) -> dict[str, np.ndarray]:
    optimizer, params = make_optimizer(config, NUM_STEPS), arrays(0)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return {name: np.asarray(update) for name, update in updates.items()}


@pytest.mark.parametrize("clip_norm", [1.0, 1e6])
def test_gradients_are_scaled_down_to_the_greatest_norm(clip_norm: float) -> None:
    grads = arrays(1)
    norm = np.sqrt(sum((np.asarray(grad, np.float64) ** 2).sum() for grad in grads.values()))
    config = OptimizerConfig(clip_norm=clip_norm, weight_decay=0.0, momentum=0.0)
    for name, update in first_updates(config, grads).items():
        expected = -0.01 * np.asarray(grads[name]) * min(1, clip_norm / norm)
        np.testing.assert_allclose(update, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_decay_unless_they_should_not(name: str) -> None:
    nothing = jax.tree.map(jnp.zeros_like, arrays(0))
    with jax.numpy_dtype_promotion("standard"):  # optax takes 1 - beta to a power of int32
        for decays in (True, False):
            config = OptimizerConfig(name, weight_decay=0.1, decay_norms_and_biases=decays)
            for param, update in first_updates(config, nothing).items():
                factor = 0 if "bias" in param and not decays else -0.01 * 0.1
                np.testing.assert_allclose(update, factor * arrays(0)[param], rtol=1e-5)


def test_adamw_is_its_definition() -> None:
    config = OptimizerConfig(
        "adamw", learning_rate=0.1, min_learning_rate=0.1, momentum=0.8, beta2=0.9, weight_decay=0.2
    )
    optimizer, params = make_optimizer(config, NUM_STEPS), arrays(0)
    expected = {name: np.asarray(param, np.float64) for name, param in params.items()}
    mean: dict[str, Any] = dict.fromkeys(NAMES, 0.0)
    square = dict(mean)
    state = optimizer.init(params)
    for step in range(1, 4):
        grads = arrays(step)
        with jax.numpy_dtype_promotion("standard"):  # optax takes 1 - beta to a power of int32
            updates, state = optimizer.update(grads, state, params)
        params = {name: params[name] + updates[name] for name in NAMES}
        for name, grad in grads.items():
            mean[name] = 0.8 * mean[name] + 0.2 * np.asarray(grad)
            square[name] = 0.9 * square[name] + 0.1 * np.asarray(grad) ** 2
            direction = mean[name] / (1 - 0.8**step)
            direction /= np.sqrt(square[name] / (1 - 0.9**step)) + 1e-8
            expected[name] = expected[name] - 0.1 * (direction + 0.2 * expected[name])
    for name in NAMES:
        np.testing.assert_allclose(params[name], expected[name], rtol=2e-5)


def rates_of(config: OptimizerConfig) -> list[float]:
    return [float(make_schedule(config, NUM_STEPS)(it)) for it in range(NUM_STEPS + 2)]


def half_cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + np.cos(np.pi * min(share, 1.0))) / 2


def test_cosine_falls_to_the_least_rate_and_stays_there() -> None:
    config = OptimizerConfig(schedule="cosine", learning_rate=1.0, min_learning_rate=0.1)
    expected = [half_cosine(1.0, 0.1, it / NUM_STEPS) for it in range(NUM_STEPS + 2)]
    np.testing.assert_allclose(rates_of(config), expected, rtol=1e-5)


def test_one_cycle_rises_and_falls_in_half_cosines() -> None:
    config = OptimizerConfig(
        schedule="one_cycle", learning_rate=1.0, min_learning_rate=0.1, rise=0.25
    )
    rising = [half_cosine(1 / 25, 1.0, it / 5) for it in range(5)]
    falling = [half_cosine(1.0, 0.1, it / 15) for it in range(17)]
    np.testing.assert_allclose(rates_of(config), rising + falling, rtol=1e-5)


def factors(config: ModelConfig, layer_decay: float = 1.0, **patterns: Any) -> dict[str, float]:
    """Of a small network's parameters, by their names."""
    params = nnx.state(abstract_model(config), nnx.Param)
    given: dict[str, Any] = {"rates": {}, "frozen": (), **patterns}
    names = jax.tree.leaves(names_of(params))
    found = jax.tree.leaves(factors_of_rate(params, layer_decay, **given))
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(
    ("backbone", "stem", "stages", "num_groups"),
    [(SMALL.backbone, "stem", "stages", 5), (MobileNetV2Config(), "first", "layers", 8)],
)
def test_the_rate_decays_from_the_heads_down_the_backbone(
    backbone: Any, stem: str, stages: str, num_groups: int
) -> None:
    for name, factor in factors(ModelConfig(backbone, SMALL.head, SMALL.aux), 0.5).items():
        _, group, index, *_ = name.split(".")
        depth = {stem: 0, stages: 1 + int(index) if index.isdecimal() else 0}.get(group)
        is_head = not name.startswith("backbone.")
        assert factor == (1.0 if is_head else 0.5 ** (num_groups - (depth or 0))), name


def test_of_several_patterns_the_last_one_counts_and_frozen_ones_do_not_train() -> None:
    found = factors(SMALL, rates={"backbone": 0.1, "*.norm": 0.5}, frozen=("backbone.stem",))
    assert found["backbone.stages.0.0.conv1.conv.kernel_hwio"] == 0.1
    assert found["backbone.stages.0.0.conv1.norm.scale"] == 0.5
    assert found["backbone.stem.0.norm.scale"] == 0
    assert found["head.classifier.bias"] == 1


def test_the_rate_of_each_group_is_told_where_they_differ() -> None:
    """Of a group the greatest: norms of a stage may learn slower."""
    params = nnx.state(abstract_model(SMALL), nnx.Param)
    assert rates_of_groups(OptimizerConfig(), params) == {}
    config = OptimizerConfig(rates=("backbone=0.1", "*.norm=0.01"), frozen=("backbone.stem",))
    assert rates_of_groups(config, params) == {
        "learning_rate/backbone.stem": 0,
        **{f"learning_rate/backbone.stages.{stage}": 0.1 for stage in range(4)},
        "learning_rate/head": 1,
        "learning_rate/aux_head": 1,
    }


def test_frozen_parameters_have_no_gradient_and_do_not_decay() -> None:
    config = OptimizerConfig(weight_decay=0.1, frozen=("backbone.*.bias",))
    grads = jax.tree.map(jnp.ones_like, arrays(0))
    frozen = "backbone.stages.0.0.bias"
    for name, grad in without_frozen(grads, config.frozen).items():
        assert (np.asarray(grad) == (name != frozen)).all()
    for name, update in first_updates(config, grads).items():
        assert update.any() == (name != frozen)


def test_a_pattern_that_matches_nothing_names_those_near_it() -> None:
    with pytest.raises(
        UserError, match=r"'backbone\.stage\.0' .* matches no .*backbone\.stages\.0"
    ):
        factors(SMALL, frozen=("backbone.stage.0",))
    optimizer = make_optimizer(OptimizerConfig(rates=("neck=2",)), NUM_STEPS)
    with pytest.raises(UserError, match=r"'neck' .* matches no parameter"):
        optimizer.init(arrays(0))


@pytest.mark.parametrize("text", ["backbone", "=1", "backbone=-1", "backbone=nan", "backbone=x"])
def test_a_rate_is_a_pattern_and_a_factor(text: str) -> None:
    with pytest.raises(UserError, match=r"^rates must be NAME=FACTOR each"):
        OptimizerConfig(rates=(text,))


def test_a_run_that_goes_on_may_change_what_has_no_state() -> None:
    """Its arrays keep their names in a checkpoint."""
    other = OptimizerConfig(
        clip_norm=1.0, decay_norms_and_biases=False, layer_decay=0.5, frozen=(NAMES[2],)
    )
    states = [make_optimizer(config, 9).init(arrays(0)) for config in (OptimizerConfig(), other)]
    usual, changed = map(by_name, states)
    assert usual.keys() == changed.keys()
