"""Logits at the pixels, a block of columns at a time: all pixels by all classes are never there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tmanet_jax.models import layers
from tmanet_jax.parallel.sharding import by_platform, spread_rows

FLOATS_AT_A_TIME = 2**24
"""Logits of a block, on each device: 64 MiB."""

ROWS_AT_A_TIME, COLUMNS_AT_A_TIME = 16, 128
"""Of pixels whose labels a CPU finds together: their logits stay in its cache."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HalfUpsampled:
    """Logits that have the rows of the pixels, and how they get their columns.

    Attributes:
        logits_BxHxKxC: their rows are up-sampled; K columns, of windows side by side.
        matrix_WxK: from their columns to those of the pixels.
        num_windows: side by side.
    """

    logits_BxHxKxC: jax.Array
    matrix_WxK: jax.Array
    num_windows: int = field(metadata={"static": True})

    def columns(self, matrix_OxK: jax.Array) -> jax.Array:
        """The columns of some rows of the matrix, BxHxOxC."""
        return spread_rows(_product("ok,bhkc->bhoc", matrix_OxK, self.logits_BxHxKxC))

    def whole(self) -> jax.Array:
        """All columns, BxHxWxC."""
        return self.columns(self.matrix_WxK)


def half_upsampled(
    logits_BxhxwxC: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> HalfUpsampled:
    """Logits on their way to height and width `size`, as `resize_bilinear` gets them there."""
    matrices = (
        layers.interpolation_matrix(old, new, align_corners, logits_BxhxwxC.dtype)[None]
        for old, new in zip(logits_BxhxwxC.shape[1:3], size, strict=True)
    )
    return half_upsampled_windows(logits_BxhxwxC[None, None], *matrices)


def half_upsampled_windows(
    logits_IxJxBxhxwxC: jax.Array, rows_IxHxh: jax.Array, columns_JxWxw: jax.Array
) -> HalfUpsampled:
    """The sum of windows that lie on a grid, IxJ, each by the matrices of its row and column."""
    i, j, b, h, w, c = logits_IxJxBxhxwxC.shape
    logits_JxBxNxwxC = jnp.moveaxis(logits_IxJxBxhxwxC, 0, 2).reshape(j, b, i * h, w, c)
    rows_HxN = rows_IxHxh.swapaxes(0, 1).reshape(-1, i * h)
    product_BxHxJxwxC = _product("hn,jbnwc->bhjwc", rows_HxN, logits_JxBxNxwxC)
    logits_BxHxKxC = spread_rows(product_BxHxJxwxC.reshape(b, -1, j * w, c))
    matrix_WxJxw = columns_JxWxw.swapaxes(0, 1)
    return HalfUpsampled(logits_BxHxKxC, matrix_WxJxw.reshape(-1, j * w), j)


def map_columns(
    program: Callable[..., Any],
    parts: Sequence[HalfUpsampled],
    *maps_BxHxW: jax.Array,
    is_trained: bool = False,
) -> Any:
    """`program(logits, *maps)` on blocks of columns.

    Args:
        program: from the logits BxHxOxC of all parts, a list, and the maps BxHxO, to a map BxHxO
            or several, column by column independent.
        parts: of pixels of one size and with as many classes.
        *maps_BxHxW: further arguments.
        is_trained: for the gradient, the blocks are computed again instead of kept.
    """
    b, height, _, c = parts[0].logits_BxHxKxC.shape
    width = parts[0].matrix_WxK.shape[0]
    num_blocks = _num_blocks(len(parts) * b, height, width, c)
    matrices = [part.matrix_WxK for part in parts]

    def of_block(some: tuple[list[jax.Array], list[jax.Array]]) -> Any:
        logits = [part.columns(matrix) for part, matrix in zip(parts, some[0], strict=True)]
        return program(logits, *some[1])

    if num_blocks == 1:
        return of_block((matrices, list(maps_BxHxW)))
    block = -(-width // num_blocks)
    blocks = (
        [_in_blocks(matrix, 0, block) for matrix in matrices],
        [_in_blocks(map_BxHxW, 2, block) for map_BxHxW in maps_BxHxW],
    )
    mapped = lax.map(jax.checkpoint(of_block) if is_trained else of_block, blocks)
    return jax.tree.map(
        lambda map_KxBxHxO: jnp.moveaxis(map_KxBxHxO, 0, 2).reshape(b, height, -1)[:, :, :width],
        mapped,
    )


def labels_of(part: HalfUpsampled) -> jax.Array:
    """The class with the largest logit of each pixel, uint8 BxHxW, in the way of the chip."""
    return by_platform(part, cpu=labels_by_rows, default=labels_by_columns)


def labels_by_columns(part: HalfUpsampled) -> jax.Array:
    """`labels_of`, a block of columns at a time."""
    return map_columns(lambda logits: logits[0].argmax(-1).astype(jnp.uint8), [part])


def labels_by_rows(part: HalfUpsampled) -> jax.Array:
    """`labels_of`, some rows and columns at a time, class after class: on a CPU far faster."""
    b, height, _, _ = part.logits_BxHxKxC.shape
    width = len(part.matrix_WxK)
    starts_G, matrix_GxOxN = _bands_of(part)
    reach = matrix_GxOxN.shape[2]

    def of_rows(logits_BxRxCxK: jax.Array) -> jax.Array:
        logits_GxBxRxCxN = jnp.stack([_band(logits_BxRxCxK, start, reach) for start in starts_G])
        logits_BxRxCxGxO = _product("gon,gbrcn->brcgo", matrix_GxOxN, logits_GxBxRxCxN)
        largest_BxRxGxO = logits_BxRxCxGxO[:, :, 0]
        labels_BxRxGxO = jnp.zeros(largest_BxRxGxO.shape, jnp.uint8)
        for index in range(1, logits_BxRxCxGxO.shape[2]):
            logits_BxRxGxO = logits_BxRxCxGxO[:, :, index]
            is_larger = logits_BxRxGxO > largest_BxRxGxO
            labels_BxRxGxO = jnp.where(is_larger, jnp.uint8(index), labels_BxRxGxO)
            largest_BxRxGxO = jnp.maximum(logits_BxRxGxO, largest_BxRxGxO)
        return labels_BxRxGxO.reshape(*labels_BxRxGxO.shape[:2], -1)[:, :, :width]

    logits_BxHxCxK = part.logits_BxHxKxC.swapaxes(2, 3)
    labels_SxBxRxW = lax.map(of_rows, _in_blocks(logits_BxHxCxK, 1, ROWS_AT_A_TIME))
    return jnp.moveaxis(labels_SxBxRxW, 0, 1).reshape(b, -1, width)[:, :height]


def _bands_of(part: HalfUpsampled) -> tuple[jax.Array, jax.Array]:
    """The matrix in G blocks of O rows, without the columns that are zero in all rows of a block.

    Windows side by side leave the matrix whole: what a row of it adds up lies far apart.

    Returns:
        the first of the N columns of each block, and the blocks, GxOxN.
    """
    width, columns = part.matrix_WxK.shape
    if part.num_windows > 1:
        return jnp.zeros(1, int), part.matrix_WxK[None]
    matrix_GxOxK = _in_blocks(part.matrix_WxK, 0, COLUMNS_AT_A_TIME)
    starts_G = (matrix_GxOxK != 0).any(axis=1).argmax(-1)
    ends_of_two_resizings = 4
    reach = min(-(-COLUMNS_AT_A_TIME * columns // width) + ends_of_two_resizings, columns)
    matrices = [_band(*block, reach) for block in zip(matrix_GxOxK, starts_G, strict=True)]
    return starts_G, jnp.stack(matrices)


def _band(array_K: jax.Array, start: jax.Array, length: int) -> jax.Array:
    """So many columns of ...xK."""
    return lax.dynamic_slice_in_dim(array_K, start, length, axis=-1)


def _num_blocks(*shape: int) -> int:
    if not all(isinstance(length, int) for length in shape):
        return 1  # a size that an export leaves open
    devices = max(jax.sharding.get_abstract_mesh().size, 1)
    return min(-(-math.prod(shape) // (devices * FLOATS_AT_A_TIME)), shape[2])


def _in_blocks(array: jax.Array, axis: int, block: int) -> jax.Array:
    """Blocks of an axis as a new first one, the last filled up with zeros."""
    filled = [(0, 0)] * array.ndim
    filled[axis] = (0, -array.shape[axis] % block)
    array = jnp.pad(array, filled)
    split = array.reshape(*array.shape[:axis], -1, block, *array.shape[axis + 1 :])
    return jnp.moveaxis(split, axis, 0)


def _product(axes: str, matrix: jax.Array, logits: jax.Array) -> jax.Array:
    return jnp.einsum(axes, matrix, logits, precision=lax.Precision.HIGHEST)
