"""What label files mean: PNGs of indices (grey or palette) or of colours, and their classes.

Whoever writes indices may give them any palette to show them in: it is decoration. But lossless
optimisers and annotation tools also turn pictures of grey values or of colours into palettes, whose
indices are then in an order of their own and mean nothing. Such a palette is known by what it
holds: valid values as shades of grey, or colours of the classes, that are not those of the indices.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np

from data_prep.source import SourceFile, WrongSourceError, decoded
from tmanet_jax.data.classes import (
    IGNORE,
    INVALID,
    ClassSet,
    Colour,
    colours_to_indices,
    refuse_unknown,
    voc_colour,
)
from tmanet_jax.errors import UserError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _RGB_ALPHA = 0, 2, 3, 6
_BLACK_AND_WHITE = [(0, 0, 0), (255, 255, 255)]


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


class LabelFile(Protocol):
    """A label picture, and how it is read."""

    @property
    def file(self) -> SourceFile:
        """The picture."""

    @property
    def fingerprint(self) -> str:
        """Changes when the picture does, or how it is read."""

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """What the picture, once read, holds: uint8 HxW; raises UserError if that is not valid."""


Mark = int | Colour | str
"""What stands for a class in label files: a value, a colour, or in files of polygons a name."""


@dataclass(frozen=True)
class Classes:
    """Classes, and the colours that label files hold them in.

    Attributes:
        class_set: the classes.
        ignored_colour: of pixels that do not count, in label files of colours; None if none is.
        marks: the train ids (`IGNORE`: ignored) that values, further colours, and further names
            in label files stand for. If there is a value, no other one but `IGNORE` is valid.
    """

    class_set: ClassSet
    ignored_colour: Colour | None = None
    marks: Mapping[Mark, int] = field(default_factory=dict)

    @property
    def index_of_colour(self) -> Mapping[Colour, int]:
        """The train id that each colour stands for."""
        colours = dict(zip(self.class_set.palette_Cx3, range(IGNORE), strict=False))
        if self.ignored_colour is not None:
            colours[self.ignored_colour] = IGNORE
        return colours | {of: index for of, index in self.marks.items() if isinstance(of, tuple)}

    @property
    def index_of_value(self) -> Mapping[int, int]:
        """The train id that each value of a label file of indices stands for."""
        listed = {of: index for of, index in self.marks.items() if isinstance(of, int)}
        own = {index: index for index in range(self.class_set.num_classes)}
        return {IGNORE: IGNORE} | (listed or own)

    @property
    def index_of_name(self) -> Mapping[str, int]:
        """The train id that each name in a file of polygons stands for."""
        names = dict(zip(self.class_set.names, range(IGNORE), strict=False))
        return names | {of: index for of, index in self.marks.items() if isinstance(of, str)}


@dataclass(frozen=True)
class ClassLabels:
    """A label file of the classes' indices (255: ignored), or in their colours.

    Attributes:
        file: the picture.
        classes: what it holds.
        listed_in: where a reader finds the colours, for messages.
    """

    file: SourceFile
    classes: Classes
    listed_in: str = "the classes"

    @property
    def fingerprint(self) -> str:
        """Changes when the picture does, or the classes; begun records know it in these words."""
        of = self.classes
        return (
            f"{self.file.fingerprint} Classes(class_set={of.class_set!r}, "
            f"ignored_colour={of.ignored_colour!r}, sources={of.marks!r})"
        )

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """Train ids: uint8 HxW.

        Raises:
            UserError: the file cannot be read, or holds an index or a colour of no class.
        """
        classes, where = self.classes, str(self.file)
        colours = classes.index_of_colour
        if picture.holds_colours:
            return colours_to_indices(
                picture.colours(), colours, where, f"those of {self.listed_in}"
            )
        index_of_value = classes.index_of_value
        values_of = [
            (colour, value)
            for colour, index in colours.items()
            for value in index_of_value
            if index_of_value[value] == index
        ]
        values_HxW = read_values(picture, LabelTable.of(index_of_value, values_of))
        index_256 = np.full(256, INVALID, np.uint8)
        index_256[list(index_of_value)] = list(index_of_value.values())
        valid = ", ".join(map(str, sorted(index_of_value.keys() - {IGNORE})))
        if not classes.marks:
            valid = f"0..{classes.class_set.num_classes - 1}"
        refuse_unknown(values_HxW, index_256 != INVALID, where, f"{valid} or {IGNORE}")
        return index_256[values_HxW]


@dataclass(frozen=True)
class LabelTable:
    """What label files of indices may hold.

    Attributes:
        values: the valid values.
        colours: the values that each colour stands for.
    """

    values: frozenset[int]
    colours: Mapping[Colour, frozenset[int]]

    @classmethod
    def of(cls, values: Iterable[int], colours: Iterable[tuple[Colour, int]]) -> "LabelTable":
        """From pairs of a colour and a value that it stands for, among others maybe."""
        of_colour: dict[Colour, frozenset[int]] = {}
        for colour, value in colours:
            of_colour[colour] = of_colour.get(colour, frozenset()) | {value}
        return cls(frozenset(values), of_colour)


def read_values(picture: LabelPicture, table: LabelTable) -> np.ndarray:
    """The values that a grey or palette PNG holds, uint8 HxW; they may be out of range.

    Raises:
        WrongSourceError: its palette and its indices are both valid, and differ.
        UserError: it cannot be decoded.
    """
    indices_HxW = picture.indices()
    used = used_indices(indices_HxW)
    shown = picture.shown
    values = values_of_colours(used, shown, table)
    is_certain = False
    if values is None:
        values = _values_of_greys(used, picture, table)
        is_certain = picture.has_palette and shown[:2] != _BLACK_AND_WHITE
    wrong = [index for index, value in (values or {}).items() if value != index]
    if values is None or not wrong:
        return indices_HxW
    if len(values) < len(used) or (table.values.issuperset(used) and not is_certain):
        raise WrongSourceError(
            f"Labels {picture.file}: index {wrong[0]} is shown in the colour (RGB) "
            f"{shown[wrong[0]]}, which stands for {values[wrong[0]]}. If the indices are right, "
            "save the labels as grey PNGs of 8 bits that hold them; if the colours are, as RGB or "
            "as the grey values that they stand for."
        )
    value_of_index_256 = np.arange(256, dtype=np.uint8)
    value_of_index_256[used] = [values[index] for index in used]
    return value_of_index_256[indices_HxW]


def used_indices(indices_HxW: np.ndarray) -> list[int]:
    """The indices that occur, in ascending order."""
    counts: list[int] = np.bincount(indices_HxW.reshape(-1)).nonzero()[0].tolist()
    return counts


def values_of_colours(
    used: Sequence[int], shown: Sequence[Colour], table: LabelTable
) -> Mapping[int, int] | None:
    """The value of each index by its colour, the index itself if it is one of several.

    Without the indices whose colour is not known. None if the colours are not those of the table:
    most are unknown (black may be the background), all are as grey as the index says, two are alike
    that are not the indices, or they are PASCAL VOC's, which many tools give to any labels.
    """
    colour_of = {index: shown[index] for index in used if index < len(shown)}
    known = {index: colour for index, colour in colour_of.items() if colour in table.colours}
    unknown = set(colour_of.values()) - set(known.values()) - {(0, 0, 0)}
    is_ramp = all(colour == (index,) * 3 for index, colour in known.items())
    if is_ramp or len(colour_of) < len(used) or len(known) <= len(unknown):
        return None
    is_voc = all(colour == voc_colour(index) for index, colour in colour_of.items())
    if is_voc and not {voc_colour(n) for n in range(len(table.values) + 1)} >= table.colours.keys():
        return None
    values = {
        index: index if index in table.colours[colour] else min(table.colours[colour])
        for index, colour in known.items()
    }
    are_alike = len(set(known.values())) < len(known)
    return None if are_alike and any(i != value for i, value in values.items()) else values


def _values_of_greys(
    used: Sequence[int], picture: LabelPicture, table: LabelTable
) -> Mapping[int, int] | None:
    """The value of each index by its shade of grey; None if they are not valid values, each once.

    Two shades of two classes are a mask. A whole ramp of shades is decoration.
    """
    shown = picture.shown
    valid = {(value,) * 3 for value in table.values}
    is_mask = table.values - {IGNORE} == {0, 1} and shown[:2] == _BLACK_AND_WHITE
    if is_mask or used[-1] >= len(shown):
        return None
    if picture.has_palette:
        spare = {colour for index, colour in enumerate(shown) if colour != (index,) * 3}
        is_known = valid | {(0, 0, 0)} >= spare
    else:  # nothing says what else it might hold; fewer bits would do for 0 and 255 alone
        is_known = picture.bits == 1 or (IGNORE,) * 3 not in {shown[index] for index in used}
    values = {index: shown[index][0] for index in used}
    is_value = valid >= {shown[index] for index in used} and len(set(values.values())) == len(used)
    return values if is_known and is_value else None


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file: length, kind, content and their CRC."""
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)
