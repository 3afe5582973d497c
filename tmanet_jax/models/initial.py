"""Initial weights, by few programs: jax compiles one for each shape, a draw for a second and more.

Outside of a trace numpy shapes and scales what jax has drawn; the numbers are the same.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike


def full(size: int, value: float) -> jax.Array:
    """A vector of one number, float32."""
    return jax.device_put(np.full(size, value, np.float32))


def normal(deviation: float) -> nnx.Initializer:
    """Draws of this standard deviation."""
    return _normal(lambda shape: deviation)


def _normal(deviation_of: Callable[[Sequence[int]], float]) -> nnx.Initializer:
    def draw(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
        if isinstance(key, jax.core.Tracer):
            return jax.random.normal(key, shape, dtype) * jnp.asarray(deviation_of(shape), dtype)
        drawn = drawn_flat(key, math.prod(shape)).reshape(shape)
        return jax.device_put((drawn * np.float32(deviation_of(shape))).astype(dtype))

    return draw


def drawn_flat(key: jax.Array, size: int) -> np.ndarray:
    """`jax.random.normal`, float32: the first ones of the next power of two are the same."""
    return np.asarray(jax.random.normal(key, (1 << (size - 1).bit_length(),), jnp.float32))[:size]


def _kaiming(shape: Sequence[int]) -> float:
    variance = np.float32(2.0 / (math.prod(shape[:-2]) * shape[-1]))
    return float(np.sqrt(variance))


kaiming_normal_fan_out = _normal(_kaiming)
"""`nnx.initializers.variance_scaling(2.0, "fan_out", "normal")` of kernels HWIO."""
