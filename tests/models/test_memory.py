"""The chunked memory read equals attention written out, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tmanet_jax.models.memory import read_neighbourhood
from tmanet_jax.models.memory_kernels import QUERY_CHUNK, read_memory


def arrays(n: int, m: int, dtype: str = "float32") -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = ((2, n, 8), (2, m, 8), (2, m, 5))
    query, key, value = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)
    return query, key, value


def naive(query: jax.Array, key: jax.Array, value: jax.Array, scale: float) -> jax.Array:
    return jax.nn.softmax(scale * query @ key.swapaxes(1, 2), axis=-1) @ value


@pytest.mark.parametrize("n", [1, QUERY_CHUNK - 1, QUERY_CHUNK, QUERY_CHUNK + 1, 3 * QUERY_CHUNK])
@pytest.mark.parametrize("scale", [1.0, 8**-0.5])
def test_equals_naive_attention(n: int, scale: float) -> None:
    query, key, value = arrays(n, 77)
    read = read_memory(query, key, value, scale=scale)
    np.testing.assert_allclose(read, naive(query, key, value, scale), atol=1e-5)


def test_gradients_equal_those_of_naive_attention() -> None:
    inputs = arrays(QUERY_CHUNK + 37, 50)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((2, QUERY_CHUNK + 37, 5)))

    def gradients(read) -> tuple[jax.Array, ...]:
        return jax.grad(lambda q, k, v: (weights * read(q, k, v)).sum(), argnums=(0, 1, 2))(*inputs)

    chunked = gradients(lambda q, k, v: read_memory(q, k, v))
    for got, expected in zip(chunked, gradients(lambda q, k, v: naive(q, k, v, 1.0)), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-4)


def test_no_array_is_as_large_as_the_score_matrix() -> None:
    n, m = 32 * QUERY_CHUNK, 3000

    def loss(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return read_memory(query, key, value).sum()

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, n, 8), (2, m, 8), (2, m, 5))]
    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*shapes).compile()
    memory = program.memory_analysis()
    assert memory is not None
    score_matrix_bytes = 2 * n * m * 4
    assert memory.temp_size_in_bytes < score_matrix_bytes / 4


def test_bfloat16_keeps_float32_scores() -> None:
    query, key, value = arrays(20, 30, "bfloat16")
    query32, key32, value32 = (x.astype(jnp.float32) for x in (query, key, value))
    exact = naive(query32, key32, value32, 1.0)
    read = read_memory(query, key, value)
    assert read.dtype == jnp.bfloat16
    np.testing.assert_allclose(read.astype(jnp.float32), exact, atol=0.03)


@pytest.mark.parametrize("distance", [0, 1, 4])
def test_a_neighbourhood_is_all_that_is_read_forward_and_backward(distance: int) -> None:
    """The read of everything with the weights of positions further away taken out."""
    b, t, h, w = 2, 3, 4, 5
    rng = np.random.default_rng(0)
    shapes = ((b, h, w, 8), (b, t, h, w, 8), (b, t, h, w, 5))
    query, key, value = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    row_N, column_N = np.divmod(np.arange(h * w), w)
    is_near_NxN = np.maximum(
        abs(row_N[:, None] - row_N), abs(column_N[:, None] - column_N)
    ) <= distance  # fmt: skip
    weight_BxhxwxV = rng.standard_normal((b, h, w, 5)).astype(np.float32)

    def masked(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        scores = 0.5 * query.reshape(b, h * w, 8) @ key.reshape(b, t * h * w, 8).swapaxes(1, 2)
        scores = jnp.where(np.tile(is_near_NxN, (1, t)), scores, -jnp.inf)
        read = jax.nn.softmax(scores, axis=-1) @ value.reshape(b, t * h * w, 5)
        return read.reshape(b, h, w, 5)

    def near(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return read_neighbourhood(query, key, value, distance, scale=0.5)

    expected, expected_pull = jax.vjp(masked, query, key, value)
    read, pull = jax.vjp(near, query, key, value)
    np.testing.assert_allclose(read, expected, atol=1e-5)
    for got, wanted in zip(pull(weight_BxhxwxV), expected_pull(weight_BxhxwxV), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
