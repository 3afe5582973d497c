"""Files of weights: safetensors, and PyTorch's `.pth` where torch is installed.

Both hold tensors under the original's names and in its layouts (`backbone.layer1.0.conv1.weight`,
OIHW), so that conversion between them changes nothing. Beside the tensors stand the configuration
of the network, its classes, how it was scored and where it comes from as JSON: under `tmanet_jax`,
`tmanet_jax_classes`, `tmanet_jax_protocol` and `tmanet_jax_origin` in the header of a safetensors
file, and in the `meta` of a `.pth`.
"""

import dataclasses
import io
import json
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from tmanet_jax import checkpoint_weights
from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import CAMVID, CITYSCAPES, ClassSet, numbered_classes
from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tmanet import OF_COMPUTATION, ModelConfig
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weight_names import Tensors

_CONFIG_KEY = "tmanet_jax"
_CLASSES_KEY = "tmanet_jax_classes"
_PROTOCOL_KEY = "tmanet_jax_protocol"
_ORIGIN_KEY = "tmanet_jax_origin"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Network:
    """What a file says of its network: one of the two."""

    model: ModelConfig | None = None
    backbone: ResNetConfig | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.backbone is None):
            raise ValueError("a whole model or a backbone alone is described")

    @property
    def config(self) -> ModelConfig | ResNetConfig | None:
        """The one of the two."""
        return self.model or self.backbone


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        tensors: by the original's names, in its layouts; those of a whole network, or those of a
            backbone alone, which then lack the prefix `backbone.`.
        config: of the whole network or of the backbone; None if the file does not say.
        classes: what the network tells apart; None if the file does not say.
        protocol: how the network was scored; None if the file does not say.
        origin: the training that left the tensors; None if the file does not say.
    """

    tensors: Tensors
    config: ModelConfig | ResNetConfig | None = None
    classes: ClassSet | None = None
    protocol: Protocol | None = None
    origin: Origin | None = None

    @property
    def is_whole_model(self) -> bool:
        """Whether the tensors are those of a whole network."""
        return any(name.startswith("backbone.") for name in self.tensors)


def read(path: str | os.PathLike[str]) -> WeightFile:
    """Reads a `.safetensors` or a `.pth` file, or a training's checkpoint.

    Args:
        path: of the file; or a run's workdir, of which the best checkpoint is read; or the folder
            of one of its checkpoints, `WORKDIR/checkpoints/STEP`.

    Raises:
        UserError: there is no such file, it is damaged or of another kind, it wants to run code, or
            it is a `.pth` and torch is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return WeightFile(*checkpoint_weights.read(path))
    reader = _READERS[_suffix(path)]
    if not path.is_file():
        raise UserError(f"There is no file of weights at {path}.")
    return reader(path)


def write(path: str | os.PathLike[str], file: WeightFile) -> None:
    """Writes a `.safetensors` or a `.pth` file; one that cannot be finished leaves no trace.

    Raises:
        UserError: the name ends in something else, the place cannot be written, or it is a `.pth`
            and torch is not installed.
    """
    path = Path(path)
    content = _ENCODERS[_suffix(path)](file)
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}.") from error


def _suffix(path: Path) -> str:
    if path.suffix not in _READERS:
        raise UserError(f"A file of weights ends in {' or '.join(_READERS)}; this does not: {path}")
    return path.suffix


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged: {error}.") from error
    return _described(path, tensors, metadata)


def _encode_safetensors(file: WeightFile) -> bytes:
    metadata = _description(file)
    tensors = {name: np.array(tensor, order="C") for name, tensor in file.tensors.items()}
    return safetensors.numpy.save(tensors, metadata)


def _read_pth(path: Path) -> WeightFile:
    torch = _torch()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(_refusal(path, str(error))) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    state_dict = content.get("state_dict", content)
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise UserError(f"{path} holds no tensors.")
    in_module = all(str(name).startswith("module.") for name in state_dict)
    tensors: Tensors = {}
    for name, tensor in state_dict.items():
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f"{path}: {name!r} is a {type(tensor).__name__}, not a tensor.")
        try:
            array = tensor.detach().numpy()
        except TypeError as error:
            raise UserError(f"{path}: {name!r} holds {tensor.dtype}, not float32.") from error
        tensors[name.removeprefix("module.") if in_module else name] = array
    return _described(path, tensors, meta)


