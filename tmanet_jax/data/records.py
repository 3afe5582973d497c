"""Clip records: their schema, and how they are read.

A record holds one annotated frame (the query), the R frames before it, and the labels, encoded by
`codec`. R is the *memory range*: a network with T <= R memory frames reads any T of them. Records
lie in ArrayRecord files that a TFDS builder (`data_prep.records.writer`) describes:

    DATA_DIR/clip_records/2.0.0/clip_records-train.array_record-00000-of-00093
                                dataset_info.json  features.json  metadata.json
"""

import bisect
import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.codec import (
    DAMAGE,
    Buffer,
    Size,
    decode_labels,
    decode_window,
    frame_size,
    labels_size,
)
from tmanet_jax.data.examples import parse_example
from tmanet_jax.data.records_info import (
    RecordsInfo,
    SkippedClip,
    label_doubts,
    making_command,
)
from tmanet_jax.errors import UserError

BUILDER_NAME = "clip_records"
SCHEMA_VERSION = "2.0.0"


def features() -> tfds.features.FeaturesDict:
    """The fields of a record."""
    encoded = tfds.features.Tensor(shape=(), dtype=np.object_)
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "group": tfds.features.Text(),
            "memory": tfds.features.Sequence(encoded),
            "query": encoded,
            "labels": encoded,
        }
    )


def shard_name(split: str, index: int, num_shards: int) -> str:
    """The file name of a shard of a split."""
    return f"{BUILDER_NAME}-{split}.array_record-{index:05d}-of-{num_shards:05d}"


@dataclass(frozen=True)
class Clip:
    """One annotated frame with the frames before it.

    Attributes:
        id: the query frame's name, e.g. 'aachen_000000_000019'.
        group: '' or the part of the data set that it is scored with, e.g. 'degraded'.
        frames_SxHxWx3: uint8 RGB in the order of time: memory frames, oldest first; query last.
        labels_HxW: uint8 train ids of the query frame, 255 where ignored (everywhere, if the split
            has no labels).
    """

    id: str
    group: str
    frames_SxHxWx3: np.ndarray
    labels_HxW: np.ndarray


@dataclass(frozen=True)
class EncodedClip:
    """A record as it was read, nothing decoded yet.

    Attributes:
        id: the clip's id.
        group: the clip's group.
        memory: the encoded memory frames, oldest first.
        query: the encoded query frame.
        labels: the encoded labels; empty if the split has none.
        num_classes: how many there are.
        where: data directory, shard and index, for messages.
    """

    id: str
    group: str
    memory: tuple[Buffer, ...]
    query: Buffer
    labels: Buffer
    num_classes: int
    where: str

    @property
    def size(self) -> Size:
        """The query frame's size."""
        with self._naming_damage():
            return frame_size(self.query)

    def decode_labels(self) -> np.ndarray:
        """The query's labels: uint8 HxW, 255 everywhere if the split has none."""
        if not self.labels:
            return np.full(self.size, IGNORE, np.uint8)
        with self._naming_damage():
            labels_HxW = decode_labels(self.labels)
            if (labels_HxW + np.uint8(1)).max() > self.num_classes:  # of 255 it is 0
                raise ValueError(f"its labels are not all of the {self.num_classes} classes")
            return labels_HxW

    def decode_window(
        self, offset: int, top: int, left: int, height: int, width: int
    ) -> np.ndarray:
        """Decodes a window of one frame, and only the tiles it touches.

        Args:
            offset: how many frames before the query the frame lies; 0: the query itself.
            top: the window's first row.
            left: the window's first column.
            height: the window's height.
            width: the window's width.

        Returns:
            uint8 height x width x 3.

        Raises:
            UserError: the frame is damaged.
        """
        frame = self.memory[len(self.memory) - offset] if offset else self.query
        with self._naming_damage():
            return decode_window(frame, top, left, height, width)

    def decode(self, memory_offsets: Sequence[int]) -> Clip:
        """Decodes whole frames and labels.

        Args:
            memory_offsets: how many frames before the query each memory frame lies, oldest first.

        Raises:
            UserError: the record is damaged.
        """
        frames_SxHxWx3 = np.stack(
            [self.decode_window(offset, 0, 0, *self.size) for offset in (*memory_offsets, 0)]
        )
        return Clip(self.id, self.group, frames_SxHxWx3, self.decode_labels())

    @contextlib.contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise _damaged(self.where, self.id, error) from error


