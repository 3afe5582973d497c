"""The golden cases on an accelerator, and the memory read by its own kernel.

python -m pytest -m gpu

On a machine without one this refuses; `JAX_PLATFORMS=cpu` before the command rehearses it there.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_memory_kernels import TOLERANCE, naive, with_gradients
from tests.test_parity import pytest_generate_tests, test_parity  # noqa: F401, run here once more
from tmanet_jax.models.memory_kernels import read_memory

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def accelerator() -> None:
    if jax.default_backend() == "cpu" and os.environ.get("JAX_PLATFORMS") != "cpu":
        pytest.exit("jax finds no accelerator; JAX_PLATFORMS=cpu rehearses this group without one")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_chip_reads_the_memory_of_a_training_clip(dtype: str) -> None:
    """Keys as large as a trained network's, whose scores nothing scales down."""
    rng = np.random.default_rng(0)
    shapes = ((1, 1089, 64), (1, 2178, 64), (1, 2178, 256), (1, 1089, 256))
    inputs = [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    with jax.default_matmul_precision("highest"):
        exact = [x.astype(jnp.float32) for x in inputs]
        expected = with_gradients(functools.partial(naive, scale=1.0), *exact)
    found = with_gradients(functools.partial(read_memory, precision="highest"), *inputs)
    for got, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, right, atol=TOLERANCE[dtype] * np.abs(right).max())


def test_scores_of_float32_keep_their_digits_at_any_precision() -> None:
    """Rounded to 11 bits, keys of this size would change the weights by whole factors."""
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(100 * rng.random((1, n, 64)), jnp.float32) for n in (65, 130))
    value_1xMxM = jnp.eye(130)[None]
    weights_NxM = np.asarray(read_memory(query, key, value_1xMxM))[0]
    scores_NxM = np.asarray(query[0], np.float64) @ np.asarray(key[0], np.float64).T
    exact_NxM = np.exp(scores_NxM - scores_NxM.max(1, keepdims=True))
    exact_NxM /= exact_NxM.sum(1, keepdims=True)
    np.testing.assert_allclose(weights_NxM, exact_NxM, atol=0.2)
