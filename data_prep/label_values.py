"""Reads the values of label PNGs, and notices where a palette says something else than its indices.

Whoever writes indices may give them any palette to show them in: it is decoration. But lossless
optimisers and annotation tools also turn pictures of grey values or of colours into palettes, whose
indices are then in an order of their own and mean nothing. Such a palette is known by what it
holds: valid values as shades of grey, or colours of the classes, that are not those of the indices.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.label_pictures import LabelPicture
from data_prep.records.writer import WrongSourceError
from tmanet_jax.data.classes import IGNORE, Colour, voc_colour

_BLACK_AND_WHITE = [(0, 0, 0), (255, 255, 255)]


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
