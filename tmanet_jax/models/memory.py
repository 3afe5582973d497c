"""The memory read: attention of each query position over all positions of all memory frames."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from tmanet_jax.sharding import map_rows

QUERY_CHUNK = 512
"""Query positions whose scores exist at one time."""


def read_memory_of_rows(
    query_key_BxhxwxK: jax.Array,
    memory_key_BxMxK: jax.Array,
    memory_value_BxMxV: jax.Array,
    *,
    scale: float = 1.0,
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
        )
        return read_BxNxV.reshape(b, h, w, -1)

    return map_rows(read, query_key_BxhxwxK, memory_key_BxMxK, memory_value_BxMxV)


def read_memory(
    query_key_BxNxK: jax.Array,
    memory_key_BxMxK: jax.Array,
    memory_value_BxMxV: jax.Array,
    *,
    scale: float = 1.0,
) -> jax.Array:
    """Weights the memory's values by softmax(scale * query . key) over all M positions: BxNxV.

    Exact, but the N x M score matrix is never held: chunks of queries run one after the other,
    and the backward pass computes each chunk's scores again.

    Source: TMANet section 3.2; `mmseg/models/decode_heads/tma_head.py`, `MemoryModule`, where
    `scale` is 1 (`matmul_norm=False`) or K ** -0.5. The scores and their softmax are float32 also
    when keys and values are bfloat16.
    """
    b, n, k = query_key_BxNxK.shape
    read = functools.partial(
        _read_chunk,
        memory_key_BxMxK=memory_key_BxMxK,
        memory_value_BxMxV=memory_value_BxMxV,
        scale=scale,
    )
    if n <= QUERY_CHUNK:
        return read(query_key_BxNxK)
    num_chunks = -(-n // QUERY_CHUNK)
    padding = num_chunks * QUERY_CHUNK - n
    padded = jnp.pad(query_key_BxNxK, ((0, 0), (0, padding), (0, 0)))
    chunks_GxBxQxK = padded.reshape(b, num_chunks, QUERY_CHUNK, k).swapaxes(0, 1)
    read_GxBxQxV = lax.map(jax.checkpoint(read), chunks_GxBxQxK)
    return read_GxBxQxV.swapaxes(0, 1).reshape(b, num_chunks * QUERY_CHUNK, -1)[:, :n]


def _read_chunk(
    query_key_BxQxK: jax.Array,
    memory_key_BxMxK: jax.Array,
    memory_value_BxMxV: jax.Array,
    scale: float,
) -> jax.Array:
    score_dtype = jnp.promote_types(query_key_BxQxK.dtype, jnp.float32)
    scores_BxQxM = scale * jnp.einsum(
        "bqk,bmk->bqm", query_key_BxQxK, memory_key_BxMxK, preferred_element_type=score_dtype
    )
    weights_BxQxM = jax.nn.softmax(scores_BxQxM, axis=-1).astype(memory_value_BxMxV.dtype)
    return jnp.einsum("bqm,bmv->bqv", weights_BxQxM, memory_value_BxMxV)
