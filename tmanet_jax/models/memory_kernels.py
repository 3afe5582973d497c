"""Ways to compute the memory read on one device, and the choice between them.

All take queries BxNxK, keys BxMxK and values BxMxV, and give softmax(scale * query . key) @ value,
BxNxV in the values' type, without ever holding the N x M scores. Scores, softmax and sums are at
least float32, also of 16-bit keys and values, whose products float32 holds exactly. float32 keys
are not rounded before they are multiplied: nothing scales the scores down in the published network,
so that a GPU's TF32 (11 bits) or a TPU's bfloat16 (8 bits) would change weights by whole factors.
The weights are then rounded to the values' type, and float32 values are read at the precision that
is asked for.

`read_chunked` runs anywhere; the others are kernels of one kind of chip, written and kept by
others, which this module only feeds. They cannot be told a precision, so that they are fed 16-bit
types alone.
"""

import functools
import re
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from tmanet_jax.models.layers import MatmulPrecision, at_least_float32
from tmanet_jax.parallel.sharding import by_platform

QUERY_CHUNK = 128
"""Query positions whose scores `read_chunked` holds at one time.

18,818 keys, float32, 2 cores, CPU seconds of 1024 queries, forward and backward: 512 queries 1.07,
128 queries 0.99, 64 queries 1.34.
"""

LANES = 128
"""Width of a TPU's vector registers: splash attention's blocks are multiples of it."""

QUERY_BLOCK, KEY_BLOCK, KEY_BLOCK_COMPUTE = 512, 1024, 512
"""Splash attention's largest blocks; QUERY_BLOCK x KEY_BLOCK_COMPUTE scores exist at one time."""

MASKED_SCORE = -1e30
"""Of a key that only fills a block: its weight is 0, in bfloat16 too."""

Attention = Literal["auto", "chunked", "fused"]
"""Which way reads the memory: "auto", or "fused", is the chip's own kernel where it fits."""


def read_memory(
    query_BxNxK: jax.Array,
    key_BxMxK: jax.Array,
    value_BxMxV: jax.Array,
    *,
    scale: float = 1.0,
    attention: Attention = "auto",
    precision: MatmulPrecision = "default",
) -> jax.Array:
    """Weights the memory's values by softmax(scale * query . key) over all M positions: BxNxV.

    Exact, by the way that is asked for. Of the kernels that fit it takes that of the chip which the
    program is for, be it there or not.

    Source: TMANet section 3.2; `mmseg/models/decode_heads/tma_head.py`, `MemoryModule`, where
    `scale` is 1 (`matmul_norm=False`) or K ** -0.5.
    """
    chunked = functools.partial(read_chunked, scale=scale, precision=precision)
    kernels = {
        platform: functools.partial(read, scale=scale)
        for platform, read in fitting_kernels(attention, key_BxMxK, value_BxMxV).items()
    }
    if not kernels:
        return chunked(query_BxNxK, key_BxMxK, value_BxMxV)
    return by_platform(query_BxNxK, key_BxMxK, value_BxMxV, default=chunked, **kernels)


def fitting_kernels(
    attention: Attention, key_BxMxK: jax.Array, value_BxMxV: jax.Array
) -> dict[str, Callable[..., jax.Array]]:
    """The kernels that can read such a memory, by jax's names of their platforms."""
    dtype = value_BxMxV.dtype
    kernels: dict[str, Callable[..., jax.Array]] = {}
    if attention == "chunked":
        return kernels
    if dtype == jnp.bfloat16:
        kernels["tpu"] = read_splash
    if fits_cudnn(dtype, key_BxMxK.shape[-1], jax.local_devices()[0]):
        kernels["cuda"] = read_cudnn
    return kernels


@functools.partial(jax.custom_vjp, nondiff_argnames=("scale", "precision"))
def read_chunked(
    query_BxNxK: jax.Array,
    key_BxMxK: jax.Array,
    value_BxMxV: jax.Array,
    scale: float,
    precision: MatmulPrecision = "default",
) -> jax.Array:
    """Chunks of queries, one after the other; backward, each chunk's scores are computed again.

    Source of the backward pass: Dao et al. 2022, FlashAttention (arXiv 2205.14135), appendix B.2:
    with r = gradient . output of each row, the gradient of the scores is
    weights * (gradient . value - r). Of a row's weights the largest score and the sum are kept, not
    their log-sum-exp, which rounds away digits of the weights where scores are large.
    """
    return _forward(query_BxNxK, key_BxMxK, value_BxMxV, scale, precision)[0]


