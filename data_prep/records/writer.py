"""Writes clip records on all cores, shard by shard; what is whole survives whatever happens."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from data_prep.records.parallel import computed_ahead
from data_prep.records.staging import (
    StagedShard,
    Staging,
    check_clips_stay,
    check_replaceable,
    staging,
)
from tmanet_jax.data.classes import IGNORE, ClassSet
from tmanet_jax.data.codec import encode_frame, encode_labels
from tmanet_jax.data.records import (
    BUILDER_NAME,
    SCHEMA_VERSION,
    Clip,
    features,
    shard_name,
)
from tmanet_jax.data.records_info import RecordsInfo, SkippedClip, SplitInfo, check_clip_id
from tmanet_jax.errors import UserError

CLIPS_PER_SHARD = 32


class PlannedClip(Protocol):
    """A clip that is known by name; its pictures are loaded when its turn comes."""

    @property
    def id(self) -> str:
        """The clip's id."""

    @property
    def group(self) -> str:
        """The clip's group."""

    @property
    def stand_ins(self) -> int:
        """How many of its memory frames stand in for missing ones."""

    @property
    def fingerprint(self) -> str:
        """Changes when a file that the clip is made of does, or how it is made."""

    def load(self) -> Clip:
        """Loads the clip with as many memory frames as the memory range.

        Raises:
            WrongSourceError: something is wrong with more than this clip.
            UserError: this clip cannot be loaded.
        """


class WrongSourceError(UserError):
    """Something is wrong with the whole source, so that no clip of it may be skipped for it."""


@dataclass(frozen=True)
class SplitPlan:
    """A split to be written.

    Attributes:
        clips: its clips, in the order that the records will have.
        labelled: whether they have labels.
        notes: what was noticed, for the user.
    """

    clips: Sequence[PlannedClip]
    labelled: bool
    notes: Sequence[str] = ()


class Start(NamedTuple):
    """What a preparation finds of earlier ones.

    Attributes:
        clips: number of clips that need not be prepared again.
        shards: number of shards that they are in.
        outdated: number of shards of other files or options, which are removed.
    """

    clips: int
    shards: int
    outdated: int


class Written(NamedTuple):
    """What was written.

    Attributes:
        info: the description of the records.
        num_bytes: size of their shards.
    """

    info: RecordsInfo
    num_bytes: int


def write_records(
    out: str | os.PathLike[str],
    classes: ClassSet,
    memory_range: int,
    plans: Mapping[str, SplitPlan],
    on_clip_written: Callable[[], object] = lambda: None,
    *,
    frame_stride: int = 1,
    skip_unreadable: bool = False,
    replace: bool = False,
    on_start: Callable[[Start], object] = lambda start: None,
) -> Written:
    """Writes records on all cores, in place of those that were there once all are whole.

    Whole shards are kept in `out` when this ends early. The next call goes on with those, and with
    those of the records that are there, that would be written in the same way from the same files.

    Args:
        out: the data directory.
        classes: the data set's classes.
        memory_range: number of frames before the query in each clip.
        plans: the splits by name; empty splits are left out.
        on_clip_written: called after each clip, also one that is skipped.
        frame_stride: how many frames of the video lie from one memory frame to the next.
        skip_unreadable: leave out clips that cannot be loaded.
        replace: whether records of another data set, or of other options, may be replaced.
        on_start: called once, before the first clip.

    Raises:
        UserError: a clip could not be loaded, or there are none, or `out` cannot be written, or
            it holds records that may not be replaced.
    """
    out = Path(out)
    plans = {name: plan for name, plan in plans.items() if plan.clips}
    if not plans:
        raise UserError(f"There are no clips to write to {out}.")
    if not replace:
        check_replaceable(out, classes, memory_range, frame_stride, plans)
        ids = {clip.id for plan in plans.values() for clip in plan.clips}
        check_clips_stay(out, ids)
    options = [dataclasses.asdict(classes), memory_range, frame_stride]
    shards = [
        shard for name, plan in plans.items() for shard in _planned_shards(name, plan, options)
    ]
    with staging(out) as place:
        whole = _kept_shards(place, out / BUILDER_NAME, shards, skip_unreadable, on_start)
        missing = [shard for shard in shards if shard.name not in whole]
        encode = partial(
            _encode_clip, memory_range=memory_range, classes=classes, skip=skip_unreadable
        )
        clips = ((clip, shard.labelled) for shard in missing for clip in shard.clips)
        with _telling_what_is_kept(whole), computed_ahead(encode, clips) as encoded:
            for shard in missing:
                encoded_shard = itertools.islice(encoded, len(shard.clips))
                part = _write_shard(place, shard, classes, encoded_shard, on_clip_written)
                whole[shard.name] = place.add(shard.name, shard.fingerprint, part)
        by_split = {
            name: [whole[shard.name] for shard in shards if shard.split == name] for name in plans
        }
        info = RecordsInfo(classes, memory_range, frame_stride, _joined(by_split))
        _describe(place, info, by_split)
        place.replace(out / BUILDER_NAME)
    return Written(info, sum(shard.num_bytes for shard in whole.values()))


