"""Reads frames."""

import cv2
import numpy as np

from data_prep.source_tree import SourceFile
from tmanet_jax.errors import UserError


def read_frame(file: SourceFile) -> np.ndarray:
    """Reads a colour picture: uint8 HxWx3 RGB. Raises UserError if it cannot be decoded."""
    content = file.read_bytes()
    if not content:
        raise UserError(f"{file} is empty. Get the file again.")
    frame_HxWx3 = decoded(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if frame_HxWx3 is None:
        raise UserError(
            f"Frame {file} cannot be decoded: it is torn or no picture. Get the file again."
        )
    return frame_HxWx3


def decoded(content: np.ndarray, how: int) -> np.ndarray | None:
    """The picture in a file's bytes.

    None if it cannot be decoded, or has a size that OpenCV refuses.
    """
    try:
        return cv2.imdecode(content, how)
    except cv2.error:
        return None


def check_size(
    found: tuple[int, ...], file: SourceFile, expected: tuple[int, ...], query: SourceFile
) -> None:
    """Raises UserError unless a picture has the height and width of its clip's query."""
    if found != expected:
        raise UserError(
            f"{file} is {found[0]}x{found[1]} pixels (height x width), but its query {query} is "
            f"{expected[0]}x{expected[1]}: all pictures of a clip must have the same size."
        )
