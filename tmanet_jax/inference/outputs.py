"""What `predict` leaves in its folder: pictures of each frame, or a video, each going on by itself.

An output knows which frames it still wants, so that an interrupted run goes on where it was.
"""

import dataclasses
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from tmanet_jax.data.classes import ClassSet, palette_png
from tmanet_jax.data.files import write_whole
from tmanet_jax.inference.segmenter import FrameResult
from tmanet_jax.pictures import legend
from tmanet_jax.video.writer import PartWriter, join

VIDEO_FILE = "overlay.mp4"
OVERLAYS_DIR = "overlays"
LABELS_DIR = "labels"
PARTS_DIR = "segments"  # as folders of earlier versions have it
NAMES = (VIDEO_FILE, OVERLAYS_DIR, LABELS_DIR, PARTS_DIR)
"""What a folder may hold besides its manifest."""

_NARROWEST_VIDEO = 512
_HIGHEST_ENLARGED = 4096
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


class Output(Protocol):
    """Something that results are written to, in their order."""

    def wants(self, index: int) -> bool:
        """Whether the frame of this index is still to be written."""

    def write(self, result: FrameResult) -> None:
        """Writes a frame that is wanted."""

    def close(self) -> None:
        """Finishes what was written so far."""


class PictureOutput:
    """A PNG file for each frame.

    Args:
        folder: of these pictures alone; made when it is not there.
        name_of: file name without ending, of the frame of an index.
        encode: from a result to the content of its file.
    """

    def __init__(
        self,
        folder: Path,
        name_of: Callable[[int], str],
        encode: Callable[[FrameResult], bytes],
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name_of, self._encode = folder, name_of, encode
        self._there = {path.name for path in folder.iterdir() if _is_whole_png(path)}

    def wants(self, index: int) -> bool:
        """Whether there is no such file, or one that is cut or empty."""
        return f"{self._name_of(index)}.png" not in self._there

    def write(self, result: FrameResult) -> None:
        """Writes the file; it is there when it is whole."""
        path = self._folder / f"{self._name_of(result.index)}.png"
        write_whole(path, self._encode(result))

    def close(self) -> None:
        """Everything is written."""


def _is_whole_png(path: Path) -> bool:
    """Whether a file has a PNG's end: a machine that lost its power may leave it cut or empty."""
    if not path.is_file() or path.stat().st_size < len(_PNG_END):
        return False
    with path.open("rb") as file:
        file.seek(-len(_PNG_END), os.SEEK_END)
        return file.read() == _PNG_END


def overlay_png(result: FrameResult) -> bytes:
    """The overlay as a PNG file."""
    _, png = cv2.imencode(".png", result.overlay[:, :, ::-1])
    return png.tobytes()


def label_png(result: FrameResult) -> bytes:
    """The labels as a palette PNG file: indices of classes, which viewers show in their colours."""
    palette = result.classes.palette_Cx3
    rest = 256 - len(palette)  # labels that are unknown (255) are shown black
    return palette_png(result.labels, palette + ((0, 0, 0),) * rest)


@dataclasses.dataclass
class VideoShape:
    """Height and width of the first whole frame; the video has that size throughout."""

    size: tuple[int, int] | None = None


class VideoOutput:
    """A video of overlays above a legend of all classes.

    Frames narrower than 512 pixels are enlarged by a whole factor, so that the legend can be read,
    unlike the pictures of `PictureOutput`.
    Where frames change their size, they are fitted into the size of the first one.

    Args:
        folder: of the video and, until it is whole, of its parts.
        classes: of the legend.
        rate: frames a second, on average.
        time_base: unit of the results' `pts`, in seconds.
        shape: of the first frame, known when the first result comes.
        sound_of: the video whose sound is kept, or None.
        pixel_aspect: width of a pixel by its height.
    """

    def __init__(
        self,
        folder: Path,
        classes: ClassSet,
        *,
        rate: Fraction,
        time_base: Fraction,
        shape: VideoShape,
        sound_of: str | os.PathLike[str] | None,
        pixel_aspect: Fraction,
    ):
        self._folder, self._classes, self._shape = folder, classes, shape
        self._sound_of = sound_of
        self._parts = folder / PARTS_DIR
        self._writer = PartWriter(
            self._parts, rate=rate, time_base=time_base, pixel_aspect=pixel_aspect
        )
        self._num_before = self._writer.num_done
        self._legend: np.ndarray | None = None

    def wants(self, index: int) -> bool:
        """Whether no full part holds the frame."""
        return index >= self._num_before

    def write(self, result: FrameResult) -> None:
        """Adds the frame to the part that is being written."""
        size = self._shape.size or (result.frame.shape[0], result.frame.shape[1])
        factor = min(-(-_NARROWEST_VIDEO // size[1]), max(_HIGHEST_ENLARGED // size[0], 1))
        overlay = _fitted(result.overlay, size).repeat(factor, axis=0).repeat(factor, axis=1)
        if self._legend is None:
            every_class = list(range(self._classes.num_classes))
            self._legend = legend(every_class, self._classes, overlay.shape[1])
        self._writer.write(np.concatenate([overlay, self._legend]), result.pts)

    def close(self) -> None:
        """Puts the parts together; they stay, so that the video can go on."""
        self._writer.close()
        if self._writer.num_done:
            join(self._parts, self._folder / VIDEO_FILE, sound_of=self._sound_of)


def _fitted(picture_HxWx3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture as large as the size allows, in its middle, on black."""
    height, width, _ = picture_HxWx3.shape
    if (height, width) == size:
        return picture_HxWx3
    scale = min(size[0] / height, size[1] / width)
    inner = (max(round(height * scale), 1), max(round(width * scale), 1))
    resized = cv2.resize(picture_HxWx3, inner[::-1], interpolation=cv2.INTER_AREA)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    fitted = np.zeros((*size, 3), np.uint8)
    fitted[top : top + inner[0], left : left + inner[1]] = resized
    return fitted
