"""Compares records with what they were made of."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_prep.records.parallel import computed_ahead
from data_prep.records.shards import PlannedFrame
from data_prep.records.writer import SplitPlan
from tmanet_jax.data.clip_index import ClipIndex
from tmanet_jax.data.clips import damaged
from tmanet_jax.data.codec import decode_frame, decode_labels
from tmanet_jax.data.records import ClipRecords, open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.progress import with_progress


@dataclass(frozen=True)
class Verification:
    """What was compared, and what differs.

    Attributes:
        clips: number of clips compared.
        frames: number of frames in them.
        skipped: number of clips that the records leave out on purpose.
        checksum: of the pixels of all frames and labels in the records.
        differences: one message each.
    """

    clips: int
    frames: int
    skipped: int
    checksum: str
    differences: tuple[str, ...]

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped clips not compared" if self.skipped else ""
        return (
            f"{self.clips} clips, {self.frames} frames and their labels{skipped}: "
            f"{len(self.differences) or 'no'} differences. Checksum of the pixels: {self.checksum}"
        )


def verify(out: str | os.PathLike[str], plans: Mapping[str, SplitPlan]) -> Verification:
    """Decodes every record and compares it with the files it was made of; writes nothing.

    Args:
        out: the data directory.
        plans: the splits as they would be prepared; only these are compared.

    Raises:
        UserError: there are no records, or not of these splits.
    """
    opened = {split: open_clips(out, split) for split in plans}
    differences: list[str] = []
    pairs: list[_Pair] = []
    for split, plan in plans.items():
        differences += _differing_clips(opened[split], plan)
        pairs += _pairs(opened[split], plan)
    checksum = hashlib.sha256()
    with computed_ahead(_check_frame, pairs) as checked:
        for frame in with_progress(checked, "Comparing", "frame", len(pairs)):
            differences += frame.differences
            checksum.update(frame.checksum)
    return Verification(
        clips=sum(len({*opened[name].ids} & {*plan.index.ids}) for name, plan in plans.items()),
        frames=len(pairs),
        skipped=sum(len(records.skipped) for records in opened.values()),
        checksum=checksum.hexdigest()[:16],
        differences=tuple(differences),
    )


class _Pair(NamedTuple):
    records: ClipRecords
    place: int
    planned: PlannedFrame


class _Checked(NamedTuple):
    differences: list[str]
    checksum: bytes


def _differing_clips(records: ClipRecords, plan: SplitPlan) -> list[str]:
    where = f"Split {records.split!r} of {records.data_dir}"
    planned = {clip_id: clip for clip, clip_id in enumerate(plan.index.ids)}
    known = {*records.ids, *(clip.id for clip in records.skipped)}
    unusable = {clip.id: clip.reason for clip in plan.unusable}
    differences = [
        f"{where} has no clip {clip_id}, the source has."
        for clip_id in [*planned, *unusable]
        if clip_id not in known
    ]
    differences += [
        f"{where} has a clip {clip_id}, the source has none."
        for clip_id in records.ids
        if clip_id not in planned and clip_id not in unusable
    ]
    differences += [
        f"Clip {clip_id} cannot be compared with its source: {unusable[clip_id]}"
        for clip_id in records.ids
        if clip_id in unusable
    ]
    if records.labelled != plan.labelled:
        has, lacks = ("records", "source") if records.labelled else ("source", "records")
        differences.append(f"{where}: the {has} have labels, the {lacks} have none.")
    stride = records.frame_stride
    offsets = range(records.info.memory_range * stride, 0, -stride)
    for clip, clip_id in enumerate(records.ids):
        if clip_id in planned:
            found = _told_of_clip(records.index, clip, offsets)
            expected = _told_of_clip(plan.index, planned[clip_id], offsets)
            differences += [
                f"Clip {clip_id}: {of_record} in the record, {of_source} in the source."
                for of_record, of_source in zip(found, expected, strict=True)
                if of_record != of_source
            ]
    return differences


def _told_of_clip(index: ClipIndex, clip: int, offsets: range) -> tuple[str, str]:
    numbers = [index.numbers[place] for place in index.memory(clip, offsets)]
    return f"group {index.groups[clip]!r}", f"memory of the frames {numbers}"


def _pairs(records: ClipRecords, plan: SplitPlan) -> list[_Pair]:
    """The frames that are in the records and in the source."""
    place_of = {name: place for place, name in enumerate(_names(plan.index))}
    return [
        _Pair(records, place, plan.frames[place_of[name]])
        for place, name in enumerate(_names(records.index))
        if name in place_of
    ]


def _names(index: ClipIndex) -> list[tuple[str, int, bool]]:
    """Of each frame: video, number, and whether it is a query alone."""
    alone = {*index.queries_alone}
    return [(*index.frame(place), place in alone) for place in range(index.num_frames)]


def _check_frame(pair: _Pair) -> _Checked:
    """Compares one record, decoded, with its files."""
    video, number = pair.records.index.frame(pair.place)
    frames, name = pair.records.frames, f"Frame {number} of {video}"
    where = f"{name} ({frames.where(pair.place)})"
    try:
        stored = frames.read(pair.place)
        of_record = {"frame": decode_frame(stored.frame)}
        if stored.labels:
            of_record["labels"] = decode_labels(stored.labels)
    except Exception as error:  # ArrayRecord and protobuf raise whatever suits them
        return _Checked([str(damaged(frames.where(pair.place), name, error))], b"")
    checksum = _checksum(list(of_record.values()))
    try:
        of_source = {"frame": pair.planned.load()}
        labels_HxW = pair.planned.load_labels(of_source["frame"].shape[:2])
    except UserError as error:
        return _Checked([f"{where} cannot be compared with its source: {error}"], checksum)
    if labels_HxW is not None:
        of_source["labels"] = labels_HxW
    differences = [
        f"{where}: {kind}: {_difference(of_record[kind], of_source[kind])}"
        for kind in of_record.keys() & of_source.keys()
        if not np.array_equal(of_record[kind], of_source[kind])
    ]
    differences += [
        f"{where}: labels in the {'record' if kind in of_record else 'source'} alone."
        for kind in of_record.keys() ^ of_source.keys()
    ]
    return _Checked(sorted(differences), checksum)


def _checksum(pictures: Sequence[np.ndarray]) -> bytes:
    checksum = hashlib.sha256()
    for picture in pictures:
        checksum.update(repr(picture.shape).encode())
        checksum.update(np.ascontiguousarray(picture).data)
    return checksum.digest()


def _difference(of_record: np.ndarray, of_source: np.ndarray) -> str:
    if of_record.shape != of_source.shape:
        sizes = ["x".join(map(str, picture.shape[:2])) for picture in (of_record, of_source)]
        return f"{sizes[0]} pixels in the record, {sizes[1]} in the source."
    differs = of_record != of_source
    differs_HxW = differs.any(-1) if differs.ndim == 3 else differs
    row, column = np.argwhere(differs_HxW)[0]
    return (
        f"{np.count_nonzero(differs_HxW)} pixels differ, the first at row {row}, column {column}: "
        f"{of_record[row, column].tolist()} in the record, {of_source[row, column].tolist()} in "
        "the source."
    )
