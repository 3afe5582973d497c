"""Reads label PNGs: indices (grey or palette), or colours."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.pictures import decoded
from data_prep.source_tree import SourceFile
from tmanet_jax.data.classes import Colour
from tmanet_jax.errors import UserError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _RGB_ALPHA = 0, 2, 3, 6


@dataclass(frozen=True)
class LabelPicture:
    """A label PNG of which the header is known to be whole.

    Attributes:
        file: where it is.
        content: its bytes.
    """

    file: SourceFile
    content: bytes

    @classmethod
    def read(cls, file: SourceFile) -> "LabelPicture":
        """Reads a file; raises UserError if it is empty or begins as no label PNG does."""
        content = file.read_bytes()
        if not content:
            raise UserError(f"{file} is empty. Get the file again.")
        picture = cls(file, content)
        is_png = content.startswith(_SIGNATURE) and content[12:16] == b"IHDR" and len(content) > 32
        if not is_png or picture._kind not in (_GREY, _RGB, _PALETTE, _RGB_ALPHA):
            raise UserError(
                f"Labels {file} cannot be decoded as a PNG of colours or of indices (grey or "
                "palette): the file is torn or something else. Get it again."
            )
        return picture

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the header claims."""
        width, height = struct.unpack_from(">II", self.content, 16)
        return height, width

    @property
    def holds_colours(self) -> bool:
        """Whether it holds colours, not indices (grey or palette)."""
        return self._kind in (_RGB, _RGB_ALPHA)

    @property
    def has_palette(self) -> bool:
        """Whether it holds indices of a palette."""
        return self._kind == _PALETTE

    @property
    def bits(self) -> int:
        """Of a sample."""
        return self.content[24]

    @property
    def shown(self) -> list[Colour]:
        """The RGB colours that the indices 0, 1, ... are shown in; of grey PNGs, shades of grey."""
        if not self.has_palette:
            return [(shade, shade, shade) for shade in range(0, 256, self._spread)]
        palette = next((body for kind, body in self._chunks() if kind == b"PLTE"), b"")
        return [(red, green, blue) for red, green, blue in struct.iter_unpack("BBB", palette)]

    def indices(self) -> np.ndarray:
        """The samples of a grey or palette PNG of 8 bits or fewer: uint8 HxW.

        Raises:
            UserError: the file cannot be decoded or holds something else.
        """
        content = self._palette_called_grey() if self.has_palette else self.content
        indices_HxW = decoded(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if indices_HxW is None:
            raise self._torn()
        if indices_HxW.ndim != 2 or indices_HxW.dtype != np.uint8:
            raise UserError(
                f"Labels {self.file} have {indices_HxW.ndim} dimensions of {indices_HxW.dtype}: "
                "expected one channel of 8 bits, each value a class."
            )
        return indices_HxW // self._spread

    def colours(self) -> np.ndarray:
        """The colours, those of a palette too: uint8 HxWx3 RGB. Raises UserError if it is torn."""
        how = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        colours_HxWx3 = decoded(np.frombuffer(self.content, np.uint8), how)
        if colours_HxWx3 is None:
            raise self._torn()
        return colours_HxWx3

    @property
    def _kind(self) -> int:
        return self.content[25]

    @property
    def _spread(self) -> int:
        """How far apart OpenCV puts the values of a PNG of fewer than 8 bits, to reach 255."""
        return 255 // (2**self.bits - 1) if self.bits < 8 else 1

    def _chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """Kind and body of each chunk; raises UserError if one before the picture is damaged."""
        position = len(_SIGNATURE)
        while position + 12 <= len(self.content):
            length, kind = struct.unpack_from(">I4s", self.content, position)
            chunk = self.content[position : position + length + 12]
            position += length + 12
            if chunk != png_chunk(kind, chunk[8:-4]):
                raise self._torn()
            yield kind, chunk[8:-4]

    def _palette_called_grey(self) -> bytes:
        """OpenCV would give the palette's colours, not the indices."""
        chunks = [
            png_chunk(kind, body[:9] + bytes([_GREY]) + body[10:] if kind == b"IHDR" else body)
            for kind, body in self._chunks()
            if kind not in (b"PLTE", b"tRNS")
        ]
        return _SIGNATURE + b"".join(chunks)

    def _torn(self) -> UserError:
        return UserError(
            f"Labels {self.file} cannot be decoded: the file is torn or no picture. Get it again."
        )


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file: length, kind, content and their CRC."""
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)
