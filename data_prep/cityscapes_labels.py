"""Cityscapes' label files: which there are, and what their values mean.

The site's files are called labelIds and hold label ids 0..33; cityscapesscripts makes labelTrainIds
of them, which hold train ids. Both may lie in one folder, even for different clips: their names
tell them apart. The original TMANet reads a folder gtFine_19 whose files are called labelIds but
hold train ids. If both folders are there, or values are not those that a name promises, nobody
knows which labels are meant; that is refused.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data_prep.label_pictures import LabelPicture
from data_prep.label_values import LabelTable, read_values
from data_prep.records.writer import WrongSourceError
from data_prep.source_tree import SourceFile, SourceTree
from tmanet_jax.data.classes import (
    CITYSCAPES,
    CITYSCAPES_TRAIN_ID_OF_LABEL_ID,
    IGNORE,
    CITYSCAPES_LABEL_PALETTE_35x3,
    label_ids_to_train_ids,
)

PRIVATE_FOLDER = "gtFine_19"
_TRAIN_IDS, _LABEL_IDS = "labelTrainIds", "labelIds"


_LABEL_ID_TABLE = LabelTable.of(
    range(34), zip(CITYSCAPES_LABEL_PALETTE_35x3, range(34), strict=False)
)
_TRAIN_ID_TABLE = LabelTable.of(
    [*range(CITYSCAPES.num_classes), IGNORE],
    (
        (colour, int(CITYSCAPES_TRAIN_ID_OF_LABEL_ID[label_id]))
        for colour, label_ids in _LABEL_ID_TABLE.colours.items()
        for label_id in label_ids
    ),
)


class LabelsFile(NamedTuple):
    """A file of labels.

    Attributes:
        file: the file.
        are_train_ids: what it holds: train ids, or label ids.
    """

    file: SourceFile
    are_train_ids: bool

    @property
    def fingerprint(self) -> str:
        """Changes when the file does, or what it is taken for."""
        return f"{self.file.fingerprint} {'train' if self.are_train_ids else 'label'} ids"

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """Train ids: uint8 HxW.

        Raises:
            WrongSourceError: the values are of the other kind, so that all such files are in doubt.
            UserError: the file is torn, or holds something else.
        """
        values_HxW = read_values(
            picture, _TRAIN_ID_TABLE if self.are_train_ids else _LABEL_ID_TABLE
        )
        called_label_ids = f"_{_LABEL_IDS}." in self.file.name
        if self.are_train_ids and called_label_ids:
            _refuse_label_ids(values_HxW, self.file)
        if self.are_train_ids:
            CITYSCAPES.check(values_HxW, str(self.file))
            return values_HxW
        if np.any(values_HxW == IGNORE):
            raise WrongSourceError(
                f"{self.file} is called labelIds but holds the value {IGNORE}, which only train "
                "ids have. If all files there are of the original TMANet's kind, rename their "
                f"folder to {PRIVATE_FOLDER}; if only some are, get gtFine again."
            )
        return label_ids_to_train_ids(values_HxW, str(self.file))


def labels_folder(tree: SourceTree, folder: str, split: str, chosen: str | None) -> str:
    """The folder of a split's labels; raises WrongSourceError if there are two and none is chosen.

    Args:
        tree: the data set.
        folder: e.g. 'gtFine'.
        split: e.g. 'train'.
        chosen: one of the two.
    """
    if chosen is not None:
        return f"{chosen}/{split}"
    if folder != "gtFine" or not tree.folders(f"{PRIVATE_FOLDER}/{split}"):
        return f"{folder}/{split}"
    if tree.folders(f"gtFine/{split}"):
        raise WrongSourceError(
            f"{tree.root} has labels in gtFine and in {PRIVATE_FOLDER}, and files of the same "
            f"name mean different classes there. Say which: --labels=gtFine or {PRIVATE_FOLDER}."
        )
    return f"{PRIVATE_FOLDER}/{split}"


def labels_by_name(tree: SourceTree, folder: str) -> Mapping[str, LabelsFile]:
    """The labels in a folder by clip, e.g. 'aachen_000000_000019'; files of train ids go first."""
    are_train_ids = folder.startswith(f"{PRIVATE_FOLDER}/")
    labels: dict[str, LabelsFile] = {}
    for name, file in tree.files(folder).items():
        stem, dot, extension = name.rpartition(".")
        clip, _, kind = stem.rpartition("_gtFine_")
        if f"{dot}{extension}".lower() != ".png":
            continue
        if kind == _TRAIN_IDS:
            labels[clip] = LabelsFile(file, True)
        elif kind == _LABEL_IDS:
            labels.setdefault(clip, LabelsFile(file, are_train_ids))
    return labels


def _refuse_label_ids(values_HxW: np.ndarray, file: SourceFile) -> None:
    is_label_id_HxW = (values_HxW >= CITYSCAPES.num_classes) & (values_HxW < 34)
    if is_label_id_HxW.any():
        raise WrongSourceError(
            f"{file} holds the value {values_HxW[is_label_id_HxW][0]}, which is a label id, but "
            f"files in {PRIVATE_FOLDER} hold train ids, 0..18 and {IGNORE}. If all files there "
            "hold label ids, rename the folder to gtFine."
        )
