"""Compares records with what they were made of."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep.records.parallel import computed_ahead
from data_prep.records.writer import PlannedClip, SplitPlan
from tmanet_jax.data.records import ClipRecords, open_clips
from tmanet_jax.errors import UserError


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
        planned = {clip.id: clip for clip in plan.clips}
        differences += _differing_ids(opened[split], planned, plan.labelled)
        pairs += [
            _Pair(opened[split], index, planned[clip_id])
            for index, clip_id in enumerate(opened[split].ids)
            if clip_id in planned
        ]
    checksum = hashlib.sha256()
    with (
        tqdm(total=len(pairs), unit="clip", desc="Comparing", disable=None) as progress,
        computed_ahead(_compare, pairs) as compared,
    ):
        for comparison in compared:
            differences += comparison.differences
            checksum.update(comparison.checksum)
            progress.update()
    return Verification(
        clips=len(pairs),
        frames=sum(pair.records.info.memory_range + 1 for pair in pairs),
        skipped=sum(len(records.skipped) for records in opened.values()),
        checksum=checksum.hexdigest()[:16],
        differences=tuple(differences),
    )


class _Pair(NamedTuple):
    records: ClipRecords
    record: int
    clip: PlannedClip


class _Comparison(NamedTuple):
    differences: list[str]
    checksum: bytes


def _differing_ids(
    records: ClipRecords, planned: Mapping[str, PlannedClip], labelled: bool
) -> list[str]:
    where = f"Split {records.split!r} of {records.data_dir}"
    known = {*records.ids, *(clip.id for clip in records.skipped)}
    differences = [
        f"{where} has no clip {clip_id}, the source has."
        for clip_id in planned
        if clip_id not in known
    ]
    differences += [
        f"{where} has a clip {clip_id}, the source has none."
        for clip_id in records.ids
        if clip_id not in planned
    ]
    if records.labelled != labelled:
        has, lacks = ("records", "source") if records.labelled else ("source", "records")
        differences.append(f"{where}: the {has} have labels, the {lacks} have none.")
    return differences


def _compare(pair: _Pair) -> _Comparison:
    """Compares one record, decoded, with its files."""
    offsets = range(pair.records.info.memory_range, 0, -1)
    try:
        record = pair.records.read_encoded(pair.record)
        clip = record.decode(offsets)
    except UserError as error:
        return _Comparison([str(error)], b"")
    of_records = [*clip.frames_SxHxWx3, clip.labels_HxW]
    checksum = _checksum(of_records)
    where = f"Clip {clip.id} ({record.where})"
    try:
        expected = pair.clip.load()
    except UserError as error:
        return _Comparison([f"{where} cannot be compared with its source: {error}"], checksum)
    of_sources = [*expected.frames_SxHxWx3, expected.labels_HxW]
    names = [
        *(
            f"frame {offset * pair.records.info.frame_stride} before the query"
            for offset in offsets
        ),
        "query",
        "labels",
    ]
    differences = [
        f"{where}: {name}: {_difference(of_record, of_source)}"
        for name, of_record, of_source in zip(names, of_records, of_sources, strict=True)
        if not np.array_equal(of_record, of_source)
    ]
    if clip.group != expected.group:
        differences.append(
            f"{where}: group {clip.group!r} in the record, {expected.group!r} in the source."
        )
    return _Comparison(differences, checksum)


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