def _encode_pth(file: WeightFile) -> bytes:
    torch = _torch()
    content: object = {name: torch.tensor(tensor) for name, tensor in file.tensors.items()}
    if isinstance(file.config, ModelConfig):
        content = {"meta": _meta(file, file.config), "state_dict": content}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _meta(file: WeightFile, config: ModelConfig) -> dict[str, object]:
    """The `meta` of a checkpoint; the original's `tools/test.py` needs CLASSES and PALETTE."""
    classes = file.classes or classes_of_number(config.head.num_classes)
    return {
        **_description(file),
        "CLASSES": classes.names,
        "PALETTE": [list(colour) for colour in classes.palette_Cx3],
    }


def classes_of_number(num_classes: int) -> ClassSet:
    """The published class set of that many classes, or numbered ones."""
    for classes in (CITYSCAPES, CAMVID):
        if classes.num_classes == num_classes:
            return classes
    return numbered_classes(num_classes)


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "A .pth file is PyTorch's, and needs it: pip install -r requirements-torch.txt. "
            "A .safetensors file needs nothing more."
        ) from error
    return torch


def _refusal(path: Path, reason: str) -> str:
    code = re.search(r"GLOBAL (\S+)", reason)
    if code is None:
        return f"{path} is not a file of tensors that torch wrote, or is damaged: {reason[:200]}"
    return (
        f"{path} was refused: it holds more than tensors and wants to run {code[1]} when it is "
        "opened. Ask for a file that torch.save(model.state_dict(), ...) wrote."
    )


_READERS: dict[str, Callable[[Path], WeightFile]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_pth,
}
_ENCODERS: dict[str, Callable[[WeightFile], bytes]] = {
    ".safetensors": _encode_safetensors,
    ".pth": _encode_pth,
}


def _description(file: WeightFile) -> dict[str, str]:
    """What a file says of its tensors."""
    description = {}
    if file.config is not None:
        description[_CONFIG_KEY] = _encode_config(file.config)
    if file.classes is not None:
        description[_CLASSES_KEY] = json.dumps(dataclasses.asdict(file.classes))
    if file.protocol is not None:
        description[_PROTOCOL_KEY] = json.dumps(dataclasses.asdict(file.protocol))
    if file.origin is not None:
        description[_ORIGIN_KEY] = json.dumps(dataclasses.asdict(file.origin))
    return description


def _described(path: Path, tensors: Tensors, description: Mapping[str, object]) -> WeightFile:
    network = _decode(path, description, _CONFIG_KEY, _Network)
    return WeightFile(
        tensors,
        network.config if network else None,
        _decode(path, description, _CLASSES_KEY, ClassSet),
        _decode(path, description, _PROTOCOL_KEY, Protocol),
        _decode(path, description, _ORIGIN_KEY, Origin),
    )


def _encode_config(config: ModelConfig | ResNetConfig) -> str:
    """The network, without how it was computed; but the compute type is what loading it takes."""
    fields = dataclasses.asdict(config)
    if isinstance(config, ResNetConfig):
        return json.dumps({"backbone": fields})
    for name in OF_COMPUTATION:
        if name != "dtype":
            del fields[name]
    return json.dumps({"model": fields})


def _decode(path: Path, description: Mapping[str, object], key: str, kind: type[T]) -> T | None:
    text = description.get(key)
    if text is None:
        return None
    where = f"{path}, {key} of its header"
    values = _as_described_today(strict_json.parse(str(text), where))
    return strict_json.decode(kind, values, where)


def _as_described_today(description: Any) -> Any:
    """Older files say in the head how the memory is read, and of classes that 255 is ignored."""
    match description:
        case {"model": {"head": {"attention": attention, **head}, **model}} if (
            "attention" not in model
        ):
            return {**description, "model": {**model, "head": head, "attention": attention}}
        case {"names": _, "ignore": 255, **classes}:
            return {"names": description["names"], **classes}
    return description
