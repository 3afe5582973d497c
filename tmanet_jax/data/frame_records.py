"""Frame records: their schema, and how one is read.

A record holds one frame of a video, encoded by `codec`, and its labels if it is a clip's query.
Records lie in ArrayRecord files that a TFDS builder (`data_prep.records.writer`) describes:

    DATA_DIR/clip_records/3.0.0/clip_records-train.array_record-00000-of-00082
                                dataset_info.json  features.json  metadata.json
"""

import bisect
import functools
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tmanet_jax.data.clip_index import ClipIndex
from tmanet_jax.data.codec import Buffer
from tmanet_jax.data.examples import parse_example

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

BUILDER_NAME = "clip_records"
SCHEMA_VERSION = "3.0.0"


def features() -> "tfds.features.FeaturesDict":
    """The fields of a record."""
    import tensorflow_datasets as tfds

    encoded = tfds.features.Tensor(shape=(), dtype=np.object_)
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),
            "number": tfds.features.Text(),
            "frame": encoded,
            "labels": encoded,
        }
    )


def shard_name(split: str, index: int, num_shards: int) -> str:
    """The file name of a shard of a split."""
    return f"{BUILDER_NAME}-{split}.array_record-{index:05d}-of-{num_shards:05d}"


class StoredFrame(NamedTuple):
    """What a record holds, nothing decoded yet.

    Attributes:
        frame: encoded.
        labels: encoded; empty if it has none.
    """

    frame: Buffer
    labels: Buffer


class FrameRecords:
    """The frames of a split by their places.

    Args:
        directory: of the shards.
        data_source: TFDS's, of bytes.
        index: of the split.
    """

    def __init__(self, directory: Path, data_source: Any, index: ClipIndex) -> None:
        self._directory = directory
        self._data_source = data_source
        self._index = index

    def read(self, place: int) -> StoredFrame:
        """Reads a record.

        Raises:
            Exception: it is damaged; ArrayRecord and protobuf raise whatever suits them.
        """
        record = parse_example(self._data_source[place])
        (video,), (number,) = record["video"], record["number"]
        found = bytes(video).decode(), int(bytes(number))
        if found != self._index.frame(place):
            raise ValueError(f"it holds frame {found[1]} of {found[0]!r}")
        (frame,), (labels,) = record["frame"], record["labels"]
        return StoredFrame(frame, labels)

    def where(self, place: int) -> str:
        """Data directory, shard and index of a frame, for messages."""
        shard = bisect.bisect_right(self._shard_ends, place)
        first = self._shard_ends[shard - 1] if shard else 0
        name = shard_name(self._data_source.split, shard, len(self._shard_ends))
        return f"record {place - first} of {self._directory / name}"

    def sizes_of_shards(self) -> list[int]:
        """Bytes of each shard."""
        splits = self._data_source.dataset_info.splits
        return [os.path.getsize(path) for path in splits[self._data_source.split].filepaths]

    @functools.cached_property
    def _shard_ends(self) -> list[int]:
        splits = self._data_source.dataset_info.splits
        return list(itertools.accumulate(splits[self._data_source.split].shard_lengths))
