"""Clip records: their schema, encoder and decoder, shared by the programs that write and read them.

A record holds one annotated frame (the query), the R frames before it, and the labels. R is the
*memory range*: a network with T <= R memory frames reads any T of them. Records lie in ArrayRecord
files that a TFDS builder describes:

    DATA_DIR/clip_records/1.0.0/clip_records-train.array_record-00000-of-00093
                                dataset_info.json  features.json  metadata.json

Frames are cut into tiles of 64x256 pixels; a tile's rows are replaced by their difference (modulo
256) to the row above, and the tile is compressed with zstd. That is lossless, six times as fast to
decode as PNG, and a crop decodes only the tiles it touches. Labels are compressed whole.
"""

import contextlib
import dataclasses
import io
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow_datasets as tfds
import zstandard
from array_record.python.array_record_module import ArrayRecordWriter

from tmanet_jax.data.classes import IGNORE, ClassSet
from tmanet_jax.errors import UserError

SCHEMA_VERSION = "1.0.0"
CLIPS_PER_SHARD = 32

TILE_HEIGHT, TILE_WIDTH = 64, 256
_FRAME_LEVEL, _LABEL_LEVEL = 1, 15
_HEADER = struct.Struct("<4sHHH")
_FRAME_MAGIC, _LABEL_MAGIC = b"TMAf", b"TMAl"
_CODEC_VERSION = 1
_DAMAGE = (ValueError, struct.error, zstandard.ZstdError, MemoryError)


class Size(NamedTuple):
    """A picture's height and width in pixels."""

    height: int
    width: int


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


# The codec.


def encode_frame(frame_HxWx3: np.ndarray) -> bytes:
    """Encodes a uint8 frame of at most 65535x65535 pixels, losslessly."""
    size = Size(*frame_HxWx3.shape[:2])
    compressor = zstandard.ZstdCompressor(level=_FRAME_LEVEL)
    tiles = []
    for top in range(0, size.height, TILE_HEIGHT):
        for left in range(0, size.width, TILE_WIDTH):
            tile_hxwx3 = frame_HxWx3[top : top + TILE_HEIGHT, left : left + TILE_WIDTH]
            difference_hxwx3 = tile_hxwx3.copy()
            difference_hxwx3[1:] -= tile_hxwx3[:-1]
            tiles.append(compressor.compress(difference_hxwx3.tobytes()))
    ends = np.cumsum([len(tile) for tile in tiles], dtype="<u4")
    header = _HEADER.pack(_FRAME_MAGIC, _CODEC_VERSION, *size)
    return b"".join([header, ends.tobytes(), *tiles])


def frame_size(encoded: bytes) -> Size:
    """Size of an encoded frame, without decoding it."""
    return _size(encoded, _FRAME_MAGIC)


def decode_frame(encoded: bytes) -> np.ndarray:
    """Decodes a whole frame: uint8 HxWx3. Raises ValueError or ZstdError if it is damaged."""
    return decode_window(encoded, 0, 0, *frame_size(encoded))


