"""How a network runs in PyTorch: devices, weights, input, compilation, memory.

Needs requirements-torch.txt, as `torch_network`.
"""

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import torch
from torch import Tensor, nn

from benchmarks import torch_network
from benchmarks.harness import Side, TorchWay, host_peak_bytes, made_late
from benchmarks.torch_network import TMANet
from tmanet_jax.errors import UserError
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.weights.names import Tensors


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


def made(config: ModelConfig, tensors: Tensors, way: TorchWay) -> TMANet:
    """The network with copies of these weights, not compiled yet."""
    model = torch_network.loaded(config, tensors, torch_network.READS[way.read])
    if way.is_folded:
        torch_network.fold_batch_norm(model)
    move: Callable[..., nn.Module] = model.to  # its declared types lack the memory format
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    move(device_of_jax(), memory_format=layout)
    return model


def autocast(config: ModelConfig, way: TorchWay) -> torch.autocast:
    """In which it computes."""
    is_on = way.autocast and config.dtype == "bfloat16"
    return torch.autocast(device_of_jax().type, torch.bfloat16, is_on)


def sides(
    ways: Mapping[str, TorchWay], make: Callable[[TorchWay], Callable[[], Sequence[Any]]]
) -> dict[str, Side]:
    """What is made of each way when it is first called: one that cannot work fails alone."""
    return {
        name: Side(made_late(functools.partial(make, way)), peak_bytes)
        for name, way in ways.items()
    }


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
