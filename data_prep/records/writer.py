"""Writes frame records on all cores, shard by shard; what is whole survives whatever happens."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from data_prep.records.shards import (
    NamedFrame,
    PlannedFrame,
    PlannedShard,
    Work,
    WritesShards,
    write_in_threads,
)
from data_prep.records.staging import (
    ShardInfo,
    StagedShard,
    Staging,
    check_clips_stay,
    check_replaceable,
    staging,
)
from data_prep.source import WrongSourceError, check_size
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.clip_index import ClipIndex, check_clip_id
from tmanet_jax.data.frame_records import BUILDER_NAME, SCHEMA_VERSION, features, shard_name
from tmanet_jax.data.records_info import RecordsInfo, SkippedClip, SplitInfo
from tmanet_jax.errors import UserError

FRAMES_PER_SHARD = 128


@dataclass(frozen=True)
class SplitPlan:
    """A split to be written.

    Attributes:
        index: of its frames and clips, in the order that the records will have.
        frames: as they are in the index.
        reach: how many frames before a query memory may lie.
        labelled: whether its clips have labels.
        unusable: clips that cannot be made, for the list of those that are skipped.
        notes: what was noticed, for the user.
        of_pictures: whether each video is a single picture, which any memory is to repeat.
    """

    index: ClipIndex
    frames: Sequence[PlannedFrame]
    reach: int
    labelled: bool
    unusable: Sequence[SkippedClip] = ()
    notes: Sequence[str] = ()
    of_pictures: bool = False


class Start(NamedTuple):
    """What a preparation finds of earlier ones.

    Attributes:
        frames: number of frames that need not be prepared again.
        shards: number of shards that they are in.
        outdated: number of shards of other files or options, which are removed.
    """

    frames: int
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
    on_frame_written: Callable[[], object] = lambda: None,
    *,
    frame_stride: int = 1,
    skip_unreadable: bool = False,
    replace: bool = False,
    on_start: Callable[[Start], object] = lambda start: None,
    write_shards: WritesShards = write_in_threads,
) -> Written:
    """Writes records, in place of those that were there once all are whole.

    Whole shards are kept in `out` when this ends early. The next call goes on with those, and with
    those of the records that are there, that would be written in the same way from the same files.

    Args:
        out: the data directory.
        classes: the data set's classes.
        memory_range: number of memory frames that they are made for.
        plans: the splits by name; empty splits are left out.
        on_frame_written: called after each frame, also one that is skipped.
        frame_stride: how many frames of the video lie from one memory frame to the next.
        skip_unreadable: leave out frames that cannot be loaded, and clips that need those.
        replace: whether records of another data set, or of other options, may be replaced.
        on_start: called once, before the first frame.
        write_shards: what writes the shards: by default threads on all cores of this machine.

    Raises:
        UserError: a frame could not be loaded, or there are none, or `out` cannot be written, or
            it holds records that may not be replaced.
    """
    out = Path(out)
    plans = {name: plan for name, plan in plans.items() if plan.index.ids or plan.unusable}
    if not plans:
        raise UserError(f"There are no clips to write to {out}.")
    if not replace:
        check_replaceable(out, classes, memory_range, frame_stride, plans)
        check_clips_stay(out, {clip_id for plan in plans.values() for clip_id in plan.index.ids})
    shards = [
        shard for name, plan in plans.items() for shard in _planned_shards(name, plan, classes)
    ]
    offsets = range(memory_range * frame_stride, 0, -frame_stride)
    progress = {name: _Progress(plan, offsets, skip_unreadable) for name, plan in plans.items()}
    with staging(out) as place:
        whole = _kept_shards(place, out / BUILDER_NAME, shards, skip_unreadable, on_start)
        missing = [shard for shard in shards if shard.name not in whole]
        work = Work(place, classes.num_classes, skip_unreadable)
        with (
            _telling_what_is_kept(place),
            contextlib.closing(write_shards(work, missing, on_frame_written)) as written,
        ):
            for shard in shards:
                if shard.name not in whole:
                    whole[shard.name] = next(written)
                progress[shard.split].take(shard.first, whole[shard.name].info)
                try:
                    progress[shard.split].check(shard.first, len(shard.frames))
                except UserError:  # whole, and of no use as it is
                    place.drop(shard.name)
                    raise
        place.keep_only({*whole})  # what lost workers left half written
        by_split = {
            name: [whole[shard.name] for shard in shards if shard.split == name] for name in plans
        }
        splits = {name: progress[name].info(name, by_split[name]) for name in plans}
        info = RecordsInfo(classes, memory_range, frame_stride, splits)
        _describe(place, info, by_split)
        place.replace(out / BUILDER_NAME)
    return Written(info, sum(shard.num_bytes for shard in whole.values()))


@contextlib.contextmanager
def _telling_what_is_kept(place: Staging) -> Iterator[None]:
    """Adds to a UserError how many frames need not be prepared again."""
    try:
        yield
    except UserError as error:
        whole = place.shards().values()
        if not whole:
            raise
        num_frames = sum(len(shard.info.sizes) for shard in whole)
        raise UserError(
            f"{error}\n{num_frames} frames are kept: the same command goes on from there."
        ) from error


def _planned_shards(split: str, plan: SplitPlan, classes: ClassSet) -> list[PlannedShard]:
    _check_names(split, plan.index)
    frames = [
        NamedFrame(frame, *plan.index.frame(place)) for place, frame in enumerate(plan.frames)
    ]
    num_shards = -(-len(frames) // FRAMES_PER_SHARD)
    shards = []
    for number in range(num_shards):
        first = number * FRAMES_PER_SHARD
        of_shard = frames[first : first + FRAMES_PER_SHARD]
        made_of = [(video, number, frame.fingerprint) for frame, video, number in of_shard]
        content = json.dumps([SCHEMA_VERSION, dataclasses.asdict(classes), plan.labelled, made_of])
        fingerprint = hashlib.sha256(content.encode()).hexdigest()
        name = shard_name(split, number, num_shards)
        shards.append(PlannedShard(name, split, first, of_shard, fingerprint))
    return shards


def _check_names(split: str, index: ClipIndex) -> None:
    for clip_id in index.ids:
        try:
            check_clip_id(clip_id)
        except ValueError as error:
            raise WrongSourceError(f"Split {split!r}: {error}. Rename its files.") from error
    if max(index.numbers, default=0) >= 2**63:
        raise WrongSourceError(
            f"Split {split!r} has a frame of number {max(index.numbers)}: expected fewer digits."
        )
    twice = [name for name, count in Counter(index.ids).items() if count > 1]
    if twice:
        raise WrongSourceError(
            f"Split {split!r} has several clips called {twice[0]}: files are named after clips, so "
            "that each needs a name of its own. Rename its frames and labels, or their video."
        )


def _kept_shards(
    place: Staging,
    finished: Path,
    shards: Sequence[PlannedShard],
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
        name: shard for name, shard in current.items() if skip_unreadable or not shard.info.problems
    }
    place.keep_only(set(kept))
    num_frames = sum(len(shard.info.sizes) for shard in kept.values())
    on_start(Start(num_frames, len(kept), num_outdated))
    return kept


class _Progress:
    """What is known of the frames of a split, and so of its clips."""

    def __init__(self, plan: SplitPlan, offsets: range, skip: bool) -> None:
        self._plan = plan
        self._offsets = offsets
        self._skip = skip
        self._sizes: list[tuple[int, int] | None] = [None] * len(plan.frames)
        self._problems: dict[int, str] = {}
        self._clip_of = {query: clip for clip, query in enumerate(plan.index.queries)}

    def take(self, first: int, shard: ShardInfo) -> None:
        """Notes what became of the frames of a shard, which begins at that place."""
        self._sizes[first : first + len(shard.sizes)] = shard.sizes
        self._problems |= {first + index: text for index, text in shard.problems.items()}

    def check(self, first: int, count: int) -> None:
        """Raises UserError if a clip whose query is of these frames is to be skipped and may not.

        Its memory is of frames before, so that they are known.
        """
        for place in range(first, first + count):
            if place in self._clip_of and not self._skip:
                self._check(self._clip_of[place])

    def _check(self, clip: int) -> None:
        index, frames = self._plan.index, self._plan.frames
        query = index.queries[clip]
        if query in self._problems:
            raise UserError(self._problems[query])
        for place in index.memory(clip, self._offsets):
            if (size := self._sizes[place]) is None:
                raise UserError(self._problems[place])
            check_size(size, frames[place], self._sizes[query] or size, frames[query])

    def info(self, split: str, shards: Sequence[StagedShard]) -> SplitInfo:
        """What is known of the split when all its shards are whole.

        Raises:
            UserError: a clip is to be skipped and may not be, or all of them are.
        """
        index = self._plan.index
        clips, skipped = [], [*self._plan.unusable]
        for clip, clip_id in enumerate(index.ids):
            try:
                self._check(clip)
                clips.append(clip)
            except UserError as error:
                if not self._skip:
                    raise
                skipped.append(SkippedClip(clip_id, str(error)))
        if not clips:
            raise UserError(
                f"None of the {len(skipped)} clips of split {split!r} can be read. The first: "
                f"{skipped[0].reason}"
            )
        pixels = zip(*(shard.info.class_pixels for shard in shards), strict=True)
        return SplitInfo(
            labelled=self._plan.labelled,
            reach=self._plan.reach,
            index=index.only([size is not None for size in self._sizes], clips),
            skipped=tuple(skipped),
            class_pixels=tuple(map(sum, pixels)),
            ignored_pixels=sum(shard.info.ignored_pixels for shard in shards),
        )


def _describe(
    place: Staging, info: RecordsInfo, by_split: Mapping[str, Sequence[StagedShard]]
) -> None:
    """Writes what TFDS needs to read the records: schema, version, splits and metadata."""
    split_infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[shard.info.num_records for shard in shards],
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
            description=f"Frames of {info.classes.name} for TMANet-JAX.",
            metadata=tfds.core.MetadataDict(dataclasses.asdict(info)),
            disable_shuffling=True,
        )