def decode_window(encoded: bytes, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Decodes frame[top : top + height, left : left + width], and only the tiles it touches.

    Returns:
        uint8 height x width x 3, possibly a view of a larger array.

    Raises:
        ValueError: the window is empty or leaves the frame, or the bytes are not a frame.
        zstandard.ZstdError: the bytes are damaged.
    """
    size = frame_size(encoded)
    bottom, right = top + height, left + width
    if not (0 <= top < bottom <= size.height and 0 <= left < right <= size.width):
        raise ValueError(f"Window {top}:{bottom}, {left}:{right} is not inside a frame of {size}.")
    tile_rows, tile_columns = -(-size.height // TILE_HEIGHT), -(-size.width // TILE_WIDTH)
    num_tiles = tile_rows * tile_columns
    ends = np.frombuffer(encoded, "<u4", num_tiles, _HEADER.size)
    first_byte = _HEADER.size + ends.nbytes
    decompressor = zstandard.ZstdDecompressor()

    origin_y, origin_x = top - top % TILE_HEIGHT, left - left % TILE_WIDTH
    limit_y = min(bottom + -bottom % TILE_HEIGHT, size.height)
    limit_x = min(right + -right % TILE_WIDTH, size.width)
    canvas_hxwx3 = np.empty((limit_y - origin_y, limit_x - origin_x, 3), np.uint8)
    for y in range(origin_y, limit_y, TILE_HEIGHT):
        for x in range(origin_x, limit_x, TILE_WIDTH):
            index = y // TILE_HEIGHT * tile_columns + x // TILE_WIDTH
            start = first_byte + (int(ends[index - 1]) if index else 0)
            tile = decompressor.decompress(encoded[start : first_byte + int(ends[index])])
            place_hxwx3 = canvas_hxwx3[
                y - origin_y : y - origin_y + TILE_HEIGHT, x - origin_x : x - origin_x + TILE_WIDTH
            ]
            place_hxwx3[:] = np.frombuffer(tile, np.uint8).reshape(place_hxwx3.shape)
    for row in range(1, min(TILE_HEIGHT, len(canvas_hxwx3))):  # the same row of all tiles at once
        rows = canvas_hxwx3[row::TILE_HEIGHT]
        np.add(rows, canvas_hxwx3[row - 1 :: TILE_HEIGHT][: len(rows)], out=rows)
    return canvas_hxwx3[top - origin_y : bottom - origin_y, left - origin_x : right - origin_x]


def encode_labels(labels_HxW: np.ndarray) -> bytes:
    """Encodes uint8 labels of at most 65535x65535 pixels, losslessly."""
    header = _HEADER.pack(_LABEL_MAGIC, _CODEC_VERSION, *labels_HxW.shape)
    return header + zstandard.ZstdCompressor(level=_LABEL_LEVEL).compress(labels_HxW.tobytes())


def decode_labels(encoded: bytes) -> np.ndarray:
    """Decodes labels: uint8 HxW. Raises ValueError or ZstdError if they are damaged."""
    size = _size(encoded, _LABEL_MAGIC)
    content = zstandard.ZstdDecompressor().decompress(encoded[_HEADER.size :])
    return np.frombuffer(content, np.uint8).reshape(size)


def _size(encoded: bytes, expected_magic: bytes) -> Size:
    magic, version, height, width = _HEADER.unpack_from(encoded)
    if (magic, version) != (expected_magic, _CODEC_VERSION):
        raise ValueError(
            f"Expected {expected_magic!r} version {_CODEC_VERSION}, found {magic!r} {version}."
        )
    return Size(height, width)


# Reading.


@dataclass(frozen=True)
class SplitInfo:
    """What is known of a split without reading it.

    Attributes:
        labelled: whether its clips have labels.
        ids: the clips' ids, in the order of the records.
        groups: the clips' groups, in the same order.
    """

    labelled: bool
    ids: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class RecordsInfo:
    """What all records of a directory share.

    Attributes:
        classes: the data set's classes; their name is the data set's.
        memory_range: number of frames before the query in each record.
        splits: the splits by name.
    """

    classes: ClassSet
    memory_range: int
    splits: Mapping[str, SplitInfo]

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return {
            "classes": dataclasses.asdict(self.classes),
            "memory_range": self.memory_range,
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RecordsInfo":
        """Inverse of `to_json`; raises KeyError or TypeError on anything else."""
        classes = dict(values["classes"])
        classes["names"] = tuple(classes["names"])
        classes["palette_Cx3"] = tuple(tuple(colour) for colour in classes["palette_Cx3"])
        splits = {
            name: SplitInfo(split["labelled"], tuple(split["ids"]), tuple(split["groups"]))
            for name, split in values["splits"].items()
        }
        return cls(ClassSet(**classes), values["memory_range"], splits)


@dataclass(frozen=True)
class EncodedClip:
    """A record as it was read, nothing decoded yet.

    Attributes:
        id: the clip's id.
        group: the clip's group.
        memory: the encoded memory frames, oldest first.
        query: the encoded query frame.
        labels: the encoded labels; empty if the split has none.
        where: data directory, shard and index, for messages.
    """

    id: str
    group: str
    memory: tuple[bytes, ...]
    query: bytes
    labels: bytes
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
            return decode_labels(self.labels)

    def decode_window(
        self, memory_offsets: Sequence[int], top: int, left: int, height: int, width: int
    ) -> np.ndarray:
        """The same window of some memory frames and of the query, in the order of time.

        Args:
            memory_offsets: how many frames before the query each memory frame lies, in the order
                wanted: oldest first, thus descending.
            top: the window's first row.
            left: the window's first column.
            height: the window's height.
            width: the window's width.

        Returns:
            uint8 S x height x width x 3, the query last.

        Raises:
            UserError: a frame is damaged.
        """
        frames = [self.memory[len(self.memory) - offset] for offset in memory_offsets]
        window_SxHxWx3 = np.empty((len(frames) + 1, height, width, 3), np.uint8)
        with self._naming_damage():
            for window_HxWx3, frame in zip(window_SxHxWx3, [*frames, self.query], strict=True):
                window_HxWx3[:] = decode_window(frame, top, left, height, width)
        return window_SxHxWx3

    @contextlib.contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise _damaged(self.where, self.id, error) from error


class ClipSource:
    """The clips of one split. Made by `open_clips`; picklable, so that workers can be spawned."""

    def __init__(self, data_dir: Path, split: str, info: RecordsInfo, data_source: Any) -> None:
        self.data_dir = data_dir
        self.split = split
        self.info = info
        self._split_info = info.splits[split]
        self._data_source = data_source

    def __len__(self) -> int:
        return len(self._split_info.ids)

    def __reduce__(self) -> tuple[Callable[..., "ClipSource"], tuple[Path, str]]:
        return open_clips, (self.data_dir, self.split)

    @property
    def labelled(self) -> bool:
        """Whether the clips have labels."""
        return self._split_info.labelled

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
            record = self._data_source[index]
            clip = EncodedClip(
                id=record["id"].decode(),
                group=record["group"].decode(),
                memory=tuple(record["memory"]),
                query=record["query"],
                labels=record["labels"],
                where=where,
            )
            if clip.id != self.clip_id(index):
                raise ValueError(f"it holds clip {clip.id!r}")
        except Exception as error:  # ArrayRecord and protobuf raise whatever suits them
            raise _damaged(where, self.clip_id(index), error) from error
        return clip

    def read(self, index: int, memory_offsets: Sequence[int]) -> Clip:
        """Reads and decodes a clip.

        Args:
            index: which clip.
            memory_offsets: how many frames before the query each memory frame lies, oldest first.

        Raises:
            UserError: the record is damaged; names shard, index and clip.
        """
        encoded = self.read_encoded(index)
        frames_SxHxWx3 = encoded.decode_window(memory_offsets, 0, 0, *encoded.size)
        return Clip(encoded.id, encoded.group, frames_SxHxWx3, encoded.decode_labels())

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
                f"records again:\n  {_command(self.data_dir)} --memory-range={memory_range}"
            )

    def _where(self, index: int) -> str:
        shard_lengths = self._data_source.dataset_info.splits[self.split].shard_lengths
        paths = self._data_source.dataset_info.splits[self.split].filepaths
        for path, length in zip(paths, shard_lengths, strict=True):
            if index < length:
                return f"record {index} of {path}"
            index -= length
        raise IndexError(index)


def open_clips(data_dir: str | os.PathLike[str], split: str) -> ClipSource:
    """Opens the records of one split.

    Raises:
        UserError: there are no records, or those of another version, or no such split.
    """
    data_dir = Path(data_dir)
    info, builder = _open_directory(data_dir)
    if split not in info.splits:
        raise UserError(
            f"The records at {data_dir} have no split {split!r}, only {', '.join(info.splits)}. "
            f"Make them again with it:\n  {_command(data_dir)} --splits=...,{split}"
        )
    return ClipSource(data_dir, split, info, builder.as_data_source(split))


def _open_directory(data_dir: Path) -> tuple[RecordsInfo, Any]:
    directory = data_dir / ClipRecords.name
    versions = sorted(path.name for path in directory.glob("*.*.*"))
    if not versions:
        raise UserError(f"There are no records at {data_dir}. Make them:\n  {_command(data_dir)}")
    if SCHEMA_VERSION not in versions:
        raise UserError(
            f"The records at {data_dir} are of version {', '.join(versions)}, this program reads "
            f"version {SCHEMA_VERSION}. Make them again:\n  {_command(data_dir)}"
        )
    try:
        builder = tfds.builder_from_directory(directory / SCHEMA_VERSION)
        return RecordsInfo.from_json(builder.info.metadata), builder
    except Exception as error:  # TFDS and protobuf raise whatever suits them
        raise UserError(
            f"The description of the records in {directory / SCHEMA_VERSION} cannot be read "
            f"({error!r}). Make them again:\n  {_command(data_dir)}"
        ) from error


def _command(data_dir: Path) -> str:
    return f"python -m data_prep.cityscapes --source=DIR --out={data_dir}"


def _damaged(where: str, clip_id: str, error: Exception) -> UserError:
    return UserError(
        f"Clip {clip_id} ({where}) cannot be read or decoded: {error}. "
        "The file is torn or was changed; copy or make the records again."
    )


# Writing.


class PlannedClip(Protocol):
    """A clip that is known by name; its pictures are loaded when its turn comes."""

    @property
    def id(self) -> str:
        """The clip's id."""

    @property
    def group(self) -> str:
        """The clip's group."""

    def load(self) -> Clip:
        """Loads the clip with as many memory frames as the memory range. May raise UserError."""


@dataclass(frozen=True)
class SplitPlan:
    """A split to be written.

    Attributes:
        clips: its clips, in the order that the records will have.
        labelled: whether they have labels.
    """

    clips: Sequence[PlannedClip]
    labelled: bool


class ClipRecords(tfds.core.ShardBasedBuilder):
    """TFDS builder of clip records: schema, version, splits and shards."""

    VERSION = tfds.core.Version(SCHEMA_VERSION)
    RELEASE_NOTES: Mapping[str, str] = {
        SCHEMA_VERSION: "Frames as tiles of 64x256, vertical difference, zstd."
    }
    url_infos = None  # nothing is downloaded; TFDS's own look for checksums needs another package

    def __init__(
        self,
        data_dir: Path,
        info: RecordsInfo,
        plans: Mapping[str, SplitPlan],
        on_clip_written: Callable[[], None],
    ) -> None:
        self._records_info = info
        self._plans = plans
        self._on_clip_written = on_clip_written
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        encoded = tfds.features.Tensor(shape=(), dtype=np.object_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Clips of {self._records_info.classes.name} for TMANet-JAX.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "group": tfds.features.Text(),
                    "memory": tfds.features.Sequence(encoded),
                    "query": encoded,
                    "labels": encoded,
                }
            ),
            metadata=tfds.core.MetadataDict(self._records_info.to_json()),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        del dl_manager
        return {
            name: [
                partial(self._encode_shard, start, plan)
                for start in range(0, len(plan.clips), CLIPS_PER_SHARD)
            ]
            for name, plan in self._plans.items()
        }

    def _encode_shard(self, start: int, plan: SplitPlan) -> Iterator[tuple[int, dict[str, Any]]]:
        clips = plan.clips[start : start + CLIPS_PER_SHARD]
        executor = ThreadPoolExecutor(os.cpu_count())
        try:
            encoded = executor.map(partial(_encode_clip, labelled=plan.labelled), clips)
            for index, example in enumerate(encoded, start):
                yield index, example
                self._on_clip_written()
        finally:
            executor.shutdown(cancel_futures=True)

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _UncompressedWriter(self.info.file_format)


