"""Reads frames and label pictures, and writes frames."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np

from tmanet_jax.data.classes import png_chunk
from tmanet_jax.errors import UserError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3


def read_frame(path: Path) -> np.ndarray:
    """Reads a colour picture: uint8 HxWx3 RGB. Raises UserError if it cannot be decoded."""
    frame_HxWx3 = cv2.imdecode(_read(path), cv2.IMREAD_COLOR_RGB)
    if frame_HxWx3 is None:
        raise UserError(
            f"Frame {path} cannot be decoded: it is torn or no picture. Get the file again."
        )
    return frame_HxWx3


def read_indices(path: Path) -> np.ndarray:
    """Reads a grey or palette PNG of 8 bits, whose values are indices: uint8 HxW.

    Raises:
        UserError: the file cannot be decoded or holds something else.
    """
    content = _palette_png_as_grey(_read(path).tobytes())
    indices_HxW = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if indices_HxW is None:
        raise UserError(
            f"Labels {path} cannot be decoded: the file is torn or no picture. Get it again."
        )
    if indices_HxW.ndim != 2 or indices_HxW.dtype != np.uint8:
        raise UserError(
            f"Labels {path} have {indices_HxW.ndim} dimensions of {indices_HxW.dtype}: expected "
            "one channel of 8 bits, each value a class."
        )
    return indices_HxW


def write_frame(path: Path, frame_HxWx3: np.ndarray) -> None:
    """Writes an RGB frame as PNG. The file is never seen half-written.

    Raises:
        UserError: it cannot be written.
    """
    is_encoded, content = cv2.imencode(
        ".png", frame_HxWx3[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    assert is_encoded
    write_whole(path, content.tobytes())


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is never seen half-written; raises UserError if it cannot be."""
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


def _read(path: Path) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if not content:
        raise UserError(f"{path} is empty. Get the file again.")
    return np.frombuffer(content, np.uint8)


def _palette_png_as_grey(content: bytes) -> bytes:
    """Calls an 8-bit palette PNG grey: OpenCV would give the palette's colours, not the indices."""
    if not content.startswith(_PNG_SIGNATURE):
        return content
    chunks = []
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        chunk = content[position : position + length + 12]
        position += len(chunk)
        if kind == b"IHDR":
            if chunk[16:18] != bytes([8, _PALETTE]):  # depth and colour type; a torn file ends here
                return content
            chunk = png_chunk(kind, chunk[8:17] + bytes([_GREY]) + chunk[18:21])
        if kind not in (b"PLTE", b"tRNS"):
            chunks.append(chunk)
    return _PNG_SIGNATURE + b"".join(chunks)
