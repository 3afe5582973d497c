"""SGD with the poly schedule, as mmcv and torch compute them.

Source: `torch.optim.SGD`; mmcv's `PolyLrUpdaterHook` (set before iteration `it`, from 0).
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Hyper-parameters of SGD; the defaults are the published ones.

    Attributes:
      learning_rate: at iteration 0 (after the warm-up, if there is one).
      min_learning_rate: at the end of the schedule.
      power: exponent of the decay.
      warmup_steps: iterations over which the rate rises linearly to the schedule's.
      momentum: share of the last update's direction that is kept.
      weight_decay: of every parameter, batch norm and biases included.
    """

    learning_rate: float = 0.01
    min_learning_rate: float = 1e-4
    power: float = 0.9
    warmup_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4


def poly_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """lr(it) = (lr - min) * (1 - it / num_steps) ** power + min, below a linear warm-up."""

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        remaining = jnp.asarray(num_steps - jnp.minimum(step, num_steps), jnp.result_type(float))
        span = config.learning_rate - config.min_learning_rate
        rate = span * (remaining / num_steps) ** config.power + config.min_learning_rate
        if not config.warmup_steps:
            return rate
        return rate * jnp.minimum((jnp.asarray(step) + 1) / config.warmup_steps, 1.0)

    return schedule


def make_sgd(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """torch's SGD: g += decay * p; buffer = momentum * buffer + g; p -= lr * buffer."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.trace(config.momentum),
        optax.scale_by_learning_rate(poly_schedule(config, num_steps)),
    )
