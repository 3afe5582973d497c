"""Files of weights: safetensors, and PyTorch's files where torch is installed.

Both hold tensors under the original's names and in its layouts (`backbone.layer1.0.conv1.weight`,
OIHW), so that conversion between them changes nothing, and what the file says of them
(`weight_file.py`). A header of safetensors also holds a checksum of every tensor.
"""

import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax.typing import PathParts

from tmanet_jax.checkpoints.arrays import Arrays
from tmanet_jax.checkpoints.damage import EMA, best_step, has_ema, mean_iou, read_checked
from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import CAMVID, CITYSCAPES, ClassSet, numbered_classes
from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weights import hub, original_config, torch_files
from tmanet_jax.weights.names import Tensors, as_expected, tensors_of
from tmanet_jax.weights.weight_file import (
    WeightFile,
    decode_entry,
    decode_model,
    described,
    description_of,
)

_CHECKSUMS_KEY = "tmanet_jax_checksums"

_SAFETENSORS = ".safetensors"
_TORCH = (".pth", ".pt", ".ckpt", ".pth.tar")

_STRANGERS = {
    b"version https://git-lfs": "a Git-LFS pointer, not the file: run `git lfs pull` there",
    b"<": "a web page, not the file: download it again, from the link of the file itself",
    b"{": "JSON, likely an answer of the server instead of the file: download it again",
}
"""How a file begins that was saved under the name of another one."""


@dataclasses.dataclass(frozen=True)
class _Checksums:
    """What a file says of its tensors' content, by their names."""

    sha256: Mapping[str, str]


def read(path: str | os.PathLike[str], *, ema: bool = False) -> WeightFile:
    """Reads a file of weights; floating-point tensors come as float32, update counts as int64.

    Args:
        path: `.safetensors`, or `.pth`, `.pt`, `.ckpt`, `.pth.tar` where torch is installed; or a
            run's workdir, of which the best checkpoint is read; or the folder of one of its
            checkpoints, `WORKDIR/checkpoints/STEP`; or a folder that was published, or its address
            on the hub, `hf://OWNER/NAME@REVISION`.
        ema: take the moving averages that a training kept beside the weights.

    Raises:
        UserError: there is no such file, it is damaged or of another kind, it wants to run code, or
            it is PyTorch's and torch is not installed.
    """
    path = hub.fetched(path)
    _check_name(path)
    try:
        if (path / hub.WEIGHTS).is_file():
            path /= hub.WEIGHTS
        is_of_torch = not (path.is_dir() or _is_safetensors(path))
        if ema and not is_of_torch:
            raise UserError(f"{path} holds no moving averages (EMA): leave --ema out.")
        if path.is_dir():
            return _read_checkpoint(path)
        with path.open("rb") as stream:
            _check_begin(path, stream.read(64).lstrip().lower())
        return _read_torch(path, ema=ema) if is_of_torch else _read_safetensors(path)
    except (OSError, MemoryError) as error:
        raise _unreadable(path, error) from error


def check_there(path: str | os.PathLike[str]) -> None:
    """Raises UserError if there is nothing at the path or address; the file is not read."""
    path = hub.fetched(path)
    _check_name(path)
    try:
        path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error


def write(path: str | os.PathLike[str], file: WeightFile) -> None:
    """Writes a file of weights, equal bytes for equal content; an unfinished one leaves no trace.

    Raises:
        UserError: the name ends in something else, the place cannot be written, or it is PyTorch's
            and torch is not installed.
    """
    path = Path(path)
    _check_name(path)
    content = _encode_safetensors(file) if _is_safetensors(path) else _encode_torch(file)
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}.") from error


def content_digest(tensors: Tensors) -> str:
    """SHA-256 of the tensors' names, shapes, types and values, whatever file they come from."""
    sums = sorted(_checksums(tensors).items())
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def classes_of_number(num_classes: int) -> ClassSet:
    """The published class set of that many classes, or numbered ones."""
    for classes in (CITYSCAPES, CAMVID):
        if classes.num_classes == num_classes:
            return classes
    return numbered_classes(num_classes)


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UserError(f"There is no file of weights at {path}.")
    return UserError(f"{path} cannot be read: {error}.")


def _check_name(path: Path) -> None:
    """Raises UserError if no file can have the name."""
    if "\0" in str(path) or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise UserError(f"No file of weights can have the name {str(path)[:80]!r}...")


def _is_safetensors(path: Path) -> bool:
    """Raises UserError if the name is that of neither kind."""
    name = str(path)
    if name.lower().endswith((_SAFETENSORS, *_TORCH)):
        return name.lower().endswith(_SAFETENSORS)
    kinds = ", ".join(_TORCH)
    raise UserError(
        f"A file of weights ends in {_SAFETENSORS} or {kinds}; this does not: {name[:255]}"
    )


def _check_begin(path: Path, begin: bytes) -> None:
    if not begin:
        raise UserError(f"{path} is empty.")
    for stranger, what in _STRANGERS.items():
        if begin.startswith(stranger):
            raise UserError(f"{path} is {what}.")