class ClipRecords:
    """The clips of one split. Made by `open_clips`; picklable, so that workers can be spawned."""

    def __init__(self, data_dir: Path, split: str, info: RecordsInfo, data_source: Any) -> None:
        self.data_dir = data_dir
        self.split = split
        self.info = info
        self._split_info = info.splits[split]
        self._data_source = data_source

    def __len__(self) -> int:
        return len(self._split_info.ids)

    def __reduce__(self) -> tuple[Callable[..., "ClipRecords"], tuple[Path, str]]:
        return open_clips, (self.data_dir, self.split)

    @property
    def labelled(self) -> bool:
        """Whether the clips have labels."""
        return self._split_info.labelled

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all clips, without reading them."""
        return self._split_info.ids

    @property
    def skipped(self) -> tuple[SkippedClip, ...]:
        """The clips that could not be read when the records were made, and are not in them."""
        return self._split_info.skipped

    @property
    def class_pixels(self) -> tuple[int, ...]:
        """How many pixels each class has in all clips together, without reading them."""
        return self._split_info.class_pixels

    def label_doubts(self, *, trains: bool) -> list[str]:
        """See `records_info.label_doubts`; a rendered street lacks classes on purpose."""
        trains &= not self.info.is_rendered
        return label_doubts(self.split, self._split_info, self.info.classes, trains=trains)

    def fingerprint(self) -> str:
        """Tells apart what the split held at different times; no shard is read."""
        shards = self._data_source.dataset_info.splits[self.split].filepaths
        facts = (
            self.ids,
            self.info.classes.names,
            self.class_pixels,
            self._split_info.ignored_pixels,
            self.info.frame_stride,
            [os.path.getsize(path) for path in shards],
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def clip_id(self, index: int) -> str:
        """The id of a clip, without reading it."""
        return self._split_info.ids[index]

    def group(self, index: int) -> str:
        """The group of a clip, without reading it."""
        return self._split_info.groups[index]

    def read_encoded(self, index: int) -> EncodedClip:
        """Reads a record without decoding it.

        Raises:
            UserError: the record is damaged; names shard, index and clip.
        """
        where = self._where(index)
        try:
            record = parse_example(self._data_source[index])
            (clip_id,), (group,) = record["id"], record["group"]
            (query,), (labels,) = record["query"], record["labels"]
            clip = EncodedClip(
                id=bytes(clip_id).decode(),
                group=bytes(group).decode(),
                memory=tuple(record.get("memory", ())),
                query=query,
                labels=labels,
                num_classes=self.info.classes.num_classes,
                where=where,
            )
            self._check(clip, index)
        except Exception as error:  # ArrayRecord and protobuf raise whatever suits them
            raise _damaged(where, self.clip_id(index), error) from error
        return clip

    def _check(self, clip: EncodedClip, index: int) -> None:
        """Raises ValueError if a record is not what the description says."""
        if (clip.id, clip.group) != (self.clip_id(index), self.group(index)):
            raise ValueError(f"it holds clip {clip.id!r} of group {clip.group!r}")
        if len(clip.memory) != self.info.memory_range:
            raise ValueError(
                f"it holds {len(clip.memory)} frames before the query, not {self.info.memory_range}"
            )
        sizes = {frame_size(frame) for frame in (*clip.memory, clip.query)}
        if self.labelled:
            sizes.add(labels_size(clip.labels))
        if len(sizes) > 1:
            raise ValueError(f"its frames and labels are of several sizes, {sorted(sizes)}")

    def read(self, index: int, memory_offsets: Sequence[int]) -> Clip:
        """Reads and decodes a clip.

        Args:
            index: which clip.
            memory_offsets: how many frames before the query each memory frame lies, oldest first.

        Raises:
            UserError: the record is damaged; names shard, index and clip.
        """
        return self.read_encoded(index).decode(memory_offsets)

    def check_labelled(self) -> None:
        """Raises UserError unless the clips have labels."""
        if not self.labelled:
            raise UserError(f"Split {self.split!r} of {self.data_dir} has no labels to train on.")

    def check_memory(self, num_memory: int, memory_range: int) -> None:
        """Raises UserError unless `num_memory` of `memory_range` frames can be drawn here."""
        if not 0 <= num_memory <= memory_range:
            raise UserError(
                f"{num_memory} memory frames cannot be drawn from the {memory_range} before the "
                "query: the memory range must be at least the number of memory frames."
            )
        if memory_range > self.info.memory_range:
            raise UserError(
                f"The records at {self.data_dir} hold {self.info.memory_range} frames before each "
                f"query, fewer than the memory range {memory_range}. Lower it, or make the "
                f"records again:\n  {making_command(self.data_dir, self.info)} "
                f"--memory-range={memory_range} --replace"
            )

    def _where(self, index: int) -> str:
        shard = bisect.bisect_right(self._shard_ends, index)
        first = self._shard_ends[shard - 1] if shard else 0
        name = shard_name(self.split, shard, len(self._shard_ends))
        directory = self.data_dir / BUILDER_NAME / SCHEMA_VERSION
        return f"record {index - first} of {directory / name}"

    @functools.cached_property
    def _shard_ends(self) -> list[int]:
        lengths = self._data_source.dataset_info.splits[self.split].shard_lengths
        return list(itertools.accumulate(lengths))


def has_records(data_dir: str | os.PathLike[str]) -> bool:
    """Whether the directory holds records, of whatever version."""
    return any(_versions(Path(data_dir)))


def read_info(data_dir: str | os.PathLike[str]) -> RecordsInfo:
    """What is known of records without reading them.

    Raises:
        UserError: there are no records, or those of another version.
    """
    return _open_directory(Path(data_dir))[0]


def open_clips(data_dir: str | os.PathLike[str], split: str) -> ClipRecords:
    """Opens the records of one split.

    Args:
        data_dir: directory of the clip records, as a preparation wrote it.
        split: its name, such as "train" or "val".

    Returns:
        The clips: `read` decodes whole ones (evaluation), `read_encoded` leaves that to who wants
        windows of them (training: `pipeline.train_batches`).

    Raises:
        UserError: there are no records, or those of another version, or no such split.
    """
    data_dir = Path(data_dir)
    info, builder = _open_directory(data_dir)
    if split not in info.splits:
        raise UserError(
            f"The records at {data_dir} have no split {split!r}, only {', '.join(info.splits)}. "
            f"Make them again with it:\n  {making_command(data_dir, info)} --splits=...,{split}"
        )
    undecoded = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    return ClipRecords(data_dir, split, info, undecoded)


def _open_directory(data_dir: Path) -> tuple[RecordsInfo, Any]:
    directory = data_dir / BUILDER_NAME
    versions = _versions(data_dir)
    if not versions:
        raise UserError(
            f"There are no records at {data_dir}. Make them:\n  {making_command(data_dir)}"
        )
    if SCHEMA_VERSION not in versions:
        raise UserError(
            f"The records at {data_dir} are of version {', '.join(versions)}, this program reads "
            f"version {SCHEMA_VERSION}. Make them again:\n  {making_command(data_dir)}"
        )
    try:
        builder = tfds.builder_from_directory(directory / SCHEMA_VERSION)
        if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(f"dataset_info.json says {builder.info.file_format}")
        info = RecordsInfo.from_json(builder.info.metadata, "metadata.json")
        _check_counts(info, builder.info.splits)
    except Exception as error:  # TFDS and protobuf raise whatever suits them
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        reason = f"{kind}{error}"[:500]
        raise UserError(
            f"The description of the records in {directory / SCHEMA_VERSION} cannot be read "
            f"({reason.rstrip('.')}). Make them again:\n  {making_command(data_dir)}"
        ) from error
    return info, builder


def _check_counts(info: RecordsInfo, of_shards: Mapping[str, Any]) -> None:
    for name, split in info.splits.items():
        in_shards = sum(of_shards[name].shard_lengths) if name in of_shards else 0
        if in_shards != len(split.ids):
            raise UserError(
                f"the shards of {name} hold {in_shards} clips and metadata.json names "
                f"{len(split.ids)}"
            )


def _versions(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / BUILDER_NAME).glob("*.*.*"))


def _damaged(where: str, clip_id: str, error: Exception) -> UserError:
    return UserError(
        f"Clip {clip_id} ({where}) cannot be read or decoded: {error}. "
        "The file is torn or was changed: copy it again, or delete it and make the records again."
    )
