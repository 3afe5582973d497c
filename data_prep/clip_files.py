"""A clip whose frames and labels are picture files."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_prep.label_pictures import LabelPicture
from data_prep.pictures import check_size, read_frame
from data_prep.source_tree import SourceFile
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.records import Clip


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


@dataclass(frozen=True)
class FilesClip:
    """The files of a clip.

    Attributes:
        id: the query's name.
        query: the labelled frame.
        memory: the frames before it, oldest first; stand-ins where one is missing.
        stand_ins: how many of the memory frames are stand-ins.
        labels: of the query; None in a split without, where every pixel is ignored.
        group: '' or the part of the data set that it is scored with.
    """

    id: str
    query: SourceFile
    memory: tuple[SourceFile, ...]
    stand_ins: int
    labels: LabelFile | None
    group: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes when a file does, or how labels are read."""
        fingerprints = [file.fingerprint for file in (*self.memory, self.query)]
        if self.labels is not None:
            fingerprints.append(self.labels.fingerprint)
        return "\n".join(fingerprints)

    def load(self) -> Clip:
        """Reads the files; raises UserError if they are torn or do not go together."""
        frames = [read_frame(file) for file in (*self.memory, self.query)]
        size = frames[-1].shape[:2]
        for file, frame_HxWx3 in zip(self.memory, frames, strict=False):
            check_size(frame_HxWx3.shape[:2], file, size, self.query)
        return Clip(self.id, self.group, np.stack(frames), self._load_labels(size))

    def _load_labels(self, size: tuple[int, int]) -> np.ndarray:
        if self.labels is None:
            return np.full(size, IGNORE, np.uint8)
        picture = LabelPicture.read(self.labels.file)
        check_size(picture.size, picture.file, size, self.query)  # before memory is taken for it
        return self.labels.train_ids(picture)