@contextlib.contextmanager
def _telling_what_is_kept(whole: Mapping[str, StagedShard]) -> Iterator[None]:
    """Adds to a UserError how many clips need not be prepared again."""
    try:
        yield
    except UserError as error:
        if not whole:
            raise
        num_clips = sum(len(shard.info.ids) for shard in whole.values())
        raise UserError(
            f"{error}\n{num_clips} clips are kept: the same command goes on from there."
        ) from error


class _PlannedShard(NamedTuple):
    name: str
    split: str
    clips: Sequence[PlannedClip]
    labelled: bool
    fingerprint: str


def _planned_shards(split: str, plan: SplitPlan, options: Sequence[object]) -> list[_PlannedShard]:
    num_shards = -(-len(plan.clips) // CLIPS_PER_SHARD)
    _check_ids(split, plan.clips)
    shards = []
    for index in range(num_shards):
        clips = plan.clips[index * CLIPS_PER_SHARD : (index + 1) * CLIPS_PER_SHARD]
        made_of = [(clip.id, clip.group, clip.stand_ins, clip.fingerprint) for clip in clips]
        content = json.dumps([SCHEMA_VERSION, options, plan.labelled, made_of])
        shards.append(
            _PlannedShard(
                name=shard_name(split, index, num_shards),
                split=split,
                clips=clips,
                labelled=plan.labelled,
                fingerprint=hashlib.sha256(content.encode()).hexdigest(),
            )
        )
    return shards


def _check_ids(split: str, clips: Sequence[PlannedClip]) -> None:
    for clip in clips:
        try:
            check_clip_id(clip.id)
        except ValueError as error:
            raise WrongSourceError(f"Split {split!r}: {error}. Rename its files.") from error
    twice = [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]
    if twice:
        raise WrongSourceError(
            f"Split {split!r} has several clips called {twice[0]}: files are named after clips, so "
            "that each needs a name of its own. Rename its frames and labels, or their video."
        )


def _kept_shards(
    place: Staging,
    finished: Path,
    shards: Sequence[_PlannedShard],
    skip_unreadable: bool,
    on_start: Callable[[Start], object],
) -> dict[str, StagedShard]:
    """The shards that need not be written again, of unfinished or finished records.

    Removes all others of unfinished records.
    """
    fingerprints = {shard.name: shard.fingerprint for shard in shards}
    found = place.shards()
    current = {
        name: shard for name, shard in found.items() if fingerprints.get(name) == shard.fingerprint
    }
    num_outdated = len(found) - len(current)
    place.keep_only(set(current))  # what is outdated or half there would be in the way of links
    current |= place.adopt(finished, {n: f for n, f in fingerprints.items() if n not in current})
    kept = {
        name: shard for name, shard in current.items() if skip_unreadable or not shard.info.skipped
    }
    place.keep_only(set(kept))
    num_clips = sum(len(shard.info.ids) + len(shard.info.skipped) for shard in kept.values())
    on_start(Start(num_clips, len(kept), num_outdated))
    return kept


class _EncodedClip(NamedTuple):
    record: bytes
    class_pixels_C: np.ndarray
    ignored_pixels: int


def _encode_clip(
    planned: tuple[PlannedClip, bool], memory_range: int, classes: ClassSet, skip: bool
) -> _EncodedClip | SkippedClip:
    clip, labelled = planned
    try:
        loaded = clip.load()
    except UserError as error:
        if skip and not isinstance(error, WrongSourceError):
            return SkippedClip(clip.id, str(error))
        raise
    assert len(loaded.frames_SxHxWx3) == memory_range + 1, clip.id
    *memory, query = map(encode_frame, loaded.frames_SxHxWx3)
    record = features().serialize_example(
        {
            "id": clip.id,
            "group": clip.group,
            "memory": memory,
            "query": query,
            "labels": encode_labels(loaded.labels_HxW) if labelled else b"",
        }
    )
    pixels_256 = np.bincount(loaded.labels_HxW.reshape(-1), minlength=256) * labelled
    return _EncodedClip(record, pixels_256[: classes.num_classes], int(pixels_256[IGNORE]))


def _write_shard(
    place: Staging,
    shard: _PlannedShard,
    classes: ClassSet,
    encoded: Iterator[_EncodedClip | SkippedClip],
    on_clip_written: Callable[[], object],
) -> SplitInfo:
    written: list[PlannedClip] = []
    skipped: list[SkippedClip] = []
    class_pixels_C = np.zeros(classes.num_classes, np.int64)
    ignored_pixels = 0
    with place.naming_errors():  # tiles of zstd need no compression by ArrayRecord
        writer = ArrayRecordWriter(str(place.partial(shard.name)), "group_size:1,uncompressed")
    for planned, clip in zip(shard.clips, encoded, strict=True):
        if isinstance(clip, SkippedClip):
            skipped.append(clip)
        else:
            with place.naming_errors():
                writer.write(clip.record)
            written.append(planned)
            class_pixels_C += clip.class_pixels_C
            ignored_pixels += clip.ignored_pixels
        on_clip_written()
    with place.naming_errors():
        writer.close()
    return SplitInfo(
        labelled=shard.labelled,
        ids=tuple(clip.id for clip in written),
        groups=tuple(clip.group for clip in written),
        stand_ins=tuple(clip.stand_ins for clip in written),
        skipped=tuple(skipped),
        class_pixels=tuple(class_pixels_C.tolist()),
        ignored_pixels=ignored_pixels,
    )


def _joined(by_split: Mapping[str, Sequence[StagedShard]]) -> Mapping[str, SplitInfo]:
    splits = {
        name: SplitInfo.joined([shard.info for shard in shards])
        for name, shards in by_split.items()
    }
    for name, split in splits.items():
        if not split.ids:
            raise UserError(
                f"None of the {len(split.skipped)} clips of split {name!r} can be read. The first: "
                f"{split.skipped[0].reason}"
            )
    return splits


def _describe(
    place: Staging, info: RecordsInfo, by_split: Mapping[str, Sequence[StagedShard]]
) -> None:
    """Writes what TFDS needs to read the records: schema, version, splits and metadata."""
    split_infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[len(shard.info.ids) for shard in shards],
            num_bytes=sum(shard.num_bytes for shard in shards),
        )
        for name, shards in by_split.items()
    ]
    with place.naming_errors():
        tfds.folder_dataset.write_metadata(
            data_dir=place.records,
            features=features(),
            split_infos=split_infos,
            version=SCHEMA_VERSION,
            check_data=False,
            description=f"Clips of {info.classes.name} for TMANet-JAX.",
            metadata=tfds.core.MetadataDict(dataclasses.asdict(info)),
            disable_shuffling=True,
        )
