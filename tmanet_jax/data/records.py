"""Clips out of frame records: a query with its labels, and the frames that it remembers.

Records hold each frame once (`frame_records`), and `metadata.json` beside them says which of them
are queries (`clip_index`). What a clip remembers is decided when it is read: a network with T
memory frames reads any T of the R before the query, which lie a stride apart.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tmanet_jax.data import clip_records_v2, strict_json
from tmanet_jax.data.clips import Clip, EncodedClip, EncodedFrame, damaged
from tmanet_jax.data.codec import DAMAGE, frame_size, labels_size
from tmanet_jax.data.frame_records import (
    BUILDER_NAME,
    SCHEMA_VERSION,
    FrameRecords,
    StoredFrame,
)
from tmanet_jax.data.records_info import (
    RecordsInfo,
    SkippedClip,
    label_doubts,
    lacking,
    making_command,
)
from tmanet_jax.data.relabel import relabelling
from tmanet_jax.data.stores import local
from tmanet_jax.errors import UserError


class ClipRecords:
    """The clips of one split. Made by `open_clips`; picklable, so that workers can be spawned.

    Attributes:
        data_dir: where they lie.
        split: its name.
        info: what all records there share, with the classes that labels are read as.
        index: its frames and clips, without reading them.
        frames: the records, one a frame.
        frame_stride: how many frames of the video lie from one memory frame to the next.
    """

    def __init__(
        self,
        data_dir: Path,
        split: str,
        info: RecordsInfo,
        frames: FrameRecords,
        stride: int,
        classes: Sequence[str] = (),
        of_several: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self.split = split
        self._how = stride, tuple(classes), of_several
        self._recorded = info
        self._relabelling = (
            relabelling(classes, info.classes, of_several=of_several) if classes else None
        )
        self.info = info if self._relabelling is None else self._relabelling.of_info(info)
        self.frame_stride = stride
        self._split_info = self.info.splits[split]
        self.index = self._split_info.index
        self.frames = frames

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[Callable[..., "ClipRecords"], tuple[object, ...]]:
        return open_clips, (self.data_dir, self.split, *self._how)

    @property
    def shares(self) -> Mapping[range, float]:
        """Of the batches, by the clips that have them."""
        return {range(len(self)): 1.0}

    @property
    def labelled(self) -> bool:
        """Whether the clips have labels."""
        return self._split_info.labelled

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all clips, without reading them."""
        return self.index.ids

    @property
    def skipped(self) -> tuple[SkippedClip, ...]:
        """The clips that could not be read when the records were made, and are not in them."""
        return self._split_info.skipped

    @property
    def class_pixels(self) -> tuple[int, ...]:
        """How many pixels each class has in all clips together, without reading them."""
        return self._split_info.class_pixels

    def label_doubts(self, *, trains: bool) -> list[str]:
        """See `records_info.label_doubts`, of the labels as they are recorded.

        A rendered street lacks classes on purpose, and of labels that are read as others, classes
        that nobody reads may be lacking.
        """
        recorded = self._recorded
        trains &= not recorded.is_rendered
        split, as_recorded = recorded.splits[self.split], self._relabelling is None
        doubts = label_doubts(self.split, split, recorded.classes, trains=trains and as_recorded)
        if trains and not as_recorded:
            doubts += lacking(self.split, self.class_pixels, self.info.classes)
        return doubts

    def fingerprint(self) -> str:
        """Tells apart what the split held at different times; no shard is read."""
        facts = (
            self.ids,
            self.info.classes.names,
            self.class_pixels,
            self._split_info.ignored_pixels,
            self.frame_stride,
            self.frames.sizes_of_shards(),
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def clip_id(self, index: int) -> str:
        """The id of a clip, without reading it."""
        return self.index.ids[index]

    def group(self, index: int) -> str:
        """The group of a clip, without reading it."""
        return self.index.groups[index]

    def read_encoded(self, index: int, memory_offsets: Sequence[int] = ()) -> EncodedClip:
        """Reads a clip without decoding it.

        Args:
            index: which clip.
            memory_offsets: how many strides before the query each memory frame lies, oldest first.

        Raises:
            UserError: a record is damaged; names shard, index and clip.
        """
        query, clip_id = self.index.queries[index], self.clip_id(index)
        offsets = [offset * self.frame_stride for offset in memory_offsets]
        places = [*self.index.memory(index, offsets), query]
        read = {place: self._read_frame(place, f"Clip {clip_id}") for place in {*places}}
        clip = EncodedClip(
            id=clip_id,
            group=self.group(index),
            frames=tuple(
                EncodedFrame(read[place].frame, self.frames.where(place)) for place in places
            ),
            labels=read[query].labels,
            num_classes=self._recorded.classes.num_classes,
            classes_256=None if self._relabelling is None else self._relabelling.table_256,
        )
        try:
            self._check(clip)
        except DAMAGE as error:
            raise damaged(clip.query.where, f"Clip {clip_id}", error) from error
        return clip

    def _read_frame(self, place: int, of: str) -> StoredFrame:
        try:
            return self.frames.read(place)
        except Exception as error:  # ArrayRecord and protobuf raise whatever suits them
            raise damaged(self.frames.where(place), of, error) from error

    def _check(self, clip: EncodedClip) -> None:
        """Raises ValueError if frames and labels do not go together."""
        sizes = {frame_size(frame.content) for frame in clip.frames}
        if self.labelled:
            sizes.add(labels_size(clip.labels))
        if len(sizes) > 1:
            raise ValueError(f"its frames and labels are of several sizes, {sorted(sizes)}")

    def read(self, index: int, memory_offsets: Sequence[int]) -> Clip:
        """Reads and decodes a clip.

        Args:
            index: which clip.
            memory_offsets: how many strides before the query each memory frame lies, oldest first.

        Raises:
            UserError: a record is damaged; names shard, index and clip.
        """
        return self.read_encoded(index, memory_offsets).decode()

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
        reach, wanted = self._split_info.reach, memory_range * self.frame_stride
        if wanted > reach:
            apart = f" {self.frame_stride} apart" if self.frame_stride > 1 else ""
            stride = f" --frame-stride={self.frame_stride}" if self.frame_stride > 1 else ""
            raise UserError(
                f"The records at {self.data_dir} hold the {reach} frames before each query, fewer "
                f"than the memory range of {memory_range}{apart} needs. Lower it, or make the "
                f"records again:\n  {making_command(self.data_dir, self._recorded)} "
                f"--memory-range={memory_range}{stride} --replace"
            )


def has_records(data_dir: str | os.PathLike[str]) -> bool:
    """Whether the directory holds records, of whatever version."""
    return any(_versions(local(data_dir)))


def read_info(data_dir: str | os.PathLike[str]) -> RecordsInfo:
    """What is known of records without reading them.

    Raises:
        UserError: there are no records, or those of another version.
    """
    return _open_directory(local(data_dir))[0]


def open_clips(
    data_dir: str | os.PathLike[str],
    split: str,
    frame_stride: int | None = None,
    classes: Sequence[str] = (),
    of_several: bool = False,
) -> ClipRecords:
    """Opens the records of one split.

    Args:
        data_dir: directory of the clip records, as a preparation wrote it, or its address in a
            store, from which this machine keeps a copy.
        split: its name, such as "train" or "val".
        frame_stride: how many frames of the video lie from one memory frame to the next; None: as
            many as the records were made for.
        classes: that labels are read as, see `relabel`; (): the recorded ones.
        of_several: some of these may be in no record here.

    Returns:
        The clips: `read` decodes whole ones (evaluation), `read_encoded` leaves that to who wants
        windows of them (training: `pipeline.train_batches`).

    Raises:
        UserError: there are no records, or those of another version, or no such split or class.
    """
    import tensorflow_datasets as tfds  # a second that only readers of records pay

    data_dir = local(data_dir)
    info, builder = _open_directory(data_dir)
    if split not in info.splits:
        raise UserError(
            f"The records at {data_dir} have no split {split!r}, only {', '.join(info.splits)}. "
            f"Make them again with it:\n  {making_command(data_dir, info)} --splits=...,{split}"
        )
    undecoded = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    stride = info.frame_stride if frame_stride is None else frame_stride
    directory = Path(builder.data_dir)
    index = info.splits[split].index
    kind = FrameRecords if directory.name == SCHEMA_VERSION else clip_records_v2.OlderFrames
    if kind is not FrameRecords and stride != info.frame_stride:
        raise UserError(
            f"The records at {data_dir} are of version {directory.name}, which hold memory frames "
            f"{info.frame_stride} apart, not {stride}. Make them again:\n"
            f"  {making_command(data_dir, info)} --frame-stride={stride} --replace"
        )
    frames = kind(directory, undecoded, index)
    return ClipRecords(data_dir, split, info, frames, stride, classes, of_several)


def _open_directory(data_dir: Path) -> tuple[RecordsInfo, Any]:
    import tensorflow_datasets as tfds

    versions = _versions(data_dir)
    if not versions:
        raise UserError(
            f"There are no records at {data_dir}. Make them:\n  {making_command(data_dir)}"
        )
    known = [name for name in (SCHEMA_VERSION, clip_records_v2.VERSION) if name in versions]
    if not known:
        raise UserError(
            f"The records at {data_dir} are of version {', '.join(versions)}, this program reads "
            f"version {SCHEMA_VERSION}. Make them again:\n  {making_command(data_dir)}"
        )
    directory = data_dir / BUILDER_NAME / known[0]
    try:
        builder = tfds.builder_from_directory(directory)
        if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(f"dataset_info.json says {builder.info.file_format}")
        if known[0] == SCHEMA_VERSION:
            info = strict_json.decode(RecordsInfo, builder.info.metadata, "metadata.json")
            counts = {name: split.index.num_frames for name, split in info.splits.items()}
        else:
            info = clip_records_v2.read_info(builder.info.metadata, "metadata.json")
            counts = {name: len(split.ids) for name, split in info.splits.items()}
        _check_counts(counts, builder.info.splits)
    except Exception as error:  # TFDS and protobuf raise whatever suits them
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        reason = f"{kind}{error}"[:500]
        raise UserError(
            f"The description of the records in {directory} cannot be read "
            f"({reason.rstrip('.')}). Make them again:\n  {making_command(data_dir)}"
        ) from error
    return info, builder


def _check_counts(counts: Mapping[str, int], of_shards: Mapping[str, Any]) -> None:
    for name, count in counts.items():
        in_shards = sum(of_shards[name].shard_lengths) if name in of_shards else 0
        if in_shards != count:
            raise UserError(
                f"the shards of {name} hold {in_shards} records and metadata.json names {count}"
            )


def _versions(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / BUILDER_NAME).glob("*.*.*"))