def _read_checkpoint(path: Path) -> WeightFile:
    """Reads one without a device: that of the folder, or of a workdir the best."""
    checkpoint = _checkpoint_of(path)
    parts = (EMA,) if has_ema(checkpoint) else ("params", "batch_stats")
    arrays, damage = read_checked(checkpoint, parts)
    if damage is not None:
        raise UserError(f"The checkpoint {checkpoint} is damaged ({damage}): choose another step.")
    about = _object(checkpoint / "about" / "metadata")
    where = f"{checkpoint}, what it says of its network"
    return WeightFile(
        tensors=_tensors(arrays),
        config=decode_model(_model_fields(checkpoint, about), where),
        classes=strict_json.decode(ClassSet, about["classes"], where) if about else None,
        protocol=strict_json.decode(Protocol, about["protocol"], where) if about else None,
        origin=Origin(int(checkpoint.name), mean_iou(checkpoint)),
        path=str(path),
    )


def _checkpoint_of(path: Path) -> Path:
    if path.name.isdecimal() and (path / "state").is_dir():
        return path
    best = best_step(path / "checkpoints")
    if best is None:
        raise UserError(
            f"{path} is no file of weights, and no run's workdir: it has no finished checkpoint."
        )
    return path / "checkpoints" / str(best)


def _model_fields(checkpoint: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The network's fields as its dataclasses have them, with the compute type of the run."""
    dtype = about.get("config", {}).get("model.dtype")
    fields: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    for name, value in _object(checkpoint / "model" / "metadata").items():
        part, _, field = name.rpartition(".")
        (fields.setdefault(part, {}) if part else fields)[field] = value
    return fields


def _tensors(arrays: Arrays) -> Tensors:
    """Parameters and statistics by the original's names; on disk `params.head.(...).value`.

    Those of a moving average are `ema.params.head.(...).value`.
    """
    by_path: dict[PathParts, np.ndarray] = {
        tuple(
            int(part) if part.isdecimal() else part
            for part in name.removeprefix(f"{EMA}.").split(".")[1:-1]
        ): array
        for name, array in arrays.items()
    }
    return tensors_of(by_path)


def _object(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, TypeError) as error:
        raise UserError(
            f"{path} is not a safetensors file, or is damaged: {error!s:.200}."
        ) from error
    _check_content(path, tensors, decode_entry(metadata, _CHECKSUMS_KEY, _Checksums, str(path)))
    converted, notes = as_expected(tensors)
    return described(converted, metadata, str(path), notes)


def _check_content(path: Path, tensors: Tensors, written: _Checksums | None) -> None:
    if written is None:
        return
    read = _checksums(tensors)
    changed = [
        name for name in {**written.sha256, **read} if written.sha256.get(name) != read.get(name)
    ]
    if changed:
        raise UserError(
            f"{path} is damaged: {len(changed)} of {len(read)} tensors are not what was written, "
            f"such as {changed[0]}. Take another copy."
        )


def _checksums(tensors: Tensors) -> dict[str, str]:
    return {name: _checksum(tensor) for name, tensor in tensors.items()}


def _checksum(tensor: np.ndarray) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tensor.shape}".encode())
    digest.update(tensor.tobytes())
    return digest.hexdigest()[:32]


def _encode_safetensors(file: WeightFile) -> bytes:
    tensors = {name: np.array(tensor, order="C") for name, tensor in file.tensors.items()}
    metadata = description_of(file)
    metadata[_CHECKSUMS_KEY] = json.dumps({"sha256": _checksums(tensors)})
    return _in_order(safetensors.numpy.save(tensors, metadata))


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata sorted by name; the library writes it in random order."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _read_torch(path: Path, *, ema: bool) -> WeightFile:
    found = torch_files.read(path, ema=ema)
    tensors, notes = as_expected(found.tensors)
    file = described(tensors, found.meta, str(path), (*found.notes, *notes))
    return file if file.config is not None else _with_original_meta(file, found.meta)


def _with_original_meta(file: WeightFile, meta: Mapping[Any, Any]) -> WeightFile:
    """The file with what the original's train.py wrote into its meta."""
    original, notes = None, list(file.notes)
    if meta.get("config") is not None:
        try:
            original = original_config.parse(meta["config"])
        except UserError as error:
            notes.append(str(error))
    classes = original_config.classes_of(meta)
    num_classes = len(file.tensors.get("decode_head.conv_seg.bias", ()))
    if classes is not None and num_classes and classes.num_classes != num_classes:
        notes.append(
            f"its CLASSES name {classes.num_classes} of {num_classes} classes, and are not taken"
        )
        classes = None
    return dataclasses.replace(file, original=original, classes=classes, notes=tuple(notes))


def _encode_torch(file: WeightFile) -> bytes:
    meta = _meta(file, file.config) if isinstance(file.config, ModelConfig) else None
    return torch_files.encode(file.tensors, meta)


def _meta(file: WeightFile, config: ModelConfig) -> dict[str, object]:
    """The `meta` of a checkpoint; the original's `tools/test.py` needs CLASSES and PALETTE."""
    classes = file.classes or classes_of_number(config.head.num_classes)
    return {
        **description_of(file),
        "CLASSES": classes.names,
        "PALETTE": [list(colour) for colour in classes.palette_Cx3],
    }
