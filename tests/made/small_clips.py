"""Clips of noise, and records of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.records.writer import SplitPlan, write_records
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.clip_index import ClipIndex
from tmanet_jax.data.clips import Clip
from tmanet_jax.data.records import ClipRecords, open_clips


@dataclass(frozen=True)
class NoiseClip:
    """A clip whose pixels follow from its number."""

    number: int
    group: str = ""
    memory_range: int = 3
    size: tuple[int, int] = (70, 100)
    fingerprint: str = ""

    @property
    def id(self) -> str:
        return f"noise_{self.number:06d}"

    def load(self) -> Clip:
        rng = np.random.default_rng(self.number)
        frames_SxHxWx3 = rng.integers(0, 256, (self.memory_range + 1, *self.size, 3), np.uint8)
        labels_HxW = rng.integers(0, CITYSCAPES.num_classes, self.size, np.uint8)
        return Clip(self.id, self.group, frames_SxHxWx3, labels_HxW)


@dataclass(frozen=True)
class NoiseFrame:
    """One of a clip's frames; the last is the query."""

    clip: NoiseClip
    place: int
    labelled: bool

    @property
    def fingerprint(self) -> str:
        return self.clip.fingerprint

    def load(self) -> np.ndarray:
        return self.clip.load().frames_SxHxWx3[self.place]

    def load_labels(self, size: tuple[int, int]) -> np.ndarray | None:
        return self.clip.load().labels_HxW if self.labelled else None


def plan_of(clips: Sequence[NoiseClip], *, labelled: bool = True) -> SplitPlan:
    """Each clip is a video of its own."""
    indices, frames = [], []
    for clip in clips:
        last = clip.memory_range
        numbers, query = tuple(range(last + 1)), (last,)
        indices.append(
            ClipIndex((clip.id,), (last + 1,), numbers, (), (clip.id,), (clip.group,), query, (0,))
        )
        frames += [NoiseFrame(clip, place, labelled and place == last) for place in numbers]
    reach = max((clip.memory_range for clip in clips), default=0)
    return SplitPlan(ClipIndex.joined(indices), frames, reach, labelled)


def write_noise(out: Path, num_clips: int, split: str = "train") -> ClipRecords:
    clips = [NoiseClip(number) for number in range(num_clips)]
    write_records(out, CITYSCAPES, 3, {split: plan_of(clips)})
    return open_clips(out, split)


def damage(records: ClipRecords, shard: int = 0) -> Path:
    """Overwrites the middle of a shard, as a bad disk would."""
    path = sorted(records.data_dir.glob("clip_records/*.*.*/*array_record*"))[shard]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    path.write_bytes(content)
    return path
