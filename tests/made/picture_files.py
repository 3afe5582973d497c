"""Picture files of a test."""

from pathlib import Path

import cv2
import numpy as np


def write_png(path: Path, picture: np.ndarray) -> None:
    """RGB or one channel, into folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = picture[..., ::-1] if picture.ndim == 3 else picture
    assert cv2.imwrite(str(path), bgr)
