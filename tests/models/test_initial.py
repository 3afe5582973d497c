"""Initial weights are what flax's initialisers draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tmanet_jax.models import initial

PAIRS = {
    "kaiming": (
        initial.kaiming_normal_fan_out,
        nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
    ),
    "normal": (initial.normal(0.01), nnx.initializers.normal(0.01)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_kernels_are_drawn_as_flax_draws_them(kind: str) -> None:
    ours, theirs = PAIRS[kind]
    key, shape = jax.random.key(3), (7, 45)
    expected = np.asarray(theirs(key, shape, jnp.float32))
    np.testing.assert_array_equal(ours(key, shape, jnp.float32), expected)
    traced = jax.jit(lambda key: ours(key, shape, jnp.float32))(key)
    np.testing.assert_allclose(traced, expected, rtol=1e-6)
