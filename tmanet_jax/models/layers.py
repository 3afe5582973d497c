"""Layers the whole network is made of: convolution, per-slot batch norm, dropout, resizing.

Shape letters: N images (B x S of them, S frames a clip, batch-major), H, W, C channels.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from tmanet_jax.models import convolutions, winograd
from tmanet_jax.models.initial import full, kaiming_normal_fan_out
from tmanet_jax.parallel.sharding import by_platform, space_size

MatmulPrecision = Literal["default", "high", "highest"]
"""Of float32 products: as fast as the chip can (TF32 on NVIDIA GPUs, one bfloat16 pass on TPUs), in
between, or float32's own digits. A CPU always keeps them all."""

WINOGRAD_CHANNELS = 256
"""Channels in and out from which a CPU convolves 3x3 with fewer products.

Share of the direct way's CPU time, forward (one image of 32x64) and with both gradients (3 images
of 33x33; 6 with 512 channels): 0.78 and 0.46 with 512, 0.88 and 0.84 with 256, 0.75 and 1.06 with
128.
"""

BATCH_NORM_MOMENTUM = 0.1
BATCH_NORM_EPSILON = 1e-5


class Conv(nnx.Module):
    """2-D convolution, padded so that stride 1 keeps the size; 1x1 kernels run as a dot product.

    An odd kernel is centred; an even one begins at its position, with padding right and below.

    XLA's CPU weight gradient of a 1x1 convolution is two to three times slower than the same
    sum written as a matrix product; on GPU and TPU the two are equal. On a CPU, wide 3x3 layers of
    stride 1 run as Winograd's products (`winograd.py`): 16-bit types would lose digits in the sums.
    Training takes them for the gradients alone. Three golden steps in float32, which amplify any
    rounding, end 3.2 % from the original's loss so; 5.3 % with Winograd's products going forward.
    Depthwise 3x3 layers run there as a sum over their kernel.
    """

    precision: MatmulPrecision = "default"
    """Set by the whole network for all of its layers."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        use_bias: bool = False,
        kernel_init: nnx.Initializer = kaiming_normal_fan_out,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.dilation = dilation
        self.groups = groups
        self.kernel_size = kernel_size
        self.dtype = dtype
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        self.kernel_hwio = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(full(out_channels, 0.0)) if use_bias else None

    def __call__(self, x_NxHxWxC: jax.Array, *, train: bool = False) -> jax.Array:
        """NxHxWxC -> NxH'xW'xC' with H' = ceil(H / stride), in the compute dtype."""
        x_NxHxWxC = x_NxHxWxC.astype(self.dtype)
        kernel_hwio = self.kernel_hwio[...].astype(self.dtype)
        if self.kernel_size == 1 and self.groups == 1:
            strided = x_NxHxWxC[:, :: self.stride, :: self.stride]
            y = _pointwise(strided, kernel_hwio[0, 0], self.precision)
        else:
            direct = functools.partial(
                convolutions.direct,
                stride=self.stride,
                dilation=self.dilation,
                precision=self.precision,
                groups=self.groups,
            )
            arguments, on_cpu = (x_NxHxWxC, kernel_hwio), self._way_on_cpu(train)
            if on_cpu is None:
                y = direct(*arguments)
            else:
                y = by_platform(*arguments, cpu=on_cpu, default=direct)
            y = convolutions.kept_apart(y) if train else y
        return y if self.bias is None else y + _last(self.bias[...], y)

    def _way_on_cpu(self, train: bool) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
        """Instead of the direct way, if another pays."""
        if space_size() > 1:  # the partitioner exchanges rows for direct convolutions alone
            return None
        stride, dilation = self.stride, self.dilation
        keeps_digits = jnp.finfo(self.dtype).bits >= 32
        if keeps_digits and self.kernel_hwio.shape == (3, 3, 1, self.groups):
            return functools.partial(convolutions.sum_of_taps, stride=stride, dilation=dilation)
        fewer_products = (
            keeps_digits
            and (self.kernel_size, self.stride, self.groups) == (3, 1, 1)
            and min(self.kernel_hwio.shape[2:]) >= WINOGRAD_CHANNELS
        )
        if train and self.groups == 1:
            return functools.partial(
                convolutions.trained,
                stride=stride,
                dilation=dilation,
                fewer_products=fewer_products,
            )
        if fewer_products:
            return functools.partial(winograd.conv3x3, dilation=dilation)
        return None


class Dense(nnx.Module):
    """A product over the channels, and a bias: a 1x1 convolution whose kernel is a matrix."""

    precision: MatmulPrecision = "default"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_init: nnx.Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        shape = (in_channels, out_channels)
        self.kernel_io = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(full(out_channels, 0.0))

    def __call__(self, x_NxHxWxC: jax.Array) -> jax.Array:
        """NxHxWxC -> NxHxWxC', in the compute dtype."""
        kernel_io = self.kernel_io[...].astype(self.dtype)
        y = _pointwise(x_NxHxWxC.astype(self.dtype), kernel_io, self.precision)
        return y + _last(self.bias[...], y)


