"""Predictions as files: what the servers of benchmarks want.

Cityscapes: 8-bit palette PNGs of label ids, each named as its frame
(`berlin_000000_000019_leftImg8bit.png`). Source: `mmseg/datasets/cityscapes.py`, `results2img`.
VSPW: palette PNGs of train ids, `VIDEO/NNNNNNNN.png`. Source: VSPW-dataset/VSPW_baseline,
`test.py`.
Other data sets: palette PNGs of train ids, named by the clip.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tmanet_jax.data.classes import (
    CITYSCAPES,
    VSPW,
    CITYSCAPES_LABEL_PALETTE_35x3,
    ClassSet,
    palette_png,
    train_ids_to_label_ids,
)
from tmanet_jax.data.files import write_whole
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.errors import UserError, counted
from tmanet_jax.scoring.clips import SegmentedClip


@dataclass(frozen=True)
class Submission:
    """A directory of predictions.

    Attributes:
        directory: where the files go.
        classes: of the data set.
        num_clips: how many files it will hold.
    """

    directory: Path
    classes: ClassSet
    num_clips: int

    @classmethod
    def begin(cls, directory: Path, records: ClipRecords) -> "Submission":
        """Makes the directory for the predictions of a split.

        Raises:
            UserError: it cannot be written, or holds pictures that are none of the split's.
        """
        classes = records.info.classes
        names = {result_name(records.clip_id(i), classes) for i in range(len(records))}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            found = {path.relative_to(directory).as_posix() for path in directory.rglob("*.png")}
            strangers = sorted(found - names)
        except OSError as error:
            raise _unwritable(directory, error) from error
        if strangers:
            raise UserError(
                f"{directory} holds {strangers[0]}, which is no result of the split "
                f"{records.split!r}: a server would refuse it. Choose another --submit, or empty "
                "it."
            )
        return cls(directory, classes, len(records))

    def add(self, segmented: SegmentedClip) -> None:
        """Writes the prediction of a clip; the file appears whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        path = self.directory / result_name(segmented.clip.id, self.classes)
        try:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, result_png(segmented.predicted_HxW, self.classes))
        except OSError as error:
            raise _unwritable(self.directory, error) from error

    def __str__(self) -> str:
        return f"results:  {counted(self.num_clips, 'file')} in {self.directory}/"


def result_name(clip_id: str, classes: ClassSet) -> str:
    """The path of a clip's prediction in the directory."""
    if classes.name == CITYSCAPES.name:
        return f"{clip_id}_leftImg8bit.png"
    if classes.name == VSPW:
        video, _, frame = clip_id.rpartition("_")
        return f"{video}/{frame}.png"
    return f"{clip_id}.png"


def result_png(predicted_HxW: np.ndarray, classes: ClassSet) -> bytes:
    """The file of a prediction (train ids)."""
    if classes.name == CITYSCAPES.name:
        label_ids_HxW = train_ids_to_label_ids(predicted_HxW, "the prediction")
        return palette_png(label_ids_HxW, CITYSCAPES_LABEL_PALETTE_35x3)
    return palette_png(predicted_HxW, classes.palette_Cx3)


def _unwritable(directory: Path, error: OSError) -> UserError:
    return UserError(
        f"The results in {directory} cannot be written: {error.strerror}. Choose another --submit."
    )
