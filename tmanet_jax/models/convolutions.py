"""Ways to convolve, of which a layer chooses by its chip: NxHxWxI, kernel HWIO -> NxH'xW'xO.

All pad with zeros so that H' = ceil(H / stride).
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax

from tmanet_jax.models import winograd
from tmanet_jax.parallel.sharding import by_platform

TAP_CHANNELS = 128
"""From as many on, nine products take half of the time of a convolution for a kernel's gradient."""


def direct(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    dilation: int,
    precision: lax.PrecisionLike = None,
    groups: int = 1,
    axes: tuple[str, str, str] = ("NHWC", "HWIO", "NHWC"),
) -> jax.Array:
    """XLA's own convolution; `axes` names those of the image, the kernel and the output."""
    kernel_size = kernel.shape[axes[1].index("H")]
    reach = dilation * (kernel_size - 1)
    before = reach // 2 if kernel_size % 2 else 0
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(before, reach - before)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=axes,
        feature_group_count=groups,
        precision=precision,
    )


def kept_apart(y: jax.Array) -> jax.Array:
    """The output of a convolution, which a TPU's compiler does not compute with what follows.

    It cuts the few images of a chip into strips, eight along the width, and takes what follows a
    convolution to the strips, too: a batch norm's float32 steps go to main memory there, one by
    one. A step of Cityscapes moved half as many bytes again so (docs/performance.md).
    """
    return by_platform(y, tpu=lax.optimization_barrier, default=lambda y: y)


def sum_of_taps(
    x_NxHxWxC: jax.Array, kernel_3x3x1xC: jax.Array, stride: int, dilation: int
) -> jax.Array:
    """Depthwise 3x3 convolution, NxH'xW'xC, as a sum over the positions of its kernel.

    On a CPU, XLA's convolution of groups takes 10 to 36 times as much of its time forward, and 6 to
    16 times with both gradients (four images of 48x96 and 16 channels to 12x24 and 336).
    """
    taps = _by_tap(x_NxHxWxC, stride, dilation)
    kernels_1x1x1xC = kernel_3x3x1xC.reshape(9, 1, 1, 1, -1)
    return functools.reduce(operator.add, map(operator.mul, taps, kernels_1x1x1xC))


def _by_tap(x_NxHxWxC: jax.Array, stride: int, dilation: int) -> list[jax.Array]:
    """What each of the nine positions of a 3x3 kernel reads, row by row: nine of NxH'xW'xC."""
    n, height, width, c = x_NxHxWxC.shape
    edge = (dilation, dilation)
    padded = jnp.pad(x_NxHxWxC, ((0, 0), edge, edge, (0, 0)))
    rows, columns = -(-height // stride), -(-width // stride)

    def tap(i: int, j: int) -> jax.Array:
        top, left = i * dilation, j * dilation
        end = (n, top + (rows - 1) * stride + 1, left + (columns - 1) * stride + 1, c)
        return lax.slice(padded, (0, top, left, 0), end, (1, stride, stride, 1))

    return [tap(i, j) for i in range(3) for j in range(3)]


@functools.partial(jax.custom_vjp, nondiff_argnames=("stride", "dilation", "fewer_products"))
def trained(
    x_NxHxWxI: jax.Array,
    kernel_hwio: jax.Array,
    stride: int,
    dilation: int,
    fewer_products: bool,
) -> jax.Array:
    """The direct way forward, and gradients that a CPU computes fast within a loop, too.

    XLA's CPU compiler gives a library those convolutions alone whose axes are NHWC, HWIO -> NHWC.
    It brings others to that order, but not within a loop (`accumulate`), where jax's own gradients
    take 7 to 60 times as long.

    Args:
        x_NxHxWxI: image.
        kernel_hwio: kernel.
        stride: of the output.
        dilation: of the kernel.
        fewer_products: whether the gradients take Winograd's products: 3x3, stride 1.
    """
    return direct(x_NxHxWxI, kernel_hwio, stride, dilation)


def _gradients(
    stride: int,
    dilation: int,
    fewer_products: bool,
    arguments: tuple[jax.Array, jax.Array],
    gradient_NxhxwxO: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    if fewer_products:
        return winograd.gradients(dilation, arguments, gradient_NxhxwxO)
    x_NxHxWxI, kernel_hwio = arguments
    convolve = functools.partial(direct, stride=stride, dilation=dilation)
    kernel_hwoi = kernel_hwio.swapaxes(2, 3)
    (by_x_NxHxWxI,) = jax.linear_transpose(
        lambda x: convolve(x, kernel_hwoi, axes=("NHWC", "HWOI", "NHWC")), x_NxHxWxI
    )(gradient_NxhxwxO)
    if kernel_hwio.shape[:2] == (3, 3) and min(kernel_hwio.shape[2:]) >= TAP_CHANNELS:
        return by_x_NxHxWxI, _kernel_gradient_by_tap(x_NxHxWxI, gradient_NxhxwxO, stride, dilation)
    x_IxHxWxN = x_NxHxWxI.swapaxes(0, 3)
    (by_kernel_ihwo,) = jax.linear_transpose(
        lambda kernel: convolve(x_IxHxWxN, kernel, axes=("CHWN", "IHWO", "HWNC")),
        kernel_hwio.transpose(2, 0, 1, 3),
    )(gradient_NxhxwxO.transpose(1, 2, 0, 3))
    return by_x_NxHxWxI, by_kernel_ihwo.transpose(1, 2, 0, 3)


def _kernel_gradient_by_tap(
    x_NxHxWxI: jax.Array, gradient_NxhxwxO: jax.Array, stride: int, dilation: int
) -> jax.Array:
    """3x3xIxO: a product for each position of the kernel."""
    gradient_PxO = gradient_NxhxwxO.reshape(-1, gradient_NxhxwxO.shape[-1])
    taps_PxI = [tap.reshape(-1, tap.shape[-1]) for tap in _by_tap(x_NxHxWxI, stride, dilation)]
    gradients_9xIxO = jnp.stack([tap_PxI.T @ gradient_PxO for tap_PxI in taps_PxI])
    return gradients_9xIxO.reshape(3, 3, *gradients_9xIxO.shape[1:])


trained.defvjp(
    lambda x, kernel, stride, dilation, _: (direct(x, kernel, stride, dilation), (x, kernel)),
    _gradients,
)
