"""Fewer products, the same convolution and the same gradients; and which layers take them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType

from tmanet_jax.models import winograd
from tmanet_jax.models.layers import WINOGRAD_CHANNELS, Conv


def direct(x_NxHxWxI, kernel_3x3xIxO, dilation):
    return lax.conv_general_dilated(
        x_NxHxWxI,
        kernel_3x3xIxO,
        window_strides=(1, 1),
        padding=[(dilation, dilation)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def value_and_gradients(convolve, x, kernel, weights, dilation):
    value, pull_back = jax.vjp(lambda x, kernel: convolve(x, kernel, dilation), x, kernel)
    return value, *pull_back(weights)


@pytest.mark.parametrize(
    ("size", "dilation"), [((13, 22), 1), ((13, 22), 2), ((13, 22), 4), ((1, 16), 2)]
)
def test_it_is_the_direct_convolution(size: tuple[int, int], dilation: int) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64():
        x = jnp.asarray(rng.normal(size=(2, *size, 6)))
        kernel = jnp.asarray(rng.normal(size=(3, 3, 6, 5)))
        weights = jnp.asarray(rng.normal(size=(2, *size, 5)))
        found = value_and_gradients(winograd.conv3x3, x, kernel, weights, dilation)
        expected = value_and_gradients(direct, x, kernel, weights, dilation)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


def test_float32_loses_no_more_than_a_digit_of_the_largest_value() -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 16, 16, 64)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 64, 64)), jnp.float32)
    found, expected = winograd.conv3x3(x, kernel, 2), direct(x, kernel, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_training_goes_forward_directly_and_takes_fewer_products_for_both_gradients() -> None:
    conv = Conv(WINOGRAD_CHANNELS, WINOGRAD_CHANNELS, 3, dilation=2, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x, weights = (
        jnp.asarray(rng.normal(size=(2, 6, 7, WINOGRAD_CHANNELS)), jnp.float32) for _ in range(2)
    )

    def trained(x, kernel, dilation):
        del dilation  # the layer's own
        graphdef, state = nnx.split(conv)
        state = jax.tree.map(lambda _: kernel, state)
        return nnx.merge(graphdef, state)(x, train=True)

    arguments = (x, conv.kernel_hwio[...], weights, 2)
    found = value_and_gradients(trained, *arguments)
    expected = value_and_gradients(direct, *arguments)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    program = jax.jit(functools.partial(value_and_gradients, trained, dilation=2))
    assert program.lower(*arguments[:3]).as_text().count("stablehlo.convolution") == 1


def convolutions(channels, *, stride=1, dtype=jnp.float32, platform="cpu"):
    """How many a layer's program has: none, or one."""
    conv = Conv(channels, channels, 3, stride=stride, dtype=dtype, rngs=nnx.Rngs(0))
    x = jnp.zeros((1, 4, 4, channels))
    traced = jax.jit(lambda x: conv(x)).trace(x)
    return traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.convolution")


def test_wide_float32_layers_of_stride_1_take_fewer_products_on_a_cpu() -> None:
    wide = WINOGRAD_CHANNELS
    assert convolutions(wide) == 0
    assert convolutions(wide // 2) == 1
    assert convolutions(wide, stride=2) == 1
    assert convolutions(wide, dtype=jnp.bfloat16) == 1


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_chips_convolve_directly(platform: str) -> None:
    assert convolutions(WINOGRAD_CHANNELS, platform=platform) == 1


def test_an_image_spread_over_devices_is_convolved_directly() -> None:
    mesh = jax.sharding.AbstractMesh((1, 2), ("data", "space"), axis_types=(AxisType.Auto,) * 2)
    with jax.sharding.use_abstract_mesh(mesh):
        assert convolutions(WINOGRAD_CHANNELS) == 1
