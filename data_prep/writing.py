"""Writes files that are never seen half-written, and says so if it cannot."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tmanet_jax.data import files
from tmanet_jax.errors import UserError


def write_frame(path: Path, frame_HxWx3: np.ndarray) -> None:
    """Writes an RGB frame as PNG; raises UserError if it cannot be written."""
    write_file(path, encoded(".png", frame_HxWx3[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 1)))


def encoded(kind: str, picture_HxW: np.ndarray, options: Sequence[int] = ()) -> bytes:
    """A picture, uint8 HxW or BGR HxWx3, as the content of a file of a kind, such as '.png'."""
    is_encoded, content = cv2.imencode(kind, picture_HxW, list(options))
    if not is_encoded:
        raise RuntimeError(f"OpenCV could not encode a {kind}")
    return content.tobytes()


def write_file(path: Path, content: bytes) -> None:
    """Writes a file and its folders; raises UserError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {files.why_not_written(error)}. What is written already "
            "stays and need not be made again."
        ) from error
