"""Frames and labels as bytes, losslessly.

Frames are cut into tiles of 64x256 pixels; a tile's rows are replaced by their difference (modulo
256) to the row above, and the tile is compressed with zstd. That is six times as fast to decode as
PNG, and a window decodes only the tiles it touches. Labels are compressed whole. zstd's checksum of
each tile's content is beside it (records made before November 2026 have none): damage is an error.
"""

import argparse
import re
import struct
from typing import NamedTuple

import numpy as np
import zstandard

TILE_HEIGHT, TILE_WIDTH = 64, 256
_FRAME_LEVEL, _LABEL_LEVEL = 1, 15
_HEADER = struct.Struct("<4sHHH")
_FRAME_MAGIC, _LABEL_MAGIC = b"TMAf", b"TMAl"
_CODEC_VERSION = 1

Buffer = bytes | memoryview

DAMAGE = (ValueError, struct.error, zstandard.ZstdError, MemoryError)
"""What reading damaged bytes may raise."""


class Size(NamedTuple):
    """A picture's height and width in pixels."""

    height: int
    width: int


def parse_size(text: str) -> Size:
    """A size from a command line, as in 256x512; for argparse."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(int(match[1]), int(match[2])) < 8:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not height x width in pixels, from 8 on, as in 256x512"
        )
    return Size(int(match[1]), int(match[2]))


def encode_frame(frame_HxWx3: np.ndarray) -> bytes:
    """Encodes a uint8 frame of at most 65535x65535 pixels, losslessly."""
    size = Size(*frame_HxWx3.shape[:2])
    compressor = zstandard.ZstdCompressor(level=_FRAME_LEVEL, write_checksum=True)
    tiles = []
    for top in range(0, size.height, TILE_HEIGHT):
        for left in range(0, size.width, TILE_WIDTH):
            tile_hxwx3 = frame_HxWx3[top : top + TILE_HEIGHT, left : left + TILE_WIDTH]
            difference_hxwx3 = tile_hxwx3.copy()
            difference_hxwx3[1:] -= tile_hxwx3[:-1]
            tiles.append(compressor.compress(difference_hxwx3.tobytes()))
    ends = np.cumsum([len(tile) for tile in tiles], dtype="<u4")
    header = _HEADER.pack(_FRAME_MAGIC, _CODEC_VERSION, *size)
    return b"".join([header, ends.tobytes(), *tiles])


def frame_size(encoded: Buffer) -> Size:
    """Size of an encoded frame, without decoding it."""
    return _size(encoded, _FRAME_MAGIC)


def decode_frame(encoded: Buffer) -> np.ndarray:
    """Decodes a whole frame: uint8 HxWx3. Raises ValueError or ZstdError if it is damaged."""
    return decode_window(encoded, 0, 0, *frame_size(encoded))


def decode_window(encoded: Buffer, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Decodes frame[top : top + height, left : left + width], and only the tiles it touches.

    Returns:
        uint8 height x width x 3.

    Raises:
        ValueError: the window is empty or leaves the frame, or the bytes are not a frame.
        zstandard.ZstdError: the bytes are damaged.
    """
    from tmanet_jax.data.kernels import undo_differences  # compiled code that few processes need

    size = frame_size(encoded)
    bottom, right = top + height, left + width
    if not (0 <= top < bottom <= size.height and 0 <= left < right <= size.width):
        raise ValueError(f"Window {top}:{bottom}, {left}:{right} is not inside a frame of {size}.")
    tile_rows, tile_columns = -(-size.height // TILE_HEIGHT), -(-size.width // TILE_WIDTH)
    ends = np.frombuffer(encoded, "<u4", tile_rows * tile_columns, _HEADER.size)
    limits = [0, *ends.tolist()]
    tiles = memoryview(encoded)[_HEADER.size + ends.nbytes :]
    decompressor = zstandard.ZstdDecompressor()

    window_hxw3 = np.empty((height, 3 * width), np.uint8)
    for y in range(top - top % TILE_HEIGHT, bottom, TILE_HEIGHT):
        tile_height, first_y = min(TILE_HEIGHT, size.height - y), max(top, y)
        for x in range(left - left % TILE_WIDTH, right, TILE_WIDTH):
            tile_width, first_x = min(TILE_WIDTH, size.width - x), max(left, x)
            index = y // TILE_HEIGHT * tile_columns + x // TILE_WIDTH
            compressed = tiles[limits[index] : limits[index + 1]]
            tile = _decompress(decompressor, compressed, tile_height * 3 * tile_width)
            undo_differences(
                np.frombuffer(tile, np.uint8).reshape(tile_height, 3 * tile_width),
                first_y - y,
                3 * (first_x - x),
                window_hxw3,
                first_y - top,
                3 * (first_x - left),
                min(y + tile_height, bottom) - first_y,
                3 * (min(x + tile_width, right) - first_x),
            )
    return window_hxw3.reshape(height, width, 3)


def encode_labels(labels_HxW: np.ndarray) -> bytes:
    """Encodes uint8 labels of at most 65535x65535 pixels, losslessly."""
    header = _HEADER.pack(_LABEL_MAGIC, _CODEC_VERSION, *labels_HxW.shape)
    compressor = zstandard.ZstdCompressor(level=_LABEL_LEVEL, write_checksum=True)
    return header + compressor.compress(labels_HxW.tobytes())


def labels_size(encoded: Buffer) -> Size:
    """Size of encoded labels, without decoding them."""
    return _size(encoded, _LABEL_MAGIC)


def decode_labels(encoded: Buffer) -> np.ndarray:
    """Decodes labels: uint8 HxW. Raises ValueError or ZstdError if they are damaged."""
    size = labels_size(encoded)
    compressed = memoryview(encoded)[_HEADER.size :]
    content = _decompress(zstandard.ZstdDecompressor(), compressed, size.height * size.width)
    return np.frombuffer(content, np.uint8).reshape(size)


def _decompress(
    decompressor: zstandard.ZstdDecompressor, compressed: memoryview, num_bytes: int
) -> bytes:
    """Decompresses nothing that claims another size: a few bytes may claim gigabytes."""
    claimed = zstandard.frame_content_size(compressed)
    if claimed != num_bytes:
        raise ValueError(f"{num_bytes} bytes are expected, and the file claims {claimed}")
    return decompressor.decompress(compressed)


def _size(encoded: Buffer, expected_magic: bytes) -> Size:
    magic, version, height, width = _HEADER.unpack_from(encoded)
    if (magic, version) != (expected_magic, _CODEC_VERSION):
        raise ValueError(
            f"Expected {expected_magic!r} version {_CODEC_VERSION}, found {magic!r} {version}."
        )
    return Size(height, width)
