"""Optimisers and schedules of the learning rate, each chosen by its name in a table."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from tmanet_jax.fields import PUBLISHED, Checked, field

_MOST = 1e36
"""Of a learning rate: float32 holds 3e38."""


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
    momentum: float = field(
        0.9, "share of the last update's direction that is kept", low=0, high=1, source=PUBLISHED
    )
    weight_decay: float = field(
        5e-4,
        "of every parameter, batch norm and biases included",
        low=0,
        high=100,
        source=PUBLISHED,
    )


def poly(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """lr(it) = (lr - min) * (1 - it / num_steps) ** power + min.

    Source: mmcv's `PolyLrUpdaterHook` (set before iteration `it`, from 0).
    """

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        remaining = jnp.asarray(num_steps - jnp.minimum(step, num_steps), jnp.result_type(float))
        span = config.learning_rate - config.min_learning_rate
        return span * (remaining / num_steps) ** config.power + config.min_learning_rate

    return schedule


SCHEDULES: dict[str, Callable[[OptimizerConfig, int], optax.Schedule]] = {"poly": poly}
"""What `config.optimizer.schedule` chooses from: the learning rate of each of so many steps."""


def sgd(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Torch's SGD: g += decay * p; buffer = momentum * buffer + g; p -= lr * buffer.

    Source: `torch.optim.SGD`.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.trace(config.momentum),
        optax.scale_by_learning_rate(schedule),
    )


def adamw(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), with `momentum` for beta 1."""
    return optax.adamw(schedule, b1=config.momentum, weight_decay=config.weight_decay)


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
    """From gradients to updates, as the configuration chooses."""
    return OPTIMIZERS[config.name](config, make_schedule(config, num_steps))