def _pointwise(
    x_NxHxWxI: jax.Array, kernel_IxO: jax.Array, precision: MatmulPrecision
) -> jax.Array:
    """1x1 convolution, NxHxWxO, as a product; which axes it is written with matters on a CPU.

    There the kernel's gradient of a product over N, H and W begins with a transposed copy of its
    operands, into which XLA fuses the batch norm's gradient, read across the rows: an eighth of a
    training step. With one axis of all positions there is no copy. A TPU's tiles do not reach
    across rows, nor does a device that has only some of them.
    """
    of_rows = functools.partial(product_of_rows, precision=precision)
    if space_size() > 1:
        return of_rows(x_NxHxWxI, kernel_IxO)
    return by_platform(x_NxHxWxI, kernel_IxO, cpu=product_of_positions, default=of_rows)


def product_of_rows(
    x_NxHxWxI: jax.Array, kernel_IxO: jax.Array, precision: MatmulPrecision = "default"
) -> jax.Array:
    """NxHxWxO; N, H and W stay axes of their own."""
    return jnp.einsum("nhwi,io->nhwo", x_NxHxWxI, kernel_IxO, precision=precision)


def product_of_positions(x_NxHxWxI: jax.Array, kernel_IxO: jax.Array) -> jax.Array:
    """The same; N, H and W are one axis."""
    y_PxO = x_NxHxWxI.reshape(-1, x_NxHxWxI.shape[-1]) @ kernel_IxO
    return y_PxO.reshape(*x_NxHxWxI.shape[:-1], -1)


def at_least_float32(dtype: DTypeLike) -> DTypeLike:
    """The type, or float32 in place of 16 bits."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def _last(x_C: jax.Array, like: jax.Array) -> jax.Array:
    """Along the last axis of an array, with as many axes and in its type."""
    return x_C.astype(like.dtype).reshape(*[1] * (like.ndim - 1), -1)


class BatchNorm(nnx.Module):
    """Batch norm whose training statistics are taken for each temporal slot by itself.

    The original sends the frames of a clip through the backbone one after the other. Here all
    slots go through in one call, and the statistics stay separate: each slot is normalised by its
    own, and the running statistics receive one update a slot, in the order of the slots. The
    running variance takes the unbiased batch variance, as torch does.
    Under `jit` with a sharded batch the statistics are those of the global batch.
    """

    def __init__(self, channels: int, *, scale_init: float = 1.0):
        self.scale = nnx.Param(full(channels, scale_init))
        self.bias = nnx.Param(full(channels, 0.0))
        self.mean = nnx.BatchStat(full(channels, 0.0))
        self.var = nnx.BatchStat(full(channels, 1.0))
        self.num_updates = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x_NxHxWxC: jax.Array, *, train: bool, slots: int = 1) -> jax.Array:
        """Normalises over N, H, W within each slot; N = B * slots, batch-major."""
        if not train:
            gain_C = self.scale[...] * lax.rsqrt(self.var[...] + BATCH_NORM_EPSILON)
            shift_C = self.bias[...] - self.mean[...] * gain_C
            y = x_NxHxWxC.astype(at_least_float32(x_NxHxWxC.dtype))
            return (y * _last(gain_C, y) + _last(shift_C, y)).astype(x_NxHxWxC.dtype)

        n, h, w, c = x_NxHxWxC.shape
        x_BxSxHxWxC = x_NxHxWxC.reshape(n // slots, slots, h, w, c)
        x_BxSxHxWxC = x_BxSxHxWxC.astype(at_least_float32(x_NxHxWxC.dtype))
        mean_SxC, var_SxC = _mean_and_variance(x_BxSxHxWxC, near_C=self.mean[...])
        self._update_running(mean_SxC, var_SxC, count=n // slots * h * w)

        gain_SxC = _last(self.scale[...], var_SxC) * lax.rsqrt(var_SxC + BATCH_NORM_EPSILON)
        shift_SxC = _last(self.bias[...], mean_SxC) - mean_SxC * gain_SxC
        y = x_BxSxHxWxC * gain_SxC[None, :, None, None] + shift_SxC[None, :, None, None]
        return y.reshape(n, h, w, c).astype(x_NxHxWxC.dtype)

    def _update_running(self, mean_SxC: jax.Array, var_SxC: jax.Array, count: int) -> None:
        unbiased_SxC = var_SxC * (count / max(count - 1, 1))
        mean_C, var_C = (x[...].astype(mean_SxC.dtype) for x in (self.mean, self.var))
        slots = mean_SxC.shape[0]
        for slot in range(slots):
            mean_C = _moved(mean_C, mean_SxC[slot])
            var_C = _moved(var_C, unbiased_SxC[slot])
        # `variable[...] = ` compares shardings, which takes a sixth of the time of tracing a step
        self.mean.set_value(lax.stop_gradient(mean_C).astype(self.mean[...].dtype))
        self.var.set_value(lax.stop_gradient(var_C).astype(self.var[...].dtype))
        self.num_updates.set_value(self.num_updates[...] + slots)


def _mean_and_variance(x_BxSxHxWxC: jax.Array, near_C: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over B, H, W in one pass over the data: each SxC.

    E[(x - near)^2] - E[x - near]^2 is exact for any `near`, and loses no digits when that is
    close to the mean, as the running mean is.
    """
    near_C = lax.stop_gradient(near_C)
    deviation_BxSxHxWxC = x_BxSxHxWxC - _last(near_C, x_BxSxHxWxC)
    mean_SxC = deviation_BxSxHxWxC.mean((0, 2, 3))
    square_SxC = lax.square(deviation_BxSxHxWxC).mean((0, 2, 3))
    return mean_SxC + _last(near_C, mean_SxC), jnp.maximum(square_SxC - lax.square(mean_SxC), 0.0)


