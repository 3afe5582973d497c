"""Makes clip records from KITTI-STEP as it was downloaded.

    python -m data_prep.kitti_step --source=DIR --out=DIR

reads, below the source (zip files in it are read in place),

    images/SPLIT/SEQUENCE/NNNNNN.png            frames, or as KITTI's tracking download has them:
    training/image_02/SEQUENCE/NNNNNN.png       (testing/image_02 for the test split)
    panoptic_maps/SPLIT/SEQUENCE/NNNNNN.png     RGB: red is Cityscapes' train id, 255 where ignored,
                                                green and blue the instance

Every labelled frame becomes a clip, of the 19 classes of Cityscapes: weights trained on those are
scored without training. The test split has no labels.

Layout and values: google-research/deeplab2, `g3doc/setup/kitti_step.md`, `data/build_step_data.py`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep import command
from data_prep.data_set import (
    UNLABELLED_SPLIT,
    DataSet,
    FoundSplit,
    LabelledVideo,
    Options,
    Query,
    Unusable,
    files_by_number,
)
from data_prep.labels import LabelPicture
from data_prep.source import SourceFile, WrongSourceError
from tmanet_jax.data.classes import CITYSCAPES

_FRAMES_OF_KITTI = {"train": "training", "val": "training", "test": "testing"}


@dataclass(frozen=True)
class PanopticMap:
    """A picture of classes and instances.

    Attributes:
        file: the picture.
    """

    file: SourceFile

    @property
    def fingerprint(self) -> str:
        """Changes when the file does."""
        return self.file.fingerprint

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """Its red channel: uint8 HxW.

        Raises:
            WrongSourceError: the file holds indices, so it is no panoptic map.
            UserError: it is torn, or holds a value of no class.
        """
        if not picture.holds_colours:
            raise WrongSourceError(
                f"{self.file} holds indices: expected an RGB picture whose red channel is the "
                "class. Get KITTI-STEP's panoptic_maps."
            )
        train_ids_HxW = np.ascontiguousarray(picture.colours()[..., 0])
        CITYSCAPES.check(train_ids_HxW, f"the red channel of {self.file}")
        return train_ids_HxW


class KittiStep(DataSet):
    """KITTI-STEP as it was downloaded."""

    classes = CITYSCAPES

    def find(self, splits: Sequence[str], options: Options) -> Mapping[str, FoundSplit]:
        """The sequences of some splits, in the order of their numbers.

        Raises:
            WrongSourceError: a split has no frames or no labels, or a file has no number.
        """
        del options
        return {split: self._split(split) for split in splits}

    def _split(self, split: str) -> FoundSplit:
        labelled = split != UNLABELLED_SPLIT
        frames_in, labels_in = self._folder_of_frames(split), f"panoptic_maps/{split}"
        sequences = self.tree.folders(labels_in if labelled else frames_in)
        if not sequences:
            kind, folder = ("labels", labels_in) if labelled else ("frames", frames_in)
            only = self.tree.other_splits(split, "panoptic_maps/{}")
            raise WrongSourceError(
                f"There are no {kind} of {split} in {self.tree.root}: expected "
                f"{folder}/0000/000000.png.{only}"
            )
        videos = [
            self._video(name, f"{frames_in}/{name}", f"{labels_in}/{name}" if labelled else None)
            for name in sequences
        ]
        return FoundSplit(videos, labelled)

    def _folder_of_frames(self, split: str) -> str:
        of_kitti = f"{_FRAMES_OF_KITTI.get(split, split)}/image_02"
        folders = (f"images/{split}", of_kitti)
        return next((name for name in folders if self.tree.folders(name)), folders[0])

    def _video(self, name: str, frames_in: str, labels_in: str | None) -> LabelledVideo:
        frames = files_by_number(self.tree, frames_in, (".png",))
        if labels_in is None:
            queries: list[Query | Unusable] = [
                Query(f"{name}_{Path(file.name).stem}", number, file, None)
                for number, file in frames.items()
            ]
            return LabelledVideo(name, frames, queries)
        labels = files_by_number(self.tree, labels_in, (".png",))
        queries = [
            _query(name, number, frames.get(number), file, frames_in)
            for number, file in labels.items()
        ]
        return LabelledVideo(name, frames, queries)


def _query(
    video: str, number: int, frame: SourceFile | None, labels: SourceFile, frames_in: str
) -> Query | Unusable:
    clip_id = f"{video}_{Path(labels.name).stem}"
    if frame is None:
        return Unusable(clip_id, f"{labels} has no frame: expected {frames_in}/{labels.name}.")
    return Query(clip_id, number, frame, PanopticMap(labels))


main = command.main_of(KittiStep, "data_prep.kitti_step", __doc__)


if __name__ == "__main__":
    sys.exit(main())