class _UncompressedWriter(tfds.core.ExampleWriter):
    """Writes ArrayRecord without its own compression, which tiles of zstd do not need."""

    def write(self, path: os.PathLike[str], examples: Iterator[tuple[int, bytes]]) -> None:
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
        for _, example in examples:
            writer.write(example)
        writer.close()


def write_records(
    out: str | os.PathLike[str],
    classes: ClassSet,
    memory_range: int,
    plans: Mapping[str, SplitPlan],
    on_clip_written: Callable[[], None] = lambda: None,
) -> int:
    """Writes records on all cores, in place of those that were there; all of them or nothing.

    Args:
        out: the data directory.
        classes: the data set's classes.
        memory_range: number of frames before the query in each clip.
        plans: the splits by name; empty splits are left out.
        on_clip_written: called after each clip.

    Returns:
        The number of bytes written.

    Raises:
        UserError: a clip could not be loaded, or there are none, or `out` cannot be written.
    """
    plans = {name: plan for name, plan in plans.items() if plan.clips}
    if not plans:
        raise UserError(f"There are no clips to write to {out}.")
    splits = {
        name: SplitInfo(
            labelled=plan.labelled,
            ids=tuple(clip.id for clip in plan.clips),
            groups=tuple(clip.group for clip in plan.clips),
        )
        for name, plan in plans.items()
    }
    info = RecordsInfo(classes, memory_range, splits)
    out = Path(out)
    with _written_whole(out / ClipRecords.name) as unfinished:
        builder = ClipRecords(unfinished.parent, info, plans, on_clip_written)
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads
            builder.download_and_prepare()
    return sum(path.stat().st_size for path in (out / ClipRecords.name).rglob("*"))


@contextlib.contextmanager
def _written_whole(directory: Path) -> Iterator[Path]:
    """Gives a path to write a directory to, which replaces `directory` only if nothing fails."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=directory.parent))
    except OSError as error:
        raise UserError(f"Cannot write to {directory.parent}: {error.strerror}.") from error
    try:
        yield workplace / directory.name
        if directory.exists():
            directory.rename(workplace / "replaced")
        (workplace / directory.name).rename(directory)
    finally:
        shutil.rmtree(workplace)


def _encode_clip(clip: PlannedClip, labelled: bool) -> dict[str, Any]:
    loaded = clip.load()
    *memory, query = map(encode_frame, loaded.frames_SxHxWx3)
    return {
        "id": loaded.id,
        "group": loaded.group,
        "memory": memory,
        "query": query,
        "labels": encode_labels(loaded.labels_HxW) if labelled else b"",
    }
