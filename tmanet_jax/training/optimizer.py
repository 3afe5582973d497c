"""Optimisers and schedules of the learning rate, each chosen by its name in a table."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tmanet_jax.fields import PUBLISHED, Checked, field, named_factors
from tmanet_jax.training.rates import factors_of_groups, factors_of_rate

_MOST = 1e36
"""Of a learning rate or norm: float32 holds 3e38."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Checked):
    """Which optimiser and schedule, and their hyper-parameters."""

    name: str = field("sgd", "optimiser", choices=lambda: tuple(OPTIMIZERS), source=PUBLISHED)
    schedule: str = field(
        "poly", "of the learning rate", choices=lambda: tuple(SCHEDULES), source=PUBLISHED
    )
    learning_rate: float = field(
        0.01, "at step 0 (after the warm-up, if there is one)", low=0, high=_MOST, source=PUBLISHED
    )
    min_learning_rate: float = field(
        1e-4, "at the end of the schedule", low=0, high=_MOST, source=PUBLISHED
    )
    power: float = field(0.9, "exponent of the decay", low=0, high=100, source=PUBLISHED)
    warmup_steps: int = field(
        0, "over which the rate rises linearly to the schedule's", unit="steps", low=0
    )
    rise: float = field(
        0.3, '"one_cycle": share of the steps in which the rate rises', above=0, below=1
    )
    momentum: float = field(
        0.9, "share of the last update's direction that is kept", low=0, high=1, source=PUBLISHED
    )
    beta2: float = field(
        0.999, '"adamw": share of the mean squared gradient that is kept', low=0, below=1
    )
    weight_decay: float = field(5e-4, "of the parameters", low=0, high=100, source=PUBLISHED)
    decay_norms_and_biases: bool = field(
        True, "of all parameters, those of norms and biases included", source=PUBLISHED
    )
    clip_norm: float | None = field(
        None,
        "gradients of a greater norm (L2, of all of them) are scaled down to it",
        above=0,
        high=_MOST,
    )
    layer_decay: float = field(
        1.0, "factor of the rate from each stage of the backbone to the one below", above=0, high=1
    )
    rates: tuple[str, ...] = field(
        (), "factors of the rate by patterns of parameters' names: ('backbone=0.1',)"
    )
    frozen: tuple[str, ...] = field(
        (),
        "patterns of parameters that do not train, ('backbone.stages.0', '*.norm'); norms still "
        "take the batch's statistics",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        named_factors(self.rates, "rates")


def poly(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """lr(it) = (lr - min) * (1 - it / num_steps) ** power + min.

    Source: mmcv's `PolyLrUpdaterHook` (set before iteration `it`, from 0).
    """

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        remaining = jnp.asarray(num_steps - jnp.minimum(step, num_steps), jnp.result_type(float))
        span = config.learning_rate - config.min_learning_rate
        return span * (remaining / num_steps) ** config.power + config.min_learning_rate

    return schedule


def cosine(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """lr(it) = (lr - min) * (1 + cos(pi * it / num_steps)) / 2 + min.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), without restarts.
    """
    return lambda step: _between(
        config.min_learning_rate, config.learning_rate, _half_cosine(_share(step, 0, num_steps))
    )


def one_cycle(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Half a cosine from lr / 25 up to lr, over the share `rise` of the steps; one down to min.

    Source: Smith and Topin 2017 (arXiv 1708.07120), as `torch.optim.lr_scheduler.OneCycleLR`.
    """
    top, highest = config.rise * num_steps, config.learning_rate
    first, last = highest / 25, config.min_learning_rate
    return lambda step: jnp.where(
        jnp.asarray(step) < top,
        _between(highest, first, _half_cosine(_share(step, 0, top))),
        _between(last, highest, _half_cosine(_share(step, top, num_steps))),
    )


def _share(step: jax.typing.ArrayLike, first: float, last: float) -> jax.Array:
    """Of the way from the first step to the last."""
    done = jnp.asarray(step, jnp.result_type(float)) - first
    return jnp.clip(done / (last - first), 0.0, 1.0)


def _half_cosine(share: jax.Array) -> jax.Array:
    """From 1 to 0."""
    return (1 + jnp.cos(math.pi * share)) / 2


def _between(low: float, high: float, share: jax.Array) -> jax.Array:
    return low + (high - low) * share


SCHEDULES: dict[str, Callable[[OptimizerConfig, int], optax.Schedule]] = {
    "poly": poly,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
"""What `config.optimizer.schedule` chooses from: the learning rate of each of so many steps."""


def sgd(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Torch's SGD: g += decay * p; buffer = momentum * buffer + g; p -= lr * buffer.

    Source: `torch.optim.SGD`.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, _decayed(config)),
        optax.trace(config.momentum),
        optax.scale_by_learning_rate(schedule),
    )


def adamw(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), with `momentum` for beta 1."""
    return optax.adamw(
        schedule,
        b1=config.momentum,
        b2=config.beta2,
        weight_decay=config.weight_decay,
        mask=_decayed(config),
    )


def _decayed(config: OptimizerConfig) -> Callable[[Any], Any] | None:
    """Which parameters decay; None: all. Norms and biases are vectors, and nothing else is."""
    if config.decay_norms_and_biases:
        return None
    return lambda params: jax.tree.map(lambda param: param.ndim > 1, params)


OPTIMIZERS: dict[str, Callable[[OptimizerConfig, optax.Schedule], optax.GradientTransformation]] = {
    "sgd": sgd,
    "adamw": adamw,
}
"""What `config.optimizer.name` chooses from; one of your own is an entry more."""


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """The learning rate of each step: the chosen schedule below a linear warm-up."""
    schedule = SCHEDULES[config.schedule](config, num_steps)
    if not config.warmup_steps:
        return schedule
    return lambda step: (
        schedule(step) * jnp.minimum((jnp.asarray(step) + 1) / config.warmup_steps, 1.0)
    )


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """From gradients to updates, as the configuration chooses.

    Clipping, rates by pattern and freezing have no state: a run that goes on may change them.
    Its `init` raises UserError for a pattern that matches no parameter.
    """
    chosen = OPTIMIZERS[config.name](config, make_schedule(config, num_steps))
    clipping = optax.identity()
    if config.clip_norm is not None:
        clipping = optax.clip_by_global_norm(config.clip_norm)

    def factors(params: Any) -> Any:
        rates = named_factors(config.rates, "rates")
        return factors_of_rate(params, config.layer_decay, rates, config.frozen)

    def init(params: Any) -> Any:
        factors(params)
        return chosen.init(params)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        clipped, _ = clipping.update(grads, clipping.init(params), params)
        updates, state = chosen.update(clipped, state, params)
        return jax.tree.map(_scaled, updates, factors(updates)), state

    return optax.GradientTransformation(init, update)


def rates_of_groups(config: OptimizerConfig, params: Any) -> dict[str, float]:
    """Of each group, what the learning rate is multiplied by; empty where all have the same."""
    rates = named_factors(config.rates, "rates")
    factors = factors_of_groups(params, config.layer_decay, rates, config.frozen)
    if set(factors.values()) == {1.0}:
        return {}
    return {f"learning_rate/{group}": factor for group, factor in factors.items()}


def _scaled(update: jax.Array, factor: float) -> jax.Array:
    return update if factor == 1 else jnp.zeros_like(update) if factor == 0 else factor * update
