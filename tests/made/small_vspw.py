"""VSPW in the layout of its download: lists, jumping numbers, masks from 1."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.made.picture_files import write_png
from tests.made.small_videos import SIZE, numbered

CLASSES = ("wall", "ceiling", "door")
VIDEOS = {"127_ca6Al7-lY58": "train", "0_wHveSGjXyDY": "train", "9_v": "val", "7_t": "test"}
NUMBERS = (226, 231, 240, 242, 251)


def mask_of(number: int, num_classes: int = len(CLASSES)) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.choice([*range(num_classes + 1), 255], SIZE).astype(np.uint8)


def frame_path(source: Path, video: str, number: int) -> Path:
    return source / f"data/{video}/origin/{number:08d}.jpg"


def write_vspw(
    root: Path,
    videos: Mapping[str, str] = VIDEOS,
    classes: Sequence[str] = CLASSES,
    numbers: Sequence[int] = NUMBERS,
) -> Path:
    """Writes videos of frames that show their numbers, by the name of each its split."""
    for video, split in videos.items():
        for number in numbers:
            path = frame_path(root, video, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), numbered(number)[..., ::-1])
            if split != "test":
                mask_HxW = mask_of(number, len(classes))
                write_png(root / f"data/{video}/mask/{number:08d}.png", mask_HxW)
    for split in ("train", "val", "test"):
        names = [".hidden", *(name for name, of in videos.items() if of == split)]
        (root / f"{split}.txt").write_text("\n".join(names))  # no newline at the end
    of_name = {"others": 0, **{name: i for i, name in enumerate(classes, 1)}}
    (root / "label_num_dic_final.json").write_text(json.dumps(of_name))
    return root
