"""Convolution, batch norm, dropout and resizing against definitions written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tmanet_jax.models.convolutions import TAP_CHANNELS, direct, sum_of_taps, trained
from tmanet_jax.models.layers import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    BatchNorm,
    Conv,
    channel_dropout,
    max_pool,
    product_of_positions,
    product_of_rows,
    resize_bilinear,
)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_1x1_equals_the_convolution_it_replaces(stride: int) -> None:
    conv = Conv(5, 7, 1, stride=stride, use_bias=True, rngs=nnx.Rngs(0))
    x = normal(2, 9, 6, 5)
    expected = jax.lax.conv_general_dilated(
        x,
        conv.kernel_hwio[...],
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(conv(x), expected, atol=1e-5)


def test_both_products_are_the_same_convolution_with_the_same_gradients() -> None:
    x_NxHxWxI, kernel_IxO, gradient_NxHxWxO = normal(2, 4, 3, 5), normal(5, 7), normal(2, 4, 3, 7)
    of_rows, from_rows = jax.vjp(product_of_rows, x_NxHxWxI, kernel_IxO)
    of_positions, from_positions = jax.vjp(product_of_positions, x_NxHxWxI, kernel_IxO)
    np.testing.assert_allclose(of_positions, of_rows, atol=1e-5)
    for found, expected in zip(
        from_positions(gradient_NxHxWxO), from_rows(gradient_NxHxWxO), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [((9, 6), 1), ((9, 6), 2), ((8, 7), 2)])
@pytest.mark.parametrize("dilation", [1, 4])
def test_a_depthwise_layer_is_its_convolution_with_its_gradients(
    size: tuple[int, int], stride: int, dilation: int
) -> None:
    def convolution(x_NxHxWxC: jax.Array, kernel_3x3x1xC: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x_NxHxWxC,
            kernel_3x3x1xC,
            (stride, stride),
            [(dilation, dilation)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=5,
        )

    def of_taps(x_NxHxWxC: jax.Array, kernel_3x3x1xC: jax.Array) -> jax.Array:
        return sum_of_taps(x_NxHxWxC, kernel_3x3x1xC, stride, dilation)

    conv = Conv(5, 5, 3, stride=stride, dilation=dilation, groups=5, rngs=nnx.Rngs(0))
    x, kernel = normal(2, *size, 5), conv.kernel_hwio[...]
    expected, pull_back = jax.vjp(convolution, x, kernel)
    found, pull_back_taps = jax.vjp(of_taps, x, kernel)
    for each in (found, conv(x)):
        np.testing.assert_allclose(each, expected, atol=1e-5)
    gradient = normal(*expected.shape, seed=1)
    for ours, theirs in zip(pull_back_taps(gradient), pull_back(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("channels", [3, TAP_CHANNELS])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"), [(3, 1, 1), (3, 1, 4), (3, 2, 1), (2, 2, 1), (7, 4, 2)]
)
def test_a_cpus_gradients_are_those_of_jax_and_in_the_order_of_axes_that_is_fast_in_a_loop(
    kernel_size: int, stride: int, dilation: int, channels: int
) -> None:
    kernel = normal(kernel_size, kernel_size, channels, channels + 1, seed=1)
    x = normal(2, 9, 6, channels)
    expected, pull_back = jax.vjp(lambda x, k: direct(x, k, stride, dilation), x, kernel)
    found, pull_back_fast = jax.vjp(lambda x, k: trained(x, k, stride, dilation, False), x, kernel)
    gradient = normal(*expected.shape, seed=2)
    np.testing.assert_array_equal(found, expected)
    for ours, theirs in zip(pull_back_fast(gradient), pull_back(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    by_products = kernel_size == 3 and channels >= TAP_CHANNELS
    program = jax.jit(pull_back_fast).lower(gradient).as_text()
    assert program.count("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]") == (1 if by_products else 2)
    assert program.count("stablehlo.dot_general") == (9 if by_products else 0)


@pytest.mark.parametrize(("size", "stride"), [((9, 6), 1), ((9, 6), 2), ((8, 7), 2)])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_conv_3x3_has_the_size_of_its_input_over_the_stride(
    size: tuple[int, int], stride: int, dilation: int
) -> None:
    conv = Conv(3, 4, 3, stride=stride, dilation=dilation, rngs=nnx.Rngs(0))
    height, width = size
    assert conv(normal(1, height, width, 3)).shape == (
        1,
        -(-height // stride),
        -(-width // stride),
        4,
    )


@pytest.mark.parametrize(
    ("chip", "train", "kernel_size", "barriers"),
    [("tpu", True, 3, 1), ("tpu", True, 1, 0), ("tpu", False, 3, 0), ("cpu", True, 3, 0)],
)
def test_what_follows_a_wide_convolution_is_computed_apart_in_training_on_a_tpu(
    chip: str, train: bool, kernel_size: int, barriers: int
) -> None:
    conv = Conv(4, 4, kernel_size, rngs=nnx.Rngs(0))
    x = normal(1, 6, 6, 4)
    program = jax.jit(lambda x: conv(x, train=train)).trace(x).lower(lowering_platforms=(chip,))
    assert program.as_text().count("optimization_barrier") == barriers


def test_conv_computes_in_its_dtype_and_keeps_float32_parameters() -> None:
    conv = Conv(3, 4, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert conv(normal(1, 8, 8, 3)).dtype == jnp.bfloat16
    assert conv.kernel_hwio[...].dtype == jnp.float32


def reference_batch_norm(
    x_BxSxHxWxC: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output, running mean and running variance of one call a slot."""
    running_mean, running_var = np.zeros(x_BxSxHxWxC.shape[-1]), np.ones(x_BxSxHxWxC.shape[-1])
    output = np.empty_like(x_BxSxHxWxC)
    for slot in range(x_BxSxHxWxC.shape[1]):
        x = x_BxSxHxWxC[:, slot]
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        output[:, slot] = (x - mean) / np.sqrt(var + BATCH_NORM_EPSILON)
        unbiased = x.var((0, 1, 2), ddof=1)
        running_mean += BATCH_NORM_MOMENTUM * (mean - running_mean)
        running_var += BATCH_NORM_MOMENTUM * (unbiased - running_var)
    return output, running_mean, running_var


