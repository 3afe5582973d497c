"""The forward pass in PyTorch: the backbone alone and whole clips, in the ways that users have.

Batch norm is folded into the convolutions, but in the original's way.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.comparison import Side
from benchmarks.inference import PeerSides
from benchmarks.torch_peer import (
    ReadMemory,
    TMANet,
    fold_batch_norm,
    read_memory,
    read_memory_fused,
)
from benchmarks.torch_train import device_of_jax, peak_bytes, place, use_all_cores
from benchmarks.torch_video import QUERY_CHUNK, compiled
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.weights.names import Tensors


class Variant(NamedTuple):
    """A way to run the same network.

    Attributes:
        compile: from a module and an example of its input to a function.
        read: the memory read.
        is_folded: whether batch norm becomes part of the convolutions.
        channels_last: memory format of weights and activations.
        autocast: bfloat16 if the settings ask for it.
    """

    compile: Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]
    read: ReadMemory = read_memory
    is_folded: bool = True
    channels_last: bool = True
    autocast: bool = True


def _eager(module: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    del example
    return module


def _inductor(module: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """With frozen weights; needs a C++ compiler on a CPU."""
    del example
    return torch.compile(module, options={"freezing": True})


_CHUNKED = functools.partial(read_memory, query_chunk=QUERY_CHUNK)

VARIANTS: Mapping[str, Variant] = {
    "the original's way": Variant(_eager, is_folded=False, channels_last=False, autocast=False),
    "channels last, SDPA": Variant(_eager, read_memory_fused),
    "channels last, SDPA, compiled": Variant(_inductor, read_memory_fused),
}
TRACED = Variant(compiled, _CHUNKED, channels_last=False)
"""The fastest on a CPU (`torch_video.compiled`); of no use elsewhere."""


def image_sides(config: ModelConfig, tensors: Tensors, frames_BxSxHxWx3: np.ndarray) -> PeerSides:
    """Every variant with these weights, on these uint8 clips.

    The networks are made when they are first called, so that one that cannot work fails alone.

    Raises:
        UserError: torch cannot use the device that JAX uses.
    """
    use_all_cores()
    variants = dict(VARIANTS)
    if device_of_jax().type == "cpu":
        variants["traced, frozen, oneDNN"] = TRACED
    sides: tuple[dict[str, Side], dict[str, Side]] = ({}, {})
    for name, variant in variants.items():
        make = functools.partial(_Forward, config, tensors, variant, frames_BxSxHxWx3)
        for kind, of_kind in zip(("backbone", "clip"), sides, strict=True):
            of_kind[f"torch, {kind}, {name}"] = Side(
                _lazy(functools.partial(make, is_clip=kind == "clip")), peak_bytes
            )
    return PeerSides(*sides)


def _lazy(make: Callable[[], Callable[[], np.ndarray]]) -> Callable[[], np.ndarray]:
    """Made at the first call."""
    made = functools.cache(make)
    return lambda: made()()


class _Forward:
    def __init__(
        self,
        config: ModelConfig,
        tensors: Tensors,
        variant: Variant,
        frames_BxSxHxWx3: np.ndarray,
        *,
        is_clip: bool,
    ):
        device = device_of_jax()
        self._autocast = torch.autocast(
            device.type, torch.bfloat16, variant.autocast and config.dtype == "bfloat16"
        )
        model = TMANet(config, variant.read)
        model.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
        if variant.is_folded:
            fold_batch_norm(model)
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        place(model, device, layout)
        chosen = frames_BxSxHxWx3 if is_clip else frames_BxSxHxWx3[:, -1]
        self._frames = torch.from_numpy(np.ascontiguousarray(chosen)).to(device)
        self._mean, self._std = (torch.tensor(rgb, device=device) for rgb in (MEAN_RGB, STD_RGB))
        self._is_channels_last = variant.channels_last
        module = model if is_clip else _Backbone(model)
        with torch.inference_mode(), self._autocast:
            self._run = variant.compile(module, self._input())

    def _input(self) -> Tensor:
        """Normalised, channels before height and width."""
        frames = ((self._frames - self._mean) / self._std).movedim(-1, -3)
        return frames if self._is_channels_last else frames.contiguous()

    def __call__(self) -> np.ndarray:
        with torch.inference_mode(), self._autocast:
            result_NxCxhxw = self._run(self._input())
            return result_NxCxhxw.float().permute(0, 2, 3, 1).cpu().numpy()


class _Backbone(nn.Module):
    def __init__(self, model: TMANet):
        super().__init__()
        self.backbone = model.backbone

    def forward(self, frames_Bx3xHxW: Tensor) -> Tensor:
        return self.backbone(frames_Bx3xHxW).stage4
