"""The training step in PyTorch: in the original's way, and in the ways that make it faster.

One step is what the original does in one: the frames of a clip through the backbone one after the
other (query first), both heads, logits up-sampled to the labels, cross-entropy, SGD. Frames come as
uint8 and are normalised on the device, as in this project.

Source: `mmseg/models/segmentors/encoder_decoder.py`, `decode_heads/decode_head.py`; torch's SGD.
"""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.comparison import Side, host_peak_bytes
from benchmarks.torch_peer import Logits, ReadMemory, TMANet, read_memory, read_memory_fused
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.pipeline import Batch
from tmanet_jax.errors import UserError
from tmanet_jax.models.losses import LossConfig
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB
from tmanet_jax.settings import Settings
from tmanet_jax.weights.names import Tensors


class Variant(NamedTuple):
    """A way to run the same network.

    Attributes:
        read: the memory read.
        channels_last: memory format of weights and activations.
        is_compiled: by `torch.compile`, which needs a C++ compiler on a CPU.
        autocast: convolutions and products in bfloat16 if the settings ask for it.
    """

    read: ReadMemory = read_memory
    channels_last: bool = True
    is_compiled: bool = False
    autocast: bool = True


VARIANTS: Mapping[str, Variant] = {
    "torch, the original's way": Variant(channels_last=False, autocast=False),
    "torch, channels last": Variant(),
    "torch, channels last, SDPA": Variant(read=read_memory_fused),
    "torch, channels last, compiled": Variant(is_compiled=True),
    "torch, channels last, SDPA, compiled": Variant(read=read_memory_fused, is_compiled=True),
}
"""The first keeps to float32 whatever the settings ask for, as the original does."""


class TrainStep:
    """A network, its optimiser, and a step that changes both.

    Args:
        settings: network, loss and optimiser.
        tensors: the weights, by the original's names.
        variant: how to run it.
    """

    def __init__(self, settings: Settings, tensors: Tensors, variant: Variant):
        self.device = device_of_jax()
        self._align_corners = settings.model.align_corners
        self._loss = settings.loss
        self._autocast = variant.autocast and settings.model.dtype == "bfloat16"
        self._format = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.model = TMANet(settings.model, variant.read).train()
        self.model.load_state_dict({n: torch.from_numpy(t.copy()) for n, t in tensors.items()})
        place(self.model, self.device, self._format)
        forward: Callable[[Tensor], Logits] = self.model.both_logits
        self._forward = torch.compile(forward) if variant.is_compiled else forward
        schedule = settings.optimizer
        self._optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=schedule.learning_rate,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
            fused=self.device.type == "cuda" or None,
        )

    def loss(self, frames_BxSxHxWx3: Tensor, labels_BxHxW: Tensor) -> Tensor:
        """The loss of uint8 frames and labels; `backward` can begin from it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            logits = self._forward(self._normalized(frames_BxSxHxWx3))
        labels_BxHxW = labels_BxHxW.long()
        main, aux = (
            self._cross_entropy(each.float(), labels_BxHxW) for each in (logits.main, logits.aux)
        )
        return main + self._loss.aux_weight * aux

    def step(self, frames_BxSxHxWx3: Tensor, labels_BxHxW: Tensor) -> float:
        """One update; returns the loss before it, which waits for the device."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.loss(frames_BxSxHxWx3, labels_BxHxW)
        loss.backward()
        self._optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def _normalized(self, frames_BxSxHxWx3: Tensor) -> Tensor:
        mean, std = (torch.tensor(rgb, device=self.device) for rgb in (MEAN_RGB, STD_RGB))
        frames_BxSx3xHxW = ((frames_BxSxHxWx3 - mean) / std).permute(0, 1, 4, 2, 3)
        if self._format is torch.channels_last:
            return frames_BxSx3xHxW  # as it lies in memory, each frame is that already
        return frames_BxSx3xHxW.contiguous()

    def _cross_entropy(self, logits_BxCxhxw: Tensor, labels_BxHxW: Tensor) -> Tensor:
        return cross_entropy(
            logits_BxCxhxw, labels_BxHxW, self._loss, align_corners=self._align_corners
        )


def cross_entropy(
    logits_BxCxhxw: Tensor, labels_BxHxW: Tensor, config: LossConfig, *, align_corners: bool
) -> Tensor:
    """Logits up-sampled to the labels; the mean over all pixels, ignored ones counting as 0."""
    logits_BxCxHxW = functional.interpolate(
        logits_BxCxhxw, labels_BxHxW.shape[1:], mode="bilinear", align_corners=align_corners
    )
    loss_BxHxW = functional.cross_entropy(
        logits_BxCxHxW, labels_BxHxW, ignore_index=IGNORE, reduction="none"
    )
    if config.average == "all":
        return loss_BxHxW.mean()
    return loss_BxHxW.sum() / (labels_BxHxW != IGNORE).sum().clamp(min=1)


def train_sides(settings: Settings, tensors: Tensors, batch: Batch) -> dict[str, Side]:
    """Every variant with these weights; each call is one step on the batch.

    The networks are made when they are first called, so that one that cannot work fails alone.

    Raises:
        UserError: torch cannot use the device that JAX uses.
    """
    device_of_jax()
    use_all_cores()
    return {
        name: Side(_lazy_step(settings, tensors, batch, variant), peak_bytes)
        for name, variant in VARIANTS.items()
    }


def _lazy_step(
    settings: Settings, tensors: Tensors, batch: Batch, variant: Variant
) -> Callable[[], np.ndarray]:
    made: list[tuple[TrainStep, Tensor, Tensor]] = []

    def call() -> np.ndarray:
        if not made:
            step = TrainStep(settings, tensors, variant)
            frames, labels = (
                torch.from_numpy(array).to(step.device) for array in (batch.frames, batch.labels)
            )
            made.append((step, frames, labels))
        step, frames, labels = made[0]
        return np.array([step.step(frames, labels)])

    return call


def device_of_jax() -> torch.device:
    """The device of the same kind as the one that this project's side runs on.

    Raises:
        UserError: this torch cannot use it.
    """
    backend = jax.default_backend()
    if backend == "cpu":
        return torch.device("cpu")
    if backend == "gpu" and torch.cuda.is_available():
        return torch.device("cuda")
    raise UserError(
        f"--torch: JAX runs on a {backend}, this torch ({torch.__version__}) cannot. For a "
        "GPU install a torch with CUDA; or compare on the CPU (JAX_PLATFORMS=cpu)."
    )


def place(model: nn.Module, device: torch.device, layout: torch.memory_format) -> None:
    """Moves the weights there and lays them out."""
    move: Callable[..., nn.Module] = model.to  # its declared types lack the memory format
    move(device, memory_format=layout)


def use_all_cores() -> None:
    """As many threads as this process may use, and the fast kernels of a GPU."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def peak_bytes(call: Callable[[], object]) -> int | None:
    """Of the GPU, arguments included; without one what a call adds to the process's memory."""
    if device_of_jax().type == "cpu":
        return host_peak_bytes(call)
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated()
