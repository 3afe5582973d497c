"""Records of rendered videos: every frame is a query with labels, without memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_prep.records.writer import SplitPlan, write_records
from data_prep.street.render import SnippetFrames
from tmanet_jax.data.classes import CITYSCAPES, CITYSCAPES_TRAIN_ID_OF_LABEL_ID
from tmanet_jax.data.records import Clip, ClipRecords, open_clips


@dataclass(frozen=True)
class StreetFrame:
    """A frame of a rendered snippet, as a clip without memory."""

    snippet: int
    number: int
    size: tuple[int, int] = (64, 128)
    group: str = ""
    stand_ins: int = 0
    fingerprint: str = ""

    @property
    def id(self) -> str:
        return f"rasterburg_{self.snippet:06d}_{self.number:06d}"

    def load(self) -> Clip:
        frames = SnippetFrames("val", self.snippet, self.size, seed=0, is_degraded=False)
        picture = frames.draw(self.number)
        labels_HxW = CITYSCAPES_TRAIN_ID_OF_LABEL_ID[picture.labels_HxW]
        return Clip(self.id, self.group, picture.image_HxWx3[None], labels_HxW)


def write_videos(out: Path, frames_of_snippet: Mapping[int, range]) -> ClipRecords:
    """Records of the split `val`."""
    frames = [
        StreetFrame(snippet, number)
        for snippet, numbers in frames_of_snippet.items()
        for number in numbers
    ]
    write_records(out, CITYSCAPES, 0, {"val": SplitPlan(frames, labelled=True)})
    return open_clips(out, "val")
