"""Somebody's own data: two small videos with labels and classes, and what is made of them."""

from pathlib import Path

import numpy as np

from data_prep import folder
from tests.made.picture_files import write_png
from tests.made.small_videos import number_of, numbered
from tmanet_jax.data.records import ClipRecords, open_clips

SIZE = (96, 128)
CLASSES = "name,red,green,blue\nroad,90,90,90\ncar,200,0,0\nsky,0,0,250\n"
COLOURS = np.array([(90, 90, 90), (200, 0, 0), (0, 0, 250)], np.uint8)


def labels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 3, SIZE, np.uint8)


def write_source(root: Path) -> Path:
    """Frames 3 to 8 of a drive for training and one for scoring, of which 5 and 8 have labels."""
    for split in ("train", "val"):
        for number in range(3, 9):
            write_png(root / f"frames/{split}/drive/{number:06d}.png", numbered(number))
        for number in (5, 8):
            write_png(root / f"labels/{split}/drive/{number:06d}.png", labels_of(number))
    (root / "classes.csv").write_text(CLASSES)
    return root


def prepare(source: Path, *options: str) -> int:
    return folder.main([f"--source={source}", f"--out={source.parent / 'out'}", *options])


def clips_of(source: Path, split: str = "train") -> ClipRecords:
    return open_clips(source.parent / "out", split)


def shown_numbers(clips: ClipRecords, index: int, memory_range: int = 2) -> list[int]:
    frames_SxHxWx3 = clips.read(index, range(memory_range, 0, -1)).frames_SxHxWx3
    return [number_of(frame) for frame in frames_SxHxWx3]
