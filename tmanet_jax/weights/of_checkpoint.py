"""The network in a checkpoint of training, to be used like one in a file of weights."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from flax.typing import PathParts

from tmanet_jax.checkpoints.arrays import Arrays
from tmanet_jax.checkpoints.damage import read_checked, steps_in
from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weights.names import Tensors, tensors_of
from tmanet_jax.weights.weight_file import WeightFile, decode_model


def read(path: Path) -> WeightFile:
    """Reads one checkpoint, without a device.

    Args:
        path: a run's workdir, of which the best checkpoint by mIoU is read (or the newest, if none
            was scored); or the folder of a checkpoint, `WORKDIR/checkpoints/STEP`.

    Raises:
        UserError: there is no checkpoint, or it is damaged.
    """
    checkpoint = _checkpoint_of(path)
    arrays, damage = read_checked(checkpoint, ("params", "batch_stats"))
    if damage is not None:
        raise UserError(f"The checkpoint {checkpoint} is damaged ({damage}): choose another step.")
    about = _object(checkpoint / "about" / "metadata")
    where = f"{checkpoint}, what it says of its network"
    step = int(checkpoint.name)
    return WeightFile(
        tensors=_tensors(arrays),
        config=decode_model(_model(checkpoint, about), where),
        classes=strict_json.decode(ClassSet, about["classes"], where) if about else None,
        protocol=strict_json.decode(Protocol, about["protocol"], where) if about else None,
        origin=Origin(step, _mean_iou(checkpoint)),
    )


def _checkpoint_of(path: Path) -> Path:
    if path.name.isdecimal() and (path / "state").is_dir():
        return path
    directory = path / "checkpoints"
    steps = steps_in(directory)
    if not steps:
        raise UserError(
            f"{path} is no file of weights, and no run's workdir: it has no finished checkpoint."
        )
    scores = {step: _mean_iou(directory / str(step)) for step in steps}
    best = max(steps, key=lambda step: (-1.0 if scores[step] is None else scores[step], step))
    return directory / str(best)


def _mean_iou(checkpoint: Path) -> float | None:
    """The score; None without one, or if it cannot be read."""
    try:
        score = _object(checkpoint / "metrics" / "metrics").get("mIoU", math.nan)
        return float(score) if math.isfinite(score) else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _model(checkpoint: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The network's fields as its dataclasses have them, with the compute type of the run."""
    dtype = about.get("config", {}).get("model.dtype")
    fields: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    for name, value in _object(checkpoint / "model" / "metadata").items():
        part, _, field = name.rpartition(".")
        (fields.setdefault(part, {}) if part else fields)[field] = value
    return fields


def _tensors(arrays: Arrays) -> Tensors:
    """Parameters and statistics by the original's names; on disk `params.head.(...).value`."""
    by_path: dict[PathParts, np.ndarray] = {
        tuple(int(part) if part.isdecimal() else part for part in name.split(".")[1:-1]): array
        for name, array in arrays.items()
    }
    return tensors_of(by_path)


def _object(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
