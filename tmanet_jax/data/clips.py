"""Clips: as they were read, and decoded."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.codec import (
    DAMAGE,
    Buffer,
    Size,
    decode_labels,
    decode_window,
    frame_size,
)
from tmanet_jax.errors import UserError


@dataclass(frozen=True)
class Clip:
    """One annotated frame with the frames before it.

    Attributes:
        id: the query frame's name, e.g. 'aachen_000000_000019'.
        group: '' or the part of the data set that it is scored with, e.g. 'degraded'.
        frames_SxHxWx3: uint8 RGB in the order of time: memory frames, oldest first; query last.
        labels_HxW: uint8 train ids of the query frame, 255 where ignored (everywhere, if the split
            has no labels).
    """

    id: str
    group: str
    frames_SxHxWx3: np.ndarray
    labels_HxW: np.ndarray


class EncodedFrame(NamedTuple):
    """A frame as it was read.

    Attributes:
        content: the encoded frame.
        where: data directory, shard and index, for messages.
    """

    content: Buffer
    where: str


@dataclass(frozen=True)
class EncodedClip:
    """A clip as it was read, nothing decoded yet.

    Attributes:
        id: the clip's id.
        group: the clip's group.
        frames: memory frames, oldest first; query last.
        labels: the encoded labels of the query; empty if the split has none.
        num_classes: how many there are.
        classes_256: what its labels are read as; None: as they are.
    """

    id: str
    group: str
    frames: tuple[EncodedFrame, ...]
    labels: Buffer
    num_classes: int
    classes_256: np.ndarray | None = None

    @property
    def query(self) -> EncodedFrame:
        """The query frame."""
        return self.frames[-1]

    @property
    def size(self) -> Size:
        """The query frame's size."""
        with self._naming_damage(self.query):
            return frame_size(self.query.content)

    def decode_labels(self) -> np.ndarray:
        """The query's labels: uint8 HxW, 255 everywhere if the split has none."""
        if not self.labels:
            return np.full(self.size, IGNORE, np.uint8)
        with self._naming_damage(self.query):
            labels_HxW = decode_labels(self.labels)
            if (labels_HxW + np.uint8(1)).max() > self.num_classes:  # of 255 it is 0
                raise ValueError(f"its labels are not all of the {self.num_classes} classes")
            return labels_HxW if self.classes_256 is None else self.classes_256[labels_HxW]

    def decode_window(self, frame: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Decodes a window of one frame, and only the tiles it touches.

        Args:
            frame: which of the frames.
            top: the window's first row.
            left: the window's first column.
            height: the window's height.
            width: the window's width.

        Returns:
            uint8 height x width x 3.

        Raises:
            UserError: the frame is damaged.
        """
        with self._naming_damage(self.frames[frame]):
            return decode_window(self.frames[frame].content, top, left, height, width)

    def decode(self) -> Clip:
        """Decodes whole frames and labels.

        Raises:
            UserError: a record is damaged.
        """
        frames_SxHxWx3 = np.stack(
            [self.decode_window(frame, 0, 0, *self.size) for frame in range(len(self.frames))]
        )
        return Clip(self.id, self.group, frames_SxHxWx3, self.decode_labels())

    @contextlib.contextmanager
    def _naming_damage(self, frame: EncodedFrame) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise damaged(frame.where, f"Clip {self.id}", error) from error


def damaged(where: str, of: str, error: Exception) -> UserError:
    """What is said of a record that cannot be used.

    Args:
        where: it lies.
        of: what it is.
        error: what is wrong.
    """
    return UserError(
        f"{of} ({where}) cannot be read or decoded: {error}. "
        "The file is torn or was changed: copy it again, or delete it and make the records again."
    )
