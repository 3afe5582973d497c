"""A video through the PyTorch network: in the original's way, and with a memory that is kept.

The original sends all T + 1 frames of a clip through the backbone for each frame of the video and
holds the whole matrix of scores. Kept keys and values need one backbone pass a frame, so that a
comparison is one of programs and not of algorithms.
"""

import collections
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.stream import Segmented
from benchmarks.torch_peer import KeyValue, TMANet, fold_batch_norm, read_memory
from tmanet_jax.errors import UserError
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.weights.names import Tensors

QUERY_CHUNK = 512
"""Query positions whose scores the cached way holds at one time: the fastest of what was tried.

2048 queries, 4096 keys, 2 cores, CPU ms: the whole matrix 175, chunks 145,
`scaled_dot_product_attention` 187 with values split into heads, 161 with keys padded to their size.
"""


class OriginalWay:
    """The whole clip through the network for each frame of a video."""

    def __init__(self, model: TMANet, size: tuple[int, int]):
        self._model = model
        self._length = model.config.head.num_memory + 1
        example = torch.zeros(1, self._length, 3, *size)
        self._logits = compiled(model, example)
        self._clip: collections.deque[Tensor] = collections.deque(maxlen=self._length)

    def step(self, frame_HxWx3: np.ndarray) -> Segmented:
        """Segments the next frame, uint8 RGB."""
        frame_1x3xHxW = normalized(frame_HxWx3)
        self._clip.extend([frame_1x3xHxW] * (1 if self._clip else self._length))
        with torch.inference_mode():
            logits = self._logits(torch.stack(list(self._clip), dim=1))
            return _segmented(self._model, logits, frame_HxWx3.shape[:2])

    def state_bytes(self) -> int:
        """Of the frames that are kept."""
        return sum(frame.nbytes for frame in self._clip)


class Cached:
    """One backbone pass a frame; keys and values wait until their position needs them."""

    def __init__(self, model: TMANet, size: tuple[int, int]):
        self._model = model
        self._num_memory = model.config.head.num_memory
        example = torch.zeros(1, 3, *size)
        self._encode = compiled(_Encode(model), example)
        with torch.inference_mode():
            self._read = compiled(_Read(model), *self._encode(example))
        self._rings = [
            collections.deque[KeyValue](maxlen=self._num_memory - position)
            for position in range(self._num_memory)
        ]

    def step(self, frame_HxWx3: np.ndarray) -> Segmented:
        """Segments the next frame, uint8 RGB."""
        with torch.inference_mode():
            query, *newest = self._encode(normalized(frame_HxWx3))
            for ring, frame in zip(self._rings, newest, strict=True):
                if not ring:
                    ring.extend([frame] * (ring.maxlen or 0))
            logits = self._read(query, *(ring[0] for ring in self._rings))
            for ring, frame in zip(self._rings, newest, strict=True):
                ring.append(frame)
            return _segmented(self._model, logits, frame_HxWx3.shape[:2])

    def state_bytes(self) -> int:
        """Of the keys and values that are kept."""
        return sum(key.nbytes + value.nbytes for ring in self._rings for key, value in ring)


def video_sides(
    tensors: Tensors, config: ModelConfig, size: tuple[int, int]
) -> tuple[OriginalWay, Cached]:
    """The two ways of the network with these weights, for frames of this size, ready to run.

    Raises:
        UserError: JAX runs on an accelerator; both ways are made for a CPU.
    """
    if jax.default_backend() != "cpu":
        raise UserError(
            "benchmarks stream --torch compares on a CPU alone (JAX_PLATFORMS=cpu): leave "
            "--torch out."
        )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = TMANet(config)
    model.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
    fold_batch_norm(model)
    return OriginalWay(model, size), Cached(model, size)


def normalized(frame_HxWx3: np.ndarray) -> Tensor:
    """uint8 RGB -> 1x3xHxW."""
    scaled_HxWx3 = (torch.from_numpy(frame_HxWx3) - torch.tensor(MEAN_RGB)) / torch.tensor(STD_RGB)
    return scaled_HxWx3.permute(2, 0, 1)[None].contiguous()


def _segmented(model: TMANet, logits_1xCxhxw: Tensor, size: tuple[int, ...]) -> Segmented:
    full_1xCxHxW = model.full_logits(logits_1xCxhxw, (size[0], size[1]))
    labels_HxW = full_1xCxHxW[0].argmax(dim=0).to(torch.uint8).numpy()
    return Segmented(labels_HxW, logits_1xCxhxw[0].permute(1, 2, 0).numpy())


class _Encode(nn.Module):
    def __init__(self, model: TMANet):
        super().__init__()
        self.model = model.eval()

    def forward(self, frame_Bx3xHxW: Tensor) -> tuple[KeyValue, ...]:
        query, memory = self.model.encode(frame_Bx3xHxW)
        return (query, *memory)


class _Read(nn.Module):
    def __init__(self, model: TMANet):
        super().__init__()
        self.decode_head = model.decode_head.eval()

    def forward(self, query: KeyValue, *memory: KeyValue) -> Tensor:
        return self.decode_head.classify(
            KeyValue(*query),
            [KeyValue(*frame) for frame in memory],
            functools.partial(read_memory, query_chunk=QUERY_CHUNK),
        )


def compiled(module: nn.Module, *examples: object) -> Callable[..., Any]:
    """Traced, frozen, and its weights laid out for oneDNN: the fastest of PyTorch's ways on a CPU.

    Backbone, 256x512, 2 cores, CPU seconds a frame: eager with batch norm 1.85, folded 1.73, folded
    and channels last 1.67, `torch.compile` with frozen weights 1.57, this 1.48.
    """
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # the size is meant to be fixed
        traced = torch.jit.trace(module.eval(), examples, check_trace=False)
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))
