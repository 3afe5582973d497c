"""Records of rendered videos: every frame is a query with labels."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.records.writer import SplitPlan, write_records
from data_prep.street.render import SnippetFrames
from tmanet_jax.data.classes import CITYSCAPES, CITYSCAPES_TRAIN_ID_OF_LABEL_ID
from tmanet_jax.data.clip_index import ClipIndex
from tmanet_jax.data.records import ClipRecords, open_clips


@dataclass(frozen=True)
class StreetFrame:
    """A frame of a rendered snippet."""

    snippet: int
    number: int
    size: tuple[int, int] = (64, 128)
    fingerprint: str = ""

    @property
    def video(self) -> str:
        return f"rasterburg_{self.snippet:06d}"

    @property
    def id(self) -> str:
        return f"{self.video}_{self.number:06d}"

    def load(self) -> np.ndarray:
        return self._frames().draw(self.number).image_HxWx3

    def load_labels(self, size: tuple[int, int]) -> np.ndarray:
        return CITYSCAPES_TRAIN_ID_OF_LABEL_ID[self._frames().draw(self.number).labels_HxW]

    def _frames(self) -> SnippetFrames:
        return SnippetFrames("val", self.snippet, self.size, seed=0, is_degraded=False)


def plan_of(frames: Sequence[StreetFrame]) -> SplitPlan:
    indices = []
    for video, grouped in itertools.groupby(frames, lambda frame: frame.video):
        of_video = list(grouped)
        count = len(of_video)
        numbers = tuple(frame.number for frame in of_video)
        ids, groups = tuple(frame.id for frame in of_video), ("",) * count
        places, begins = tuple(range(count)), (0,) * count
        indices.append(ClipIndex((video,), (count,), numbers, (), ids, groups, places, begins))
    return SplitPlan(ClipIndex.joined(indices), frames, 0, labelled=True)


def write_videos(out: Path, frames_of_snippet: Mapping[int, range]) -> ClipRecords:
    """Records of the split `val`."""
    frames = [
        StreetFrame(snippet, number)
        for snippet, numbers in frames_of_snippet.items()
        for number in numbers
    ]
    write_records(out, CITYSCAPES, 0, {"val": plan_of(frames)})
    return open_clips(out, "val")
