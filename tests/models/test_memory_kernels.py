"""Every way to read the memory equals attention written out, in values and gradients."""

import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_memory import naive
from tmanet_jax.models import memory_kernels
from tmanet_jax.models.layers import MatmulPrecision
from tmanet_jax.models.memory_kernels import (
    QUERY_CHUNK,
    Attention,
    read_chunked,
    read_cudnn,
    read_memory,
    read_splash,
)

READS: dict[str, Callable[..., jax.Array]] = {
    "chunked": read_chunked,
    "splash": functools.partial(read_splash, interpret=True),
    "cudnn": functools.partial(read_cudnn, implementation="xla"),
}
"""The kernels as they run without their chips: splash interpreted, cuDNN's feeding alone."""


@pytest.fixture(autouse=True)
def nothing_is_promoted() -> Iterator[None]:
    """Ranks alone: jax's own attention leaves types to be promoted."""
    with jax.numpy_rank_promotion("raise"):
        yield


CASES = {
    "T=1, less than a block": (1, 65, 1, "float32"),
    "T=2, ragged": (2, QUERY_CHUNK + 7, 2, "float32"),
    "T=2, ragged, bfloat16": (2, QUERY_CHUNK + 7, 2, "bfloat16"),
    "T=4, several blocks of keys": (1, 90, 4, "float32"),
}
"""Batch, positions of a frame, memory frames, type."""

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.02}
"""Of the largest value; bfloat16 keeps 8 bits of each weight, score gradient and result."""


def with_gradients(read: Callable[..., jax.Array], *inputs: jax.Array) -> list[np.ndarray]:
    """The read, and gradients of a weighted sum of it by query, key and value."""
    *inputs_of_read, weights = inputs

    @jax.jit
    def run(weights: jax.Array, *inputs_of_read: jax.Array) -> tuple[jax.Array, ...]:
        result, pull_back = jax.vjp(read, *inputs_of_read)
        return (result, *pull_back(weights))

    return [np.asarray(x, np.float32) for x in run(weights, *inputs_of_read)]


@pytest.mark.parametrize(("b", "n", "t", "dtype"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("name", READS)
def test_equals_attention_written_out(
    monkeypatch, name: str, b: int, n: int, t: int, dtype: str
) -> None:
    for block in ("QUERY_BLOCK", "KEY_BLOCK", "KEY_BLOCK_COMPUTE"):
        monkeypatch.setattr(memory_kernels, block, memory_kernels.LANES)
    rng = np.random.default_rng(0)
    shapes = ((b, n, 16), (b, t * n, 16), (b, t * n, 40), (b, n, 40))
    inputs = [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    exact = [x.astype(jnp.float32) for x in inputs]
    got = with_gradients(functools.partial(READS[name], scale=0.25), *inputs)
    expected = with_gradients(functools.partial(naive, scale=0.25), *exact)
    for found, right in zip(got, expected, strict=True):
        np.testing.assert_allclose(found, right, atol=TOLERANCE[dtype] * np.abs(right).max())


def test_keys_that_fill_a_block_weigh_nothing_beside_the_lowest_scores() -> None:
    query = jnp.full((1, 3, 4), 100.0)
    value = jnp.arange(5.0).reshape(1, 5, 1)
    read = read_splash(query, -jnp.ones((1, 5, 4)) * 100, value, scale=1.0, interpret=True)
    np.testing.assert_allclose(read, jnp.full((1, 3, 1), 2.0), rtol=1e-6)


@pytest.mark.parametrize(("platform", "kernel"), [("tpu", "tpu_custom_call"), ("cpu", "while")])
def test_a_program_gets_the_kernel_of_the_chip_it_is_lowered_for(platform: str, kernel) -> None:
    shapes = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((2, 9, 64), (2, 18, 64), (2, 18, 8))]
    read = functools.partial(read_memory, scale=1.0, attention="auto", precision="default")
    lowered = jax.jit(read).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    assert kernel in lowered
    assert ("tpu_custom_call" in lowered) == (platform == "tpu")


def device(capability: str, platform: str = "gpu") -> SimpleNamespace:
    """As much of a `jax.Device` as the choice looks at."""
    return SimpleNamespace(platform=platform, compute_capability=capability)


AMPERE = device("8.0")


@pytest.mark.parametrize(
    ("dtype", "key_channels", "chip", "fits"),
    [
        ("bfloat16", 64, AMPERE, True),
        ("float16", 128, device("9.0"), True),
        ("bfloat16", 8, device("12.1"), True),
        ("float32", 64, AMPERE, False),
        ("bfloat16", 60, AMPERE, False),
        ("bfloat16", 4, AMPERE, False),
        ("bfloat16", 136, AMPERE, False),
        ("bfloat16", 64, device("7.5"), False),
        ("bfloat16", 64, device("gfx942"), False),
        ("bfloat16", 64, SimpleNamespace(platform="gpu"), False),
        ("bfloat16", 64, SimpleNamespace(platform="cpu"), False),
    ],
)
def test_where_cudnn_fits(dtype: str, key_channels: int, chip, fits: bool) -> None:
    assert memory_kernels.fits_cudnn(dtype, key_channels, chip) == fits


@pytest.mark.parametrize(
    ("attention", "dtype", "key_channels", "asked"),
    [
        ("auto", "bfloat16", 8, True),
        ("fused", "bfloat16", 8, True),
        ("chunked", "bfloat16", 8, False),
        ("auto", "float32", 8, False),
        ("auto", "bfloat16", 9, False),
    ],
)
def test_a_gpu_asks_cudnn_where_it_fits(
    monkeypatch, attention: Attention, dtype: str, key_channels: int, asked: bool
) -> None:
    calls = []

    def cudnn(query, key, value, *, scale):
        calls.append(scale)
        return read_cudnn(query, key, value, scale=scale, implementation="xla")

    monkeypatch.setattr(jax, "local_devices", lambda: [AMPERE])
    monkeypatch.setattr(memory_kernels, "read_cudnn", cudnn)
    query, key, value = (jnp.ones((1, 4, key_channels), dtype) for _ in range(3))
    read = functools.partial(read_memory, scale=0.5, attention=attention, precision="default")
    np.testing.assert_allclose(jax.jit(read)(query, key, value), value)
    assert bool(calls) == asked


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_float32_scores_keep_all_digits_and_other_products_the_precision_asked_for(
    precision: MatmulPrecision,
) -> None:
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 9, 3), (1, 18, 3), (1, 18, 5))]
    read = functools.partial(read_memory, scale=1.0, attention="auto", precision=precision)
    gradients = jax.grad(lambda *inputs: read(*inputs).sum(), argnums=(0, 1, 2))
    lowered = jax.jit(gradients).trace(*shapes).lower(lowering_platforms=("tpu",)).as_text()
    products = [line for line in lowered.splitlines() if "dot_general" in line]
    scores = [line for line in products if "tensor<1x9x3xf32>, tensor<1x18x3xf32>" in line]
    assert len(scores) == 2  # forward, and again backward
    assert len(products) > len(scores)
    for line in products:
        asked = "HIGHEST" if line in scores else precision.upper()
        assert f"precision = [{asked}, {asked}]" in line
