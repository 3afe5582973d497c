"""The forms that CamVid's labels come in, and how to tell them apart.

    colours      the 32 RGB colours, as published
    indices12    0 void, 1 sky, ..., 11 bicyclist: the classes of this project
    indices11    0 sky, ..., 10 bicyclist, and 11 (or 255) void: a common conversion

Index files of both kinds hold 0..11, so one file cannot tell which it is. A palette can: it shows
the sky grey. Without one, the set tells: what lies before the camera is road, by far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from data_prep.pictures import holds_colours, read_frame, read_indices
from data_prep.source_tree import SourceFile
from tmanet_jax.data.classes import CAMVID, colours_to_train_ids
from tmanet_jax.data.record_writer import WrongSourceError
from tmanet_jax.errors import UserError

LabelFormat = Literal["colours", "indices12", "indices11"]
LABEL_FORMATS: tuple[LabelFormat, ...] = get_args(LabelFormat)

_SAMPLE = 64
"""How many files the set is judged by, evenly spread."""

_ROAD = CAMVID.names.index("road")
_SKY = CAMVID.palette_Cx3[CAMVID.names.index("sky")]


def find_label_format(files: Sequence[SourceFile]) -> LabelFormat:
    """Tells which form label files have.

    Args:
        files: all label files of a data set, in a fixed order.

    Raises:
        WrongSourceError: they are of different kinds, or the indices can be read either way.
        UserError: a file cannot be read.
    """
    step = max(1, len(files) // _SAMPLE)
    samples = files[::step]
    example = {holds_colours(file): file for file in samples}
    if len(example) > 1:
        raise WrongSourceError(
            f"Labels are colours in {example[True]} and indices in {example[False]}: expected one "
            "kind. Remove the files of the other."
        )
    if True in example:
        return "colours"
    by_palette = {_form_by_palette(file.read_bytes()): file for file in samples}
    if None not in by_palette and len(by_palette) > 1:
        raise WrongSourceError(
            f"The palettes of {by_palette['indices11']} (11 classes) and "
            f"{by_palette['indices12']} (12) differ: expected one form of labels."
        )
    form = next(iter(by_palette)) if len(by_palette) == 1 else None
    return form or _form_by_road(samples)


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

    def load(self) -> np.ndarray:
        """The 12 classes: uint8 HxW.

        Raises:
            UserError: the file cannot be read, or holds colours or indices that the form lacks.
        """
        if self.form == "colours":
            return colours_to_train_ids(read_frame(self.file), str(self.file))
        labels_HxW = read_indices(self.file)
        if self.form == "indices11":
            _check_indices11(labels_HxW, self.file)
            labels_HxW = np.where(labels_HxW < 11, labels_HxW + 1, 0).astype(np.uint8)
        CAMVID.check(labels_HxW, str(self.file))
        return labels_HxW


def _form_by_palette(content: bytes) -> LabelFormat | None:
    """The form that a palette with CamVid's colours shows; None without one."""
    position = content.find(b"PLTE")
    if position < 0:
        return None
    first, second = content[position + 4 : position + 7], content[position + 7 : position + 10]
    if first == bytes(_SKY):
        return "indices11"
    if (first, second) == (bytes(3), bytes(_SKY)):
        return "indices12"
    return None


def _form_by_road(files: Sequence[SourceFile]) -> LabelFormat:
    counts_256 = np.zeros(256, np.int64)
    for file in files:
        labels_HxW = read_indices(file)
        lowest_third = labels_HxW[-(len(labels_HxW) // 3 or 1) :]
        counts_256 += np.bincount(lowest_third.ravel(), minlength=256)
    shares_256 = counts_256 / counts_256.sum()
    if_12, if_11 = shares_256[_ROAD], shares_256[_ROAD - 1]
    if max(if_12, if_11) < 0.2 or max(if_12, if_11) < 2 * min(if_12, if_11):
        raise WrongSourceError(
            f"It cannot be told whether the label indices, such as those in {files[0]}, are of 12 "
            f"classes (void first) or of 11 (sky first): of the lowest third of the pictures, "
            f"{if_12:.0%} would be road or {if_11:.0%}. Say --label-format=indices12 or "
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
