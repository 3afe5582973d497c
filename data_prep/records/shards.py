"""What a shard is made of, how it is written, and threads of this process that write all."""

import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_prep.records.parallel import computed_ahead
from data_prep.records.staging import ShardInfo, StagedShard, Staging
from data_prep.source import WrongSourceError
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.codec import encode_frame, encode_labels
from tmanet_jax.data.examples import serialize_example
from tmanet_jax.errors import UserError


class PlannedFrame(Protocol):
    """A frame that is known by name; its pictures are loaded when its turn comes.

    Its str() is for messages: where it is.
    """

    @property
    def fingerprint(self) -> str:
        """Changes when a file that it is made of does, or how it is made."""

    def load(self) -> np.ndarray:
        """Loads the frame: uint8 HxWx3 RGB.

        Raises:
            WrongSourceError: something is wrong with more than this frame.
            UserError: this frame cannot be loaded.
        """

    def load_labels(self, size: tuple[int, int]) -> np.ndarray | None:
        """Loads its labels, uint8 HxW, if it has any; raises as `load`.

        Args:
            size: of the frame.
        """


class NamedFrame(NamedTuple):
    """A planned frame, and its names in the record."""

    frame: PlannedFrame
    video: str
    number: int


class PlannedShard(NamedTuple):
    """A shard to be written.

    Attributes:
        name: of its file.
        split: that it is part of.
        first: the place of its first frame in the split.
        frames: in the order of the records.
        fingerprint: changes with what it is made of: files, options, schema.
    """

    name: str
    split: str
    first: int
    frames: Sequence[NamedFrame]
    fingerprint: str


class Encoded(NamedTuple):
    """A frame on its way into a record.

    Attributes:
        record: None if the frame cannot be loaded.
        size: of the frame.
        problem: why the frame, or else its labels, cannot be loaded.
        pixels_256: how many of its labels have each value.
    """

    record: bytes | None = None
    size: tuple[int, int] | None = None
    problem: str | None = None
    pixels_256: np.ndarray | None = None


@dataclass(frozen=True)
class Work:
    """What it takes to write shards.

    Attributes:
        place: where they are written.
        num_classes: of the labels.
        skip_unreadable: leave out frames that cannot be loaded.
    """

    place: Staging
    num_classes: int
    skip_unreadable: bool

    def write(
        self,
        shard: PlannedShard,
        encoded: Iterable[Encoded],
        on_frame_written: Callable[[], object] = lambda: None,
    ) -> StagedShard:
        """Writes a shard of its encoded frames; raises UserError if the disk refuses."""
        place, partial_path = self.place, self.place.partial(shard.name)
        sizes: list[tuple[int, int] | None] = []
        problems: dict[int, str] = {}
        pixels_256 = np.zeros(256, np.int64)
        with place.naming_errors():  # tiles of zstd need no compression by ArrayRecord
            writer = ArrayRecordWriter(str(partial_path), "group_size:1,uncompressed")
        for index, frame in enumerate(encoded):
            if frame.record is not None:
                with place.naming_errors():
                    writer.write(frame.record)
            if frame.problem is not None:
                problems[index] = frame.problem
            if frame.pixels_256 is not None:
                pixels_256 += frame.pixels_256
            sizes.append(frame.size)
            on_frame_written()
        with place.naming_errors():
            writer.close()
        info = ShardInfo(
            sizes=tuple(sizes),
            problems=problems,
            class_pixels=tuple(pixels_256[: self.num_classes].tolist()),
            ignored_pixels=int(pixels_256[IGNORE]),
        )
        return place.add(partial_path, shard.name, shard.fingerprint, info)

    def encode(self, named: NamedFrame) -> Encoded:
        """Loads and encodes a frame; raises UserError as `PlannedFrame.load`."""
        skip = self.skip_unreadable
        frame_HxWx3, problem = _loaded(named.frame.load, skip)
        if frame_HxWx3 is None:
            return Encoded(problem=problem)
        size = (frame_HxWx3.shape[0], frame_HxWx3.shape[1])
        labels_HxW, problem = _loaded(partial(named.frame.load_labels, size), skip)
        record = serialize_example(
            {
                "video": named.video.encode(),
                "number": str(named.number).encode(),
                "frame": encode_frame(frame_HxWx3),
                "labels": b"" if labels_HxW is None else encode_labels(labels_HxW),
            }
        )
        if labels_HxW is None:
            return Encoded(record, size, problem)
        return Encoded(record, size, None, np.bincount(labels_HxW.reshape(-1), minlength=256))


class WritesShards(Protocol):
    """What writes the shards that are missing."""

    def __call__(
        self, work: Work, shards: Sequence[PlannedShard], on_frame_written: Callable[[], object]
    ) -> Generator[StagedShard, None, None]:
        """Writes shards, and gives them in their order once they are whole.

        Args:
            work: how.
            shards: those to be written.
            on_frame_written: called after each frame, also one that is skipped.

        Raises:
            UserError: a frame could not be loaded, or a shard not be written.
        """


def write_in_threads(
    work: Work, shards: Sequence[PlannedShard], on_frame_written: Callable[[], object]
) -> Generator[StagedShard, None, None]:
    """Writes shards one after another, their frames on all cores; see `WritesShards`."""
    frames = itertools.chain.from_iterable(shard.frames for shard in shards)
    with computed_ahead(work.encode, frames) as encoded:
        for shard in shards:
            of_shard = itertools.islice(encoded, len(shard.frames))
            yield work.write(shard, of_shard, on_frame_written)


def _loaded(
    load: Callable[[], np.ndarray | None], skip: bool
) -> tuple[np.ndarray | None, str | None]:
    """What is loaded, or what is wrong with it; raises UserError unless it may be skipped."""
    try:
        return load(), None
    except UserError as error:
        if skip and not isinstance(error, WrongSourceError):
            return None, str(error)
        raise
