"""Reads frames."""

import io
import logging

import cv2
import numpy as np
from PIL import ExifTags, Image

from data_prep.source_tree import SourceFile
from tmanet_jax.data.jpeg import warning_of
from tmanet_jax.errors import UserError

_START = 1 << 16
"""Bytes that hold the EXIF of a picture, but a TIFF: it comes first and has at most so many."""


def read_frame(file: SourceFile) -> np.ndarray:
    """Reads a colour picture: uint8 HxWx3 RGB; warns of a JPEG that is damaged and decodes.

    Raises:
        UserError: it cannot be decoded.
    """
    content = file.read_bytes()
    if not content:
        raise UserError(f"{file} is empty. Get the file again.")
    frame_HxWx3 = decoded(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if frame_HxWx3 is None:
        raise UserError(
            f"Frame {file} cannot be decoded: it is torn or no picture. Get the file again."
        )
    if warning := warning_of(content):
        logging.getLogger(__name__).warning(
            "%s is damaged, and some of its pixels are wrong: libjpeg warns of '%s'. Get the file "
            "again.",
            file,
            warning,
        )
    return frame_HxWx3


def is_turned_by_exif(file: SourceFile) -> bool:
    """Whether `read_frame` turns or mirrors a picture, as EXIF asks."""
    is_at_the_end = file.name.lower().endswith((".tif", ".tiff"))
    try:
        start = file.read_bytes(-1 if is_at_the_end else _START)
        exif = Image.open(io.BytesIO(start)).getexif()
    except Exception:  # Pillow raises whatever suits it; told when the frame is read
        return False
    return exif.get(ExifTags.Base.Orientation, 1) in range(2, 9)


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
