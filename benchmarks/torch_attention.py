"""The memory read in PyTorch: all scores at once, chunks of queries, its own fused attention."""

import functools
import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from benchmarks.attention import PEER_WHOLE, Case, Inputs, MakeSide, ReadSide

QUERY_CHUNK = 512
"""Query positions whose scores the chunked way holds at one time."""

Read = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def read_whole(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """As the original: the whole matrix of scores."""
    return torch.softmax(scale * (query @ key.transpose(1, 2)), dim=-1) @ value


def read_chunks(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Chunks of queries; with gradients each one's scores are computed again."""
    return torch.cat(
        [
            checkpoint(read_whole, chunk, key, value, scale, use_reentrant=False)
            for chunk in query.split(QUERY_CHUNK, dim=1)
        ],
        dim=1,
    )


def read_fused(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """`scaled_dot_product_attention`, values split into heads of the keys' width, all at once."""
    k, v = key.shape[2], value.shape[2]
    heads = -(-v // k)
    value = functional.pad(value, (0, heads * k - v)).unflatten(2, (heads, k)).transpose(1, 2)
    query, key = (x[:, None].expand(-1, heads, -1, -1) for x in (query, key))
    read = functional.scaled_dot_product_attention(query, key, value, scale=scale)
    return read.transpose(1, 2).flatten(2)[..., :v]


def _side(read: Read, case: Case, inputs: Inputs) -> ReadSide:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, case.dtype)
    query, key, value, gradient = (torch.from_numpy(x).to(device, dtype) for x in inputs)

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return _numpy(read(query, key, value, case.scale))

    def both() -> tuple[np.ndarray, ...]:
        q, k, v = (x.detach().requires_grad_() for x in (query, key, value))
        result = read(q, k, v, case.scale)
        gradients = torch.autograd.grad(result, (q, k, v), gradient)
        return tuple(map(_numpy, (result.detach(), *gradients)))

    return ReadSide(forward, both)


def _numpy(x: Tensor) -> np.ndarray:
    """float32, on the host: the work is done."""
    return x.float().cpu().numpy()


PEERS: dict[str, MakeSide] = {
    PEER_WHOLE: functools.partial(_side, read_whole),
    "peer, chunks": functools.partial(_side, read_chunks),
    "peer, scaled_dot_product_attention": functools.partial(_side, read_fused),
}
"""By name."""
