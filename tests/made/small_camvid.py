"""A CamVid of a few clips, in the layout of its download."""

from pathlib import Path
from typing import Any

import numpy as np

from data_prep.camvid_source import SEQ01, SEQ05, SEQ06, SEQ16, RawVideo
from tests.made.picture_files import write_png
from tests.made.small_videos import SIZE, numbered, write_video

SPLITS = {
    "train": ((SEQ01, range(6670, 6691, 10)), (SEQ06, range(13, 34, 10))),
    "val": ((SEQ16, range(20, 27, 2)),),
    "test": ((SEQ05, range(10, 31, 10)),),
}
"""In place of the published ones."""

FIRST_NUMBERS = {SEQ05: -1, SEQ06: 3, SEQ16: 0, SEQ01: 6660}
NUM_FRAMES = 40

_INTERLACED: dict[str, Any] = {"interlaced": True, "options": {"g": "6", "bf": "2", "b": "4M"}}
_CODECS: dict[RawVideo, tuple[str, dict[str, Any]]] = {
    SEQ05: ("mpeg2video", _INTERLACED),
    SEQ06: ("mpeg2video", {"options": {"g": "1", "b": "8M"}}),
    SEQ16: ("mpeg2video", _INTERLACED),
    SEQ01: ("mpeg4", {"options": {"bf": "2", "b": "4M"}}),
}

ROAD, SKY, TREE = (128, 64, 128), (128, 128, 128), (128, 128, 0)
"""Label colours: sky above, road below, and a tree whose place follows from the frame's number."""


def shown(video: RawVideo, number: int) -> int:
    """The number that a frame shows: its index in the video."""
    return number - FIRST_NUMBERS[video]


def label_colours(number: int) -> np.ndarray:
    colours_HxWx3 = np.empty((*SIZE, 3), np.uint8)
    colours_HxWx3[: SIZE[0] // 2] = SKY
    colours_HxWx3[SIZE[0] // 2 :] = ROAD
    colours_HxWx3[10:20, number % 100 : number % 100 + 5] = TREE
    return colours_HxWx3


def label_indices(number: int, sky: int = 1, road: int = 4, tree: int = 6) -> np.ndarray:
    colours_HxWx3 = label_colours(number)
    indices_HxW = np.zeros(SIZE, np.uint8)
    for colour, index in ((SKY, sky), (ROAD, road), (TREE, tree)):
        indices_HxW[np.all(colours_HxWx3 == colour, axis=-1)] = index
    return indices_HxW


def still_path(source: Path, name: str) -> Path:
    return source / "701_StillsRaw_full" / f"{name}.png"


def labels_path(source: Path, name: str) -> Path:
    return source / "LabeledApproved_full" / f"{name}_L.png"


def write_camvid(source: Path) -> Path:
    """Writes videos, stills and labels."""
    for video, (codec, settings) in _CODECS.items():
        frames = [numbered(index) for index in range(NUM_FRAMES)]
        write_video(source / "videos" / video.file, frames, codec, **settings)
    labelled = [
        (video, number)
        for parts in SPLITS.values()
        for video, numbers in parts
        for number in numbers
    ]
    for video, number in [*labelled, (SEQ05, 0)]:
        name = video.frame_name(number)
        write_png(still_path(source, name), numbered(shown(video, number)))
        write_png(labels_path(source, name), label_colours(number))
    return source
