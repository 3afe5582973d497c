"""Reads frames and label pictures."""

import struct

import cv2
import numpy as np

from data_prep.source_tree import SourceFile
from tmanet_jax.data.classes import png_chunk
from tmanet_jax.errors import UserError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _RGB_ALPHA = 0, 2, 3, 6


def read_frame(file: SourceFile) -> np.ndarray:
    """Reads a colour picture: uint8 HxWx3 RGB. Raises UserError if it cannot be decoded."""
    frame_HxWx3 = _decoded(_read(file), cv2.IMREAD_COLOR_RGB)
    if frame_HxWx3 is None:
        raise UserError(
            f"Frame {file} cannot be decoded: it is torn or no picture. Get the file again."
        )
    return frame_HxWx3


def read_indices(file: SourceFile) -> np.ndarray:
    """Reads a grey or palette PNG of 8 bits or fewer, whose values are indices: uint8 HxW.

    Raises:
        UserError: the file cannot be decoded or holds something else.
    """
    content = _palette_png_as_grey(_read(file).tobytes())
    indices_HxW = _decoded(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if indices_HxW is None:
        raise UserError(
            f"Labels {file} cannot be decoded: the file is torn or no picture. Get it again."
        )
    if indices_HxW.ndim != 2 or indices_HxW.dtype != np.uint8:
        raise UserError(
            f"Labels {file} have {indices_HxW.ndim} dimensions of {indices_HxW.dtype}: expected "
            "one channel of 8 bits, each value a class."
        )
    return indices_HxW // _spread(content)


def holds_colours(file: SourceFile) -> bool:
    """Whether a PNG holds colours, not indices (grey or palette); by its header.

    Raises:
        UserError: it is no such PNG.
    """
    content = file.read_bytes()
    colour_type = content[25] if content[12:16] == b"IHDR" and len(content) > 25 else -1
    if colour_type not in (_GREY, _RGB, _PALETTE, _RGB_ALPHA):
        raise UserError(
            f"Labels {file} are no PNG of colours or of indices (grey or palette): the file is "
            "torn or something else."
        )
    return colour_type in (_RGB, _RGB_ALPHA)


def check_size(
    picture_HxW: np.ndarray, file: SourceFile, size: tuple[int, ...], query: SourceFile
) -> None:
    """Raises UserError unless a picture has the height and width of its clip's query."""
    height, width = picture_HxW.shape[:2]
    if (height, width) != size:
        raise UserError(
            f"{file} is {height}x{width} pixels (height x width), but its query {query} is "
            f"{size[0]}x{size[1]}: all pictures of a clip must have the same size."
        )


def _read(file: SourceFile) -> np.ndarray:
    content = file.read_bytes()
    if not content:
        raise UserError(f"{file} is empty. Get the file again.")
    return np.frombuffer(content, np.uint8)


def _decoded(content: np.ndarray, how: int) -> np.ndarray | None:
    """The picture; None if it cannot be decoded, or has a size that OpenCV refuses."""
    try:
        return cv2.imdecode(content, how)
    except cv2.error:
        return None


def _spread(content: bytes) -> int:
    """How far apart OpenCV puts the values of a grey PNG of fewer than 8 bits, to reach 255."""
    is_shallow = content.startswith(_PNG_SIGNATURE) and content[24] < 8
    return 255 // (2 ** content[24] - 1) if is_shallow else 1


def _palette_png_as_grey(content: bytes) -> bytes:
    """Calls a palette PNG grey: OpenCV would give the palette's colours, not the indices."""
    if not content.startswith(_PNG_SIGNATURE):
        return content
    chunks = []
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        chunk = content[position : position + length + 12]
        position += len(chunk)
        if kind == b"IHDR":
            if chunk[17:18] != bytes([_PALETTE]):  # a torn file ends here
                return content
            chunk = png_chunk(kind, chunk[8:17] + bytes([_GREY]) + chunk[18:21])
        if kind not in (b"PLTE", b"tRNS"):
            chunks.append(chunk)
    return _PNG_SIGNATURE + b"".join(chunks)
