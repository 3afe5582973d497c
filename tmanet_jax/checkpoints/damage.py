"""Damaged checkpoints: found by reading them whole, and set aside, never deleted.

A checkpoint takes its name only when it is written, so that a killed process leaves none that is
half there; a machine that loses power can. What is found: files that are missing, cut short,
emptied or of other types, and by their checksums arrays of which a single bit changed (earlier
versions wrote no checksums).
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tmanet_jax.checkpoints.arrays import Arrays, checksum, part_of, read_arrays
from tmanet_jax.errors import UserError
from tmanet_jax.parallel import distributed

_JSON_FILES = (
    "_CHECKPOINT_METADATA",
    "model/metadata",
    "stream/metadata",
    "state/_METADATA",
    "state/_sharding",
)
SCORE = "metrics/metrics"
EMA = "ema"
"""The part of a state that holds a moving average of its weights."""


class Damaged(NamedTuple):
    """A checkpoint that cannot be read.

    Attributes:
        step: what it was of.
        reason: what was wrong with it.
        aside: where it is now.
    """

    step: int
    reason: str
    aside: Path

    def __str__(self) -> str:
        return (
            f"The checkpoint of step {self.step} is damaged ({self.reason}): it is not used, and "
            f"kept as {self.aside}."
        )


class Newest(NamedTuple):
    """The newest whole checkpoint of a directory.

    Attributes:
        arrays: its own, by its step; empty if there is none, and in all processes but the first.
        damaged: the checkpoints that were newer and are renamed, the newest first.
    """

    arrays: Mapping[int, Arrays]
    damaged: tuple[Damaged, ...]


def set_damaged_aside(directory: Path) -> Newest:
    """Renames every checkpoint that is newer than the newest whole one, which it reads.

    Of several processes the first one looks and renames, and the others wait for it.

    Args:
        directory: of the checkpoints; not yet opened by anyone.

    Raises:
        UserError: there are checkpoints, and none is whole; all stay where they are.
    """
    newest = _set_aside(directory) if distributed.is_first() else Newest({}, ())
    distributed.wait_for_all("damaged checkpoints are set aside")
    return newest


def _set_aside(directory: Path) -> Newest:
    arrays, damaged = {}, []
    for step in steps_in(directory):
        found = read_checked(directory / str(step))
        if found.damage is None:
            arrays[step] = found.arrays
            break
        damaged.append(Damaged(step, found.damage, free_name(directory / f"{step}.damaged")))
    if damaged and not arrays:
        reasons = "; ".join(f"step {one.step}: {one.reason}" for one in damaged)
        raise UserError(
            f"None of the checkpoints in {directory} can be read ({reasons}). Choose another "
            "--workdir, or move them away, and the run begins at step 0."
        )
    for one in damaged:
        (directory / str(one.step)).rename(one.aside)
    return Newest(arrays, tuple(damaged))


def steps_in(directory: Path) -> list[int]:
    """Steps of the finished checkpoints in a directory, the newest first.

    One that is being written has a longer name.
    """
    if not directory.is_dir():
        return []
    return sorted((int(p.name) for p in directory.iterdir() if p.name.isdigit()), reverse=True)


def best_step(directory: Path) -> int | None:
    """Step of the finished checkpoint with the highest mIoU, the newest of those that are equal.

    Without scores it is the newest; None if there is no checkpoint.
    """

    def rank(step: int) -> tuple[float, int]:
        score = mean_iou(directory / str(step))
        return -1.0 if score is None else score, step

    return max(steps_in(directory), key=rank, default=None)


def mean_iou(checkpoint: Path) -> float | None:
    """The score of a checkpoint; None if it has none, or one that cannot be read."""
    try:
        score = _read_object(checkpoint / SCORE)["mIoU"]
        return float(score) if math.isfinite(score) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def has_ema(checkpoint: Path) -> bool:
    """Whether a checkpoint holds a moving average; one that cannot be read has none."""
    try:
        return EMA in map(part_of, _read_object(checkpoint / "checksums" / "metadata"))
    except (OSError, ValueError, TypeError):
        return False


class Contents(NamedTuple):
    """The arrays of a checkpoint, or what is wrong with it; then there are none."""

    arrays: Arrays
    damage: str | None = None


def read_checked(checkpoint: Path, parts: Collection[str] | None = None) -> Contents:
    """Reads every file of JSON, and the arrays of these parts of the state (None: all)."""
    try:
        for name in _JSON_FILES:
            _read_object(checkpoint / name)
        for path in (checkpoint / "state" / "array_metadatas").iterdir():
            json.loads(path.read_text())
        if (checkpoint / SCORE).exists():
            math.isfinite(_read_object(checkpoint / SCORE)["mIoU"])
        return Contents(_read_arrays(checkpoint, parts))
    except Exception as error:  # whatever torn bytes make of their reader
        return Contents({}, reason_of(error))


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    return read_checked(checkpoint).damage


def reason_of(error: Exception) -> str:
    """What a reader of torn bytes raised, in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise TypeError(f"{path.name} holds a {type(value).__name__}")
    return value


def _read_arrays(checkpoint: Path, parts: Collection[str] | None) -> Arrays:
    """Raises an Exception unless the arrays are those that were saved."""
    found = dict(read_arrays(checkpoint / "state", parts))
    described = _read_object(checkpoint / "state" / "_METADATA")["tree_metadata"]
    if len(described) < len(found):
        raise ValueError(f"_METADATA describes {len(described)} of {len(found)} arrays")
    path = checkpoint / "checksums" / "metadata"
    expected = _read_object(path) if path.exists() else {}
    changed = [
        name
        for name, value in expected.items()
        if (parts is None or part_of(name) in parts)
        and (name not in found or checksum(found[name]) != value)
    ]
    if changed:
        raise ValueError(f"{len(changed)} of its arrays changed on the disk, such as {changed[0]}")
    return found


def free_name(path: Path) -> Path:
    """The path, or with a number behind it if something is there."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
