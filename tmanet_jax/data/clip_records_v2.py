"""Records of version 2, each a whole clip, read as if its frames were records of their own.

Whoever prepares their data again can do without: this file, and where `records` calls it.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.clip_index import ClipIndex
from tmanet_jax.data.codec import Buffer
from tmanet_jax.data.examples import parse_example
from tmanet_jax.data.frame_records import FrameRecords, StoredFrame
from tmanet_jax.data.records_info import RecordsInfo, SkippedClip, SplitInfo

VERSION = "2.0.0"
_ID = re.compile(r"(?P<video>.*?)_?(?P<frame>\d{1,18})")


@dataclass(frozen=True)
class _Split:
    labelled: bool
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    stand_ins: tuple[int, ...] = ()
    skipped: tuple[SkippedClip, ...] = ()
    class_pixels: tuple[int, ...] = ()
    ignored_pixels: int = 0


@dataclass(frozen=True)
class _Records:
    classes: ClassSet
    memory_range: int
    frame_stride: int
    splits: Mapping[str, _Split]


def read_info(values: Mapping[str, Any], where: str) -> RecordsInfo:
    """What `metadata.json` of version 2 says; raises UserError as `strict_json.decode`.

    Early ones say that 255 is ignored, which it always is.
    """
    if isinstance(classes := values.get("classes"), dict):
        known = {name: value for name, value in classes.items() if name != "ignore"}
        values = {**values, "classes": known}
    found = strict_json.decode(_Records, values, where)
    memory_range, frame_stride = found.memory_range, found.frame_stride
    reach = memory_range * frame_stride
    splits = {
        name: SplitInfo(
            labelled=split.labelled,
            reach=reach,
            index=_index(split, range(-reach, 1, frame_stride)),
            skipped=split.skipped,
            class_pixels=split.class_pixels,
            ignored_pixels=split.ignored_pixels,
        )
        for name, split in found.splits.items()
    }
    return RecordsInfo(found.classes, memory_range, frame_stride, splits)


def _index(split: _Split, offsets: range) -> ClipIndex:
    """Each clip is a part of the video that its id names, whatever other clips hold of it."""
    named = [_ID.fullmatch(clip_id) for clip_id in split.ids]
    places = range(len(split.ids))
    size = len(offsets)
    return ClipIndex(
        videos=tuple(
            match["video"] if match else clip_id
            for match, clip_id in zip(named, split.ids, strict=True)
        ),
        lengths=(size,) * len(split.ids),
        numbers=tuple(
            (int(match["frame"]) if match else 0) + offset for match in named for offset in offsets
        ),
        ids=split.ids,
        groups=split.groups,
        queries=tuple(place * size + size - 1 for place in places),
        begins=tuple(place * size for place in places),
    )


class OlderFrames(FrameRecords):
    """The frames of a split of version 2."""

    def __init__(self, directory: Path, data_source: Any, index: ClipIndex) -> None:
        super().__init__(directory, data_source, index)
        self._clip = functools.lru_cache(maxsize=4)(self._read_clip)  # its frames come together

    def read(self, place: int) -> StoredFrame:
        """Reads the clip that a frame is of."""
        clip, frame = divmod(place, self._index.lengths[0])
        frames, labels = self._clip(clip)
        return StoredFrame(frames[frame], labels if frame == len(frames) - 1 else b"")

    def where(self, place: int) -> str:
        """The record of the clip."""
        return super().where(place // self._index.lengths[0])

    def _read_clip(self, clip: int) -> tuple[list[Buffer], Buffer]:
        record = parse_example(self._data_source[clip])
        (clip_id,), (group,) = record["id"], record["group"]
        expected = self._index.ids[clip], self._index.groups[clip]
        if (bytes(clip_id).decode(), bytes(group).decode()) != expected:
            raise ValueError(f"it holds clip {bytes(clip_id).decode()!r}")
        frames: list[Buffer] = [*record.get("memory", ()), *record["query"]]
        if len(frames) != self._index.lengths[0]:
            raise ValueError(f"it holds {len(frames)} frames, not {self._index.lengths[0]}")
        return frames, record["labels"][0]
