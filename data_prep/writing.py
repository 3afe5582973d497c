"""Writes files that are never seen half-written."""

import os
from pathlib import Path

import cv2
import numpy as np

from tmanet_jax.errors import UserError


def write_frame(path: Path, frame_HxWx3: np.ndarray) -> None:
    """Writes an RGB frame as PNG; raises UserError if it cannot be written."""
    is_encoded, content = cv2.imencode(
        ".png", frame_HxWx3[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    assert is_encoded
    write_whole(path, content.tobytes())


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, in place of what is there; raises UserError if it cannot be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror}. What is written already stays; make room, or "
            "choose another directory, and prepare again."
        ) from error
