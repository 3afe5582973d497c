"""KITTI-STEP in the layout of its download: panoptic maps, sequences of several sizes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.made.picture_files import write_png
from tests.made.small_videos import numbered

SIZES = {"0000": (96, 128), "0001": (100, 140)}
NUM_FRAMES = 4


def train_ids(sequence: str, number: int) -> np.ndarray:
    rng = np.random.default_rng([int(sequence), number])
    return rng.choice([*range(19), 255], SIZES[sequence]).astype(np.uint8)


def panoptic(sequence: str, number: int) -> np.ndarray:
    ids_HxW = train_ids(sequence, number)
    instances_HxW = np.random.default_rng(number).integers(0, 300, ids_HxW.shape)
    return np.stack([ids_HxW, instances_HxW // 256, instances_HxW % 256], -1).astype(np.uint8)


def write_kitti_step(root: Path, frames_in: Mapping[str, str]) -> Path:
    """Writes two sequences; `frames_in` are the folders of each split's frames."""
    for split, folder in frames_in.items():
        for sequence, size in SIZES.items():
            for number in range(NUM_FRAMES):
                name = f"{sequence}/{number:06d}.png"
                write_png(root / folder / name, numbered(number, size))
                if split != "test":
                    write_png(root / f"panoptic_maps/{split}/{name}", panoptic(sequence, number))
    return root