def _moved(running_C: jax.Array, observed_C: jax.Array) -> jax.Array:
    return (1 - BATCH_NORM_MOMENTUM) * running_C + BATCH_NORM_MOMENTUM * observed_C


class ConvNorm(nnx.Module):
    """Convolution without bias, batch norm, and a ReLU unless it is switched off."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        relu: bool = True,
        scale_init: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=groups,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(out_channels, scale_init=scale_init)
        self.relu = relu

    def __call__(self, x_NxHxWxC: jax.Array, *, train: bool, slots: int = 1) -> jax.Array:
        """NxHxWxC -> NxH'xW'xC'."""
        y = self.norm(self.conv(x_NxHxWxC, train=train), train=train, slots=slots)
        return nnx.relu(y) if self.relu else y


def channel_dropout(x_NxHxWxC: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Sets whole channels of single images to zero (torch's Dropout2d); no key, no dropout."""
    if key is None or rate == 0.0:
        return x_NxHxWxC
    n, _, _, c = x_NxHxWxC.shape
    keep_Nx1x1xC = jax.random.bernoulli(key, 1.0 - rate, (n, 1, 1, c))
    return jnp.where(keep_Nx1x1xC, x_NxHxWxC / (1.0 - rate), jnp.zeros((), x_NxHxWxC.dtype))


def max_pool(x_NxHxWxC: jax.Array) -> jax.Array:
    """3x3 maximum, stride 2, padding 1: NxHxWxC -> NxceilH/2xceilW/2xC."""
    return nnx.max_pool(x_NxHxWxC, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])


def resize_bilinear(
    x_NxHxWxC: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> jax.Array:
    """Bilinear resize without antialiasing, as torch's `interpolate`: NxHxWxC -> Nx*sizexC.

    Each axis is a product with its interpolation matrix, which is exact, differentiates into the
    transposed product, and needs neither gather nor scatter.
    """
    for axis, out_size in ((1, size[0]), (2, size[1])):
        in_size = x_NxHxWxC.shape[axis]
        if in_size == out_size:
            continue
        matrix_OxI = interpolation_matrix(in_size, out_size, align_corners, x_NxHxWxC.dtype)
        product = "oi,niwc->nowc" if axis == 1 else "oi,nhic->nhoc"
        x_NxHxWxC = jnp.einsum(product, matrix_OxI, x_NxHxWxC, precision=lax.Precision.HIGHEST)
    return x_NxHxWxC


def interpolation_matrix(
    in_size: int, out_size: int, align_corners: bool, dtype: DTypeLike
) -> jax.Array:
    """What `resize_bilinear` multiplies an axis by, out_size x in_size."""
    float_dtype = at_least_float32(dtype)
    out_O = jnp.arange(out_size, dtype=float_dtype)
    if align_corners:
        scale = (in_size - 1) / (out_size - 1) if out_size > 1 else 0.0
        source_O = out_O * scale
    else:
        source_O = jnp.maximum((out_O + 0.5) * (in_size / out_size) - 0.5, 0.0)
    lower_O = jnp.minimum(jnp.floor(source_O).astype(jnp.int32), in_size - 1)
    upper_O = jnp.minimum(lower_O + 1, in_size - 1)
    fraction_Ox1 = (source_O - lower_O.astype(float_dtype))[:, None]
    matrix_OxI = (1 - fraction_Ox1) * jax.nn.one_hot(lower_O, in_size, dtype=float_dtype)
    matrix_OxI += fraction_Ox1 * jax.nn.one_hot(upper_O, in_size, dtype=float_dtype)
    return matrix_OxI.astype(dtype)
