"""How a network runs in PyTorch: devices, memory formats, input, compilation, memory.

Needs requirements-torch.txt, as `torch_network`.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import torch
from torch import Tensor, nn

from benchmarks.harness import host_peak_bytes
from tmanet_jax.errors import UserError
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB


def normalized(frames_HxWx3: Tensor, *, channels_last: bool = False) -> Tensor:
    """uint8 RGB frames, ...xHxWx3 -> float32, ...x3xHxW."""
    mean, std = (torch.tensor(rgb, device=frames_HxWx3.device) for rgb in (MEAN_RGB, STD_RGB))
    frames_3xHxW = ((frames_HxWx3 - mean) / std).movedim(-1, -3)
    # As it lies in memory, each frame has its channels last.
    return frames_3xHxW if channels_last else frames_3xHxW.contiguous()


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
        f"--torch: JAX runs on a {backend}, this torch ({torch.__version__}) cannot. For a GPU "
        "install a torch with CUDA; or compare on the CPU (JAX_PLATFORMS=cpu)."
    )


def place(model: nn.Module, device: torch.device, *, channels_last: bool) -> None:
    """Moves the weights there and lays them out."""
    move: Callable[..., nn.Module] = model.to  # its declared types lack the memory format
    layout = torch.channels_last if channels_last else torch.contiguous_format
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