def _forward(
    query_BxNxK: jax.Array,
    key_BxMxK: jax.Array,
    value_BxMxV: jax.Array,
    scale: float,
    precision: MatmulPrecision,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    def read(query_BxQxK: jax.Array) -> tuple[jax.Array, ...]:
        scores_BxQxM = _scores(query_BxQxK, key_BxMxK, scale)
        largest_BxQx1 = scores_BxQxM.max(axis=-1, keepdims=True)
        weights_BxQxM = jnp.exp(scores_BxQxM - largest_BxQx1)
        sum_BxQx1 = weights_BxQxM.sum(axis=-1, keepdims=True)
        weights_BxQxM = weights_BxQxM.astype(value_BxMxV.dtype)
        read_BxQxV = _dot("bqm,bmv->bqv", weights_BxQxM, value_BxMxV, precision)
        return (read_BxQxV / sum_BxQx1).astype(value_BxMxV.dtype), largest_BxQx1, sum_BxQx1

    n = query_BxNxK.shape[1]
    read_GxBxQxV, *of_weights_GxBxQx1 = lax.map(read, _to_chunks(query_BxNxK))
    read_BxNxV = _from_chunks(read_GxBxQxV, n)
    return read_BxNxV, (query_BxNxK, key_BxMxK, value_BxMxV, read_BxNxV, *of_weights_GxBxQx1)


def _backward(
    scale: float,
    precision: MatmulPrecision,
    saved: tuple[jax.Array, ...],
    gradient_BxNxV: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    query_BxNxK, key_BxMxK, value_BxMxV, read_BxNxV, *of_weights_GxBxQx1 = saved
    dot = functools.partial(_dot, precision=precision)

    def add(
        sums: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        query_BxQxK, gradient_BxQxV, along_BxQx1, largest_BxQx1, sum_BxQx1 = chunk
        scores_BxQxM = _scores(query_BxQxK, key_BxMxK, scale)
        weights_BxQxM = jnp.exp(scores_BxQxM - largest_BxQx1) / sum_BxQx1
        by_weight_BxQxM = dot("bqv,bmv->bqm", gradient_BxQxV, value_BxMxV)
        by_score_BxQxM = scale * weights_BxQxM * (by_weight_BxQxM - along_BxQx1)
        by_score_BxQxM = by_score_BxQxM.astype(key_BxMxK.dtype)
        by_key_BxMxK, by_value_BxMxV = sums
        by_key_BxMxK += dot("bqm,bqk->bmk", by_score_BxQxM, query_BxQxK)
        weights_BxQxM = weights_BxQxM.astype(value_BxMxV.dtype)
        by_value_BxMxV += dot("bqm,bqv->bmv", weights_BxQxM, gradient_BxQxV)
        by_query_BxQxK = dot("bqm,bmk->bqk", by_score_BxQxM, key_BxMxK)
        return (by_key_BxMxK, by_value_BxMxV), by_query_BxQxK.astype(query_BxQxK.dtype)

    along_BxNx1 = dot("bnv,bnv->bn", gradient_BxNxV, read_BxNxV)[..., None]
    zeros = (
        jnp.zeros_like(key_BxMxK, _sum_dtype(key_BxMxK)),
        jnp.zeros_like(value_BxMxV, _sum_dtype(value_BxMxV)),
    )
    chunks = (*map(_to_chunks, (query_BxNxK, gradient_BxNxV, along_BxNx1)), *of_weights_GxBxQx1)
    (by_key_BxMxK, by_value_BxMxV), by_query_GxBxQxK = lax.scan(add, zeros, chunks)
    return (
        _from_chunks(by_query_GxBxQxK, query_BxNxK.shape[1]),
        by_key_BxMxK.astype(key_BxMxK.dtype),
        by_value_BxMxV.astype(value_BxMxV.dtype),
    )


read_chunked.defvjp(_forward, _backward)


def _scores(query_BxQxK: jax.Array, key_BxMxK: jax.Array, scale: float) -> jax.Array:
    return scale * _dot("bqk,bmk->bqm", query_BxQxK, key_BxMxK, "highest")


def _dot(dimensions: str, a: jax.Array, b: jax.Array, precision: MatmulPrecision) -> jax.Array:
    """A product with sums of at least float32; 16-bit types know one precision alone."""
    return jnp.einsum(
        dimensions,
        a,
        b,
        precision=None if a.dtype.itemsize < 4 else precision,
        preferred_element_type=_sum_dtype(a),
    )


def _sum_dtype(x: jax.Array) -> DTypeLike:
    return at_least_float32(x.dtype)


def _to_chunks(x_BxNxC: jax.Array) -> jax.Array:
    """BxNxC -> GxBxQxC, G chunks of QUERY_CHUNK or fewer; the last one is filled with zeros."""
    b, n, c = x_BxNxC.shape
    chunk = min(n, QUERY_CHUNK) if isinstance(n, int) else QUERY_CHUNK  # n: of an export, a symbol
    num_chunks = -(-n // chunk)
    padded = jnp.pad(x_BxNxC, ((0, 0), (0, num_chunks * chunk - n), (0, 0)))
    return padded.reshape(b, num_chunks, chunk, c).swapaxes(0, 1)


def _from_chunks(x_GxBxQxC: jax.Array, n: int) -> jax.Array:
    g, b, chunk, c = x_GxBxQxC.shape
    return x_GxBxQxC.swapaxes(0, 1).reshape(b, g * chunk, c)[:, :n]


def _fill(x_BxNxC: jax.Array, multiple: int) -> jax.Array:
    """Zeros at the end of N, to a multiple."""
    return jnp.pad(x_BxNxC, ((0, 0), (0, -x_BxNxC.shape[1] % multiple), (0, 0)))


def read_splash(
    query_BxNxK: jax.Array,
    key_BxMxK: jax.Array,
    value_BxMxV: jax.Array,
    *,
    scale: float,
    interpret: bool = False,
) -> jax.Array:
    """Splash attention, the TPU kernel that comes with JAX; `interpret` runs it anywhere, slowly.

    N and M are filled to whole blocks, to I and J in all. A spare feature, 1 in every query and
    MASKED_SCORE in the keys that only fill, takes those keys out at no cost: K is filled to whole
    lanes anyway. The backward pass has a kernel for the query's gradient and one for the others:
    the kernel of all three keeps a partial sum of the query's gradient for each block of keys.

    The partitioner cannot split a kernel: under a mesh of several devices, call this inside
    `shard_map`.
    """
    # takes 0.3 s, which float32 need not wait for
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    n, k = query_BxNxK.shape[1:]
    m = key_BxMxK.shape[1]
    query_block = min(QUERY_BLOCK, _whole_lanes(n))
    key_block = KEY_BLOCK if m > KEY_BLOCK_COMPUTE else _whole_lanes(m)
    compute_block = min(KEY_BLOCK_COMPUTE, key_block)
    spare = ((0, 0), (0, 0), (0, _whole_lanes(k + 1) - k))
    query_BxNxF = jnp.pad((scale * query_BxNxK).astype(query_BxNxK.dtype), spare)
    query_BxIxF = _fill(query_BxNxF.at[:, :, k].set(1), query_block)
    key_BxJxF = _fill(jnp.pad(key_BxMxK, spare), key_block).at[:, m:, k].set(MASKED_SCORE)
    kernel = splash.make_splash_mqa_single_device(
        splash.MultiHeadMask([splash.FullMask((query_BxIxF.shape[1], key_BxJxF.shape[1]))]),
        block_sizes=splash.BlockSizes(
            block_q=query_block,
            block_kv=key_block,
            block_kv_compute=compute_block,
            block_q_dkv=query_block,
            block_kv_dkv=key_block,
            block_kv_dkv_compute=compute_block,
            block_q_dq=query_block,
            block_kv_dq=key_block,
        ),
        interpret=interpret,
    )
    query_BxHxIxF = query_BxIxF[:, None]  # one head
    read_BxHxIxV = jax.vmap(kernel)(query_BxHxIxF, key_BxJxF, _fill(value_BxMxV, key_block))
    return read_BxHxIxV[:, 0, :n]


def _whole_lanes(count: int) -> int:
    return -(-count // LANES) * LANES


def fits_cudnn(dtype: DTypeLike, key_channels: int, device: jax.Device) -> bool:
    """Whether `read_cudnn` can read such a memory on this device; traced elsewhere, it raises.

    Source: `check_is_flash_attention` of `jax/_src/cudnn/fused_attention_stablehlo.py`, and
    NVIDIA's table of supported chips: from Ampere (8.0) on.
    """
    capability = getattr(device, "compute_capability", None) if device.platform == "gpu" else None
    generation = re.fullmatch(r"(\d+)\.\d+", str(capability))  # ROCm's are like gfx942
    return (
        jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
        and key_channels % 8 == 0
        and key_channels <= 128
        and generation is not None
        and int(generation[1]) >= 8
    )


def read_cudnn(
    query_BxNxK: jax.Array,
    key_BxMxK: jax.Array,
    value_BxMxV: jax.Array,
    *,
    scale: float,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Flash attention of cuDNN, by way of `jax.nn.dot_product_attention`; not float32.

    It wants keys and values of one width: the values are split into heads of width K (the last one
    filled with zeros), which share queries and keys. That is exact. "xla" computes the same
    anywhere, but holds all scores.
    """
    b, m, v = value_BxMxV.shape
    k = key_BxMxK.shape[2]
    heads = -(-v // k)
    value_BxMxHxK = jnp.pad(value_BxMxV, ((0, 0), (0, 0), (0, heads * k - v)))
    value_BxMxHxK = value_BxMxHxK.reshape(b, m, heads, k)
    query_BxNxHxK, key_BxMxHxK = (
        jnp.repeat(x[:, :, None], heads, axis=2) for x in (query_BxNxK, key_BxMxK)
    )
    read_BxNxHxK = jax.nn.dot_product_attention(
        query_BxNxHxK, key_BxMxHxK, value_BxMxHxK, scale=scale, implementation=implementation
    )
    return read_BxNxHxK.reshape(b, query_BxNxK.shape[1], heads * k)[:, :, :v]
