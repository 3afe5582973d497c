"""PyTorch's files: a state_dict in any of the wrappings that training scripts give it.

torch is imported when such a file is read or written, and reads tensors alone: code never runs.
"""

import argparse
import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy._core import multiarray

from tmanet_jax.errors import UserError
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB
from tmanet_jax.weights.names import Tensors

_WRAPPINGS = ("state_dict", "model_state_dict", "model", "net")
_EMA_WRAPPINGS = ("ema_state_dict", "state_dict_ema", "model_ema", "ema")
_EMA_PREFIX = "ema_"
_PREFIXES = re.compile(r"^((module|model|net)\.)+")
_COMPILED = "_orig_mod."
_PREPROCESSOR = "data_preprocessor."


class TorchFile(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: by the original's names.
        meta: what the training wrote beside them.
        notes: what was left out or taken, to be told.
    """

    tensors: Tensors
    meta: Mapping[Any, Any]
    notes: tuple[str, ...]


def read(path: Path, *, ema: bool = False) -> TorchFile:
    """Reads the tensors of a file.

    Args:
        path: the file.
        ema: take the moving averages that a training kept beside the weights.

    Raises:
        UserError: it is damaged, holds no tensors or no averages, wants to run code, or torch is
            not installed.
    """
    torch = _torch()
    content = _load(path, torch)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    meta = content.get("meta")
    weights, averages = _state_dicts(path, content, torch)
    notes: tuple[str, ...] = ()
    if ema:
        if not averages:
            raise UserError(f"{path} holds no moving averages (EMA): leave --ema out.")
        weights |= averages
        notes = (f"took the {len(averages)} moving averages (EMA)",)
    elif averages:
        notes = (f"left {len(averages)} moving averages (EMA) out: --ema takes them",)
    if not weights:
        raise UserError(f"{path} holds no tensors.")
    _check_preprocessor(path, weights)
    weights = {name: x for name, x in weights.items() if not name.startswith(_PREPROCESSOR)}
    return TorchFile(weights, meta if isinstance(meta, Mapping) else {}, notes)


def encode(tensors: Tensors, meta: Mapping[str, object] | None) -> bytes:
    """A file of these tensors: a checkpoint with `meta`, or without it a state_dict alone.

    Raises:
        UserError: torch is not installed.
    """
    torch = _torch()
    content: object = {name: torch.tensor(tensor) for name, tensor in tensors.items()}
    if meta is not None:
        content = {"meta": meta, "state_dict": content}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _load(path: Path, torch: ModuleType) -> object:
    try:
        _check_zip(path)
        with _plain_values(torch):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged bytes end in any type of error
        raise UserError(_refusal(path, error)) from error


def _check_zip(path: Path) -> None:
    """Compares the checksums of a zip file's parts, which torch does not.

    Raises:
        ValueError: a part is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} in it is another")


def _plain_values(torch: ModuleType) -> AbstractContextManager[None]:
    """Allows NumPy's numbers and arrays, and a command line's options, beside the tensors."""
    pickled = [
        (getattr(multiarray, name), f"numpy.{package}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for package in ("core", "_core")  # NumPy 1 and 2
    ]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["All"]}
    return torch.serialization.safe_globals(
        [*pickled, *dtypes, np.ndarray, np.dtype, argparse.Namespace]
    )


def _state_dicts(
    path: Path, content: Mapping[Any, Any], torch: ModuleType
) -> tuple[Tensors, Tensors]:
    """The weights, and the moving averages under the weights' names.

    The averages have a dictionary of their own, or lie among the weights under names of mmcv's
    EMAHook: `ema_backbone_conv1_weight` is that of `backbone.conv1.weight`.
    """
    inner = _wrapped(content, _WRAPPINGS, torch)
    ema = _wrapped(content, _EMA_WRAPPINGS, torch)
    if inner is None:
        inner = {} if ema else content.get("state_dict", content)
    weights = _named(path, inner, torch)
    averages = _named(path, ema or {}, torch)
    averages.pop("steps", None)
    beside = {f"{_EMA_PREFIX}{name.replace('.', '_')}": name for name in weights}
    averages |= {beside[name]: weights[name] for name in weights if name in beside}
    weights = {name: tensor for name, tensor in weights.items() if name not in beside}
    return weights, averages


def _wrapped(
    content: Mapping[Any, Any], keys: tuple[str, ...], torch: ModuleType
) -> Mapping[Any, Any] | None:
    """The first of these entries that holds tensors."""
    for key in keys:
        value = content.get(key)
        if isinstance(value, Mapping) and any(isinstance(x, torch.Tensor) for x in value.values()):
            return value
    return None


def _named(path: Path, state_dict: object, torch: ModuleType) -> Tensors:
    """The tensors, without the prefixes that wrapped modules give their names."""
    if not isinstance(state_dict, Mapping):
        raise UserError(f"{path} holds no tensors.")
    tensors: Tensors = {}
    for key, tensor in state_dict.items():
        if not isinstance(key, str):
            raise UserError(f"{path}: {key!r} is a {type(key).__name__}, not a tensor's name.")
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f"{path}: {key!r} is a {type(tensor).__name__}, not a tensor.")
        name = _PREFIXES.sub("", key.replace(_COMPILED, ""))
        if name in tensors:
            raise UserError(f"{path} holds {name} twice, once as {key}: which one is meant?")
        tensors[name] = _array(path, key, tensor, torch)
    return tensors


def _array(path: Path, key: str, tensor: Any, torch: ModuleType) -> np.ndarray:
    try:
        if tensor.dtype == torch.bfloat16:
            return tensor.detach().view(torch.int16).numpy().view(jnp.bfloat16)
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise UserError(
            f"{path}: {key!r} is a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}, "
            "not one of plain numbers."
        ) from error


def _check_preprocessor(path: Path, tensors: Tensors) -> None:
    """Raises UserError if the network takes its pixels normalised in another way."""
    for name, ours in (("mean", MEAN_RGB), ("std", STD_RGB)):
        theirs = tensors.get(f"{_PREPROCESSOR}{name}")
        if theirs is not None and not np.allclose(theirs.reshape(-1), ours, atol=1e-3):
            raise UserError(
                f"{path} normalises pixels by a {name} of {theirs.reshape(-1).tolist()}; networks "
                f"here take {list(ours)}."
            )


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "A .pth file is PyTorch's, and needs it: pip install -r requirements-torch.txt. "
            "A .safetensors file needs nothing more."
        ) from error
    return torch


def _refusal(path: Path, error: Exception) -> str:
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code is None or not isinstance(error, pickle.UnpicklingError):
        reason = f"{type(error).__name__}: {error}"[:200]
        return f"{path} is not a file of tensors that torch wrote, or is damaged: {reason}"
    return (
        f"{path} was refused: it holds more than tensors and wants to run {code[1]} when it is "
        "opened. Ask for a file that torch.save(model.state_dict(), ...) wrote."
    )
