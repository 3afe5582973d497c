"""The memory read: attention of each query position over positions of all memory frames."""

import itertools

import jax
import jax.numpy as jnp

from tmanet_jax.models.layers import MatmulPrecision, at_least_float32
from tmanet_jax.models.memory_kernels import Attention, fitting_kernels, read_memory
from tmanet_jax.parallel.sharding import map_rows


def read_memory_of_rows(
    query_key_BxhxwxK: jax.Array,
    memory_key_BxMxK: jax.Array,
    memory_value_BxMxV: jax.Array,
    *,
    scale: float = 1.0,
    attention: Attention = "auto",
    precision: MatmulPrecision = "default",
) -> jax.Array:
    """`read_memory` for a frame of queries, BxhxwxV, each device reading for its own rows."""

    def read(
        query_key_BxhxwxK: jax.Array, memory_key_BxMxK: jax.Array, memory_value_BxMxV: jax.Array
    ) -> jax.Array:
        b, h, w, k = query_key_BxhxwxK.shape
        read_BxNxV = read_memory(
            query_key_BxhxwxK.reshape(b, h * w, k),
            memory_key_BxMxK,
            memory_value_BxMxV,
            scale=scale,
            attention=attention,
            precision=precision,
        )
        return read_BxNxV.reshape(b, h, w, -1)

    return map_rows(
        read,
        query_key_BxhxwxK,
        memory_key_BxMxK,
        memory_value_BxMxV,
        is_kernel=bool(fitting_kernels(attention, memory_key_BxMxK, memory_value_BxMxV)),
    )


def read_neighbourhood(
    query_key_BxhxwxK: jax.Array,
    memory_key_BxTxhxwxK: jax.Array,
    memory_value_BxTxhxwxV: jax.Array,
    distance: int,
    *,
    scale: float = 1.0,
) -> jax.Array:
    """Weights the values around each position by softmax(scale * query . key): BxhxwxV.

    Not the original's read, and linear in positions. Each reads up to (2 * distance + 1) ** 2
    positions of each memory frame, fewer at the borders.

    Args:
        query_key_BxhxwxK: of each position.
        memory_key_BxTxhxwxK: of those that may be read.
        memory_value_BxTxhxwxV: what is read.
        distance: rows and columns, each way.
        scale: of the scores.
    """
    _, h, w, _ = query_key_BxhxwxK.shape
    dtype = at_least_float32(memory_value_BxTxhxwxV.dtype)
    border = [(0, 0), (0, 0), (distance, distance), (distance, distance), (0, 0)]
    is_there = jnp.pad(jnp.ones((1, 1, h, w, 1), bool), border)
    key, value = (jnp.pad(x, border) for x in (memory_key_BxTxhxwxK, memory_value_BxTxhxwxV))

    def shifted(x_BxTxHxWxC: jax.Array) -> list[jax.Array]:
        corners = itertools.product(range(2 * distance + 1), repeat=2)
        return [x_BxTxHxWxC[:, :, top : top + h, left : left + w] for top, left in corners]

    query_Bx1xhxwxK = query_key_BxhxwxK[:, None].astype(dtype)
    scores_BxTxhxwxO = jnp.stack(
        [
            jnp.where(there[..., 0], scale * (query_Bx1xhxwxK * some).sum(-1), -jnp.inf)
            for some, there in zip(shifted(key), shifted(is_there), strict=True)
        ],
        axis=-1,
    )
    weights_BxTxhxwxO = jax.nn.softmax(scores_BxTxhxwxO, axis=(1, 4))
    read_BxhxwxV = sum(
        (weights_BxTxhxwxO[..., place, None] * some).sum(1)
        for place, some in enumerate(shifted(value))
    )
    return jnp.asarray(read_BxhxwxV, memory_value_BxTxhxwxV.dtype)