def test_batch_norm_equals_a_call_for_each_slot() -> None:
    x_BxSxHxWxC = np.random.default_rng(1).normal(2.0, 3.0, (2, 3, 4, 5, 6))
    x_BxSxHxWxC *= np.array([1.0, 2.0, 3.0])[:, None, None, None]
    norm = BatchNorm(6)
    y = norm(jnp.asarray(x_BxSxHxWxC, jnp.float32).reshape(6, 4, 5, 6), train=True, slots=3)
    output, mean, var = reference_batch_norm(x_BxSxHxWxC)
    np.testing.assert_allclose(y.reshape(output.shape), output, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], var, rtol=1e-5)
    assert int(norm.num_updates[...]) == 3


def test_batch_norm_in_evaluation_uses_and_keeps_the_running_statistics() -> None:
    norm = BatchNorm(2)
    norm.mean[...] = jnp.array([1.0, 2.0])
    norm.var[...] = jnp.array([4.0, 9.0])
    x = normal(3, 2, 2, 2)
    expected = (np.asarray(x) - [1.0, 2.0]) / np.sqrt(np.array([4.0, 9.0]) + BATCH_NORM_EPSILON)
    np.testing.assert_allclose(norm(x, train=False), expected, atol=1e-6)
    assert int(norm.num_updates[...]) == 0


def test_batch_norm_takes_float32_statistics_of_bfloat16() -> None:
    norm = BatchNorm(1)
    x = jnp.full((1, 64, 64, 1), 100.5, jnp.bfloat16)
    assert norm(x, train=True).dtype == jnp.bfloat16
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.astype(jnp.float32).mean(), rtol=1e-6)


def test_dropout_drops_whole_channels_and_keeps_the_mean() -> None:
    x = jnp.ones((50, 3, 4, 40))
    y = np.asarray(channel_dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(y.min((1, 2)), y.max((1, 2)))
    assert abs(y.mean() - 1.0) < 0.05


def test_dropout_without_a_key_changes_nothing() -> None:
    x = normal(1, 2, 2, 3)
    assert channel_dropout(x, 0.5, None) is x


def test_max_pool_pads_with_less_than_anything() -> None:
    assert (np.asarray(max_pool(-jnp.ones((1, 5, 7, 1)))) == -1).all()
    assert max_pool(normal(1, 5, 7, 1)).shape == (1, 3, 4, 1)


def reference_resize(x_HxW: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Pixel by pixel from torch's definition of `interpolate(mode="bilinear")`."""

    def sources(length: int, new_length: int) -> np.ndarray:
        places = np.arange(new_length)
        if align_corners:
            return places * ((length - 1) / max(new_length - 1, 1))
        return np.maximum((places + 0.5) * length / new_length - 0.5, 0)

    rows, columns = sources(x_HxW.shape[0], size[0]), sources(x_HxW.shape[1], size[1])
    output = np.empty(size)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            top, left = int(y), int(x)
            bottom = min(top + 1, x_HxW.shape[0] - 1)
            right = min(left + 1, x_HxW.shape[1] - 1)
            above = x_HxW[top, left] * (1 - x + left) + x_HxW[top, right] * (x - left)
            below = x_HxW[bottom, left] * (1 - x + left) + x_HxW[bottom, right] * (x - left)
            output[i, j] = above * (1 - y + top) + below * (y - top)
    return output


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(11, 9), (3, 2), (5, 9), (1, 1), (40, 7)])
def test_resize_bilinear_follows_the_definition(align_corners: bool, size: tuple[int, int]) -> None:
    x = normal(1, 5, 4, 1)
    resized = resize_bilinear(x, size, align_corners=align_corners)
    expected = reference_resize(np.asarray(x)[0, :, :, 0], size, align_corners)
    np.testing.assert_allclose(resized[0, :, :, 0], expected, atol=1e-5)
