"""The forms that CamVid's labels come in, and how to tell them apart.

    colours      the 32 RGB colours, as published; in a palette too
    indices12    0 void, 1 sky, ..., 11 bicyclist: the classes of this project
    indices11    0 sky, ..., 10 bicyclist, and 11 (or 255) void: a common conversion

Index files of both kinds hold 0..11, so one file cannot tell which it is. A palette can, if it is
of CamVid's colours. Without one, the set tells: what lies before the camera is road, by far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from data_prep.label_pictures import LabelPicture
from data_prep.label_values import LabelTable, read_values, used_indices, values_of_colours
from data_prep.records.writer import WrongSourceError
from data_prep.source_tree import SourceFile
from tmanet_jax.data.classes import (
    CAMVID,
    CAMVID_CLASS_OF_COLOUR,
    IGNORE,
    colours_to_train_ids,
)
from tmanet_jax.errors import UserError

LabelFormat = Literal["colours", "indices12", "indices11"]
LABEL_FORMATS: tuple[LabelFormat, ...] = get_args(LabelFormat)

_SAMPLE = 64
"""How many files the set is judged by, evenly spread."""

_ROAD = CAMVID.names.index("road")
_CLASS_OF_COLOUR = [(c, CAMVID.names.index(name)) for c, name in CAMVID_CLASS_OF_COLOUR.items()]
_VOID11 = 11
_COLOURS: frozenset[LabelFormat] = frozenset({"colours"})
_INDICES: frozenset[LabelFormat] = frozenset({"indices12", "indices11"})
_PALETTE12: frozenset[LabelFormat] = frozenset({"colours", "indices12"})
_PALETTE11: frozenset[LabelFormat] = frozenset({"colours", "indices11"})
_TABLES: dict[LabelFormat, LabelTable] = {
    "indices12": LabelTable.of(range(12), _CLASS_OF_COLOUR),
    "indices11": LabelTable.of(
        [*range(12), IGNORE],
        [(colour, index - 1 if index else _VOID11) for colour, index in _CLASS_OF_COLOUR]
        + [((0, 0, 0), IGNORE)],
    ),
}


def find_label_format(files: Sequence[SourceFile]) -> LabelFormat:
    """Tells which form label files have.

    Args:
        files: all label files of a data set, in a fixed order.

    Raises:
        WrongSourceError: they are of different kinds, or the indices can be read either way.
        UserError: a file cannot be read.
    """
    samples = [LabelPicture.read(file) for file in files[:: max(1, len(files) // _SAMPLE)]]
    found = {_possible_forms(sample): sample.file for sample in samples}
    if _PALETTE11 in found and _PALETTE12 in found and _COLOURS not in found:
        raise WrongSourceError(
            f"The palettes of {found[_PALETTE11]} (11 classes) and {found[_PALETTE12]} (12) "
            "differ: expected one form of labels. If all palettes show the right colours, say "
            "--label-format=colours."
        )
    possible = frozenset(LABEL_FORMATS).intersection(*found)
    if not possible:
        raise WrongSourceError(
            f"Labels are colours in {found[_COLOURS]} and indices in {found[_INDICES]}: expected "
            "one kind. Remove the files of the other."
        )
    if possible == _INDICES:
        return _form_by_road(samples)
    return next(iter(possible & _INDICES), "colours")


@dataclass(frozen=True)
class CamvidLabels:
    """A label file.

    Attributes:
        file: the picture.
        form: what it holds.
    """

    file: SourceFile
    form: LabelFormat

    @property
    def fingerprint(self) -> str:
        """Changes when the picture does, or how it is read."""
        return f"{self.file.fingerprint} {self.form}"

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """The 12 classes: uint8 HxW.

        Raises:
            UserError: the file cannot be read, or holds colours or indices that the form lacks.
        """
        if self.form == "colours":
            return colours_to_train_ids(picture.colours(), str(self.file))
        labels_HxW = read_values(picture, _TABLES[self.form])
        if self.form == "indices11":
            _check_indices11(labels_HxW, self.file)
            labels_HxW = np.where(labels_HxW < _VOID11, labels_HxW + 1, 0).astype(np.uint8)
        CAMVID.check(labels_HxW, str(self.file))
        return labels_HxW


def _possible_forms(picture: LabelPicture) -> frozenset[LabelFormat]:
    """The forms that agree with a picture's kind and its palette."""
    if picture.holds_colours:
        return _COLOURS
    used, shown = used_indices(picture.indices()), picture.shown
    values_of = {form: values_of_colours(used, shown, table) for form, table in _TABLES.items()}
    known = {form: values for form, values in values_of.items() if values is not None}
    if not known:
        return _INDICES
    agreeing = (form for form, values in known.items() if all(k == v for k, v in values.items()))
    return _COLOURS.union(agreeing)


def _form_by_road(pictures: Sequence[LabelPicture]) -> LabelFormat:
    counts_256 = np.zeros(256, np.int64)
    for picture in pictures:
        labels_HxW = picture.indices()
        lowest_third = labels_HxW[-(len(labels_HxW) // 3 or 1) :]
        if strange := [index for index in used_indices(labels_HxW) if 11 < index < IGNORE]:
            raise WrongSourceError(
                f"{picture.file} holds the index {strange[0]}, so that it is neither of CamVid's "
                "12 classes nor of 11. If its palette shows CamVid's 32 colours, say "
                "--label-format=colours; other indices have to be converted first."
            )
        counts_256 += np.bincount(lowest_third.ravel(), minlength=256)
    shares_256 = counts_256 / counts_256.sum()
    if_12, if_11 = shares_256[_ROAD], shares_256[_ROAD - 1]
    if max(if_12, if_11) < 0.2 or max(if_12, if_11) < 2 * min(if_12, if_11):
        raise WrongSourceError(
            f"It cannot be told whether the label indices, such as those in {pictures[0].file}, "
            "are of 12 classes (void first) or of 11 (sky first): of the lowest third of the "
            f"pictures, {if_12:.0%} would be road or {if_11:.0%}. Say --label-format=indices12 or "
            "--label-format=indices11."
        )
    return "indices12" if if_12 > if_11 else "indices11"


def _check_indices11(labels_HxW: np.ndarray, file: SourceFile) -> None:
    is_unknown_HxW = (labels_HxW > 11) & (labels_HxW < 255)
    if is_unknown_HxW.any():
        row, column = np.argwhere(is_unknown_HxW)[0]
        raise UserError(
            f"Label value {labels_HxW[row, column]} in {file} at row {row}, column {column} is "
            "out of range: expected 0..10, and 11 or 255 for void."
        )
