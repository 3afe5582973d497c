"""The memory read: attention of each query position over all positions of all memory frames."""

import jax

from tmanet_jax.models.layers import MatmulPrecision
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
