"""SGD with the poly schedule, as mmcv and torch compute them.

Source: `torch.optim.SGD`; mmcv's `PolyLrUpdaterHook` (set before iteration `it`, from 0).
"""

import jax
import jax.numpy as jnp
import optax

from tmanet_jax.settings import OptimizerConfig


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
    """Torch's SGD: g += decay * p; buffer = momentum * buffer + g; p -= lr * buffer."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.trace(config.momentum),
        optax.scale_by_learning_rate(poly_schedule(config, num_steps)),
    )
