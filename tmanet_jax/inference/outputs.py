"""The folder that `predict` leaves: what it was made of, pictures of each frame, and a video.

Two inputs or networks are never mixed in it. Each output knows which frames it still wants, so that
an interrupted run goes on where it was.
"""

import dataclasses
import hashlib
import json
import os
import re
import typing
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import ClassSet, palette_png
from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.pictures import legend, visible
from tmanet_jax.video.frames import Frames
from tmanet_jax.video.writer import PartWriter, join
from tmanet_jax.weights import files
from tmanet_jax.weights.networks import network_of

MANIFEST_FILE = "predict.json"
VIDEO_FILE = "overlay.mp4"
OVERLAYS_DIR = "overlays"
LABELS_DIR = "labels"
PARTS_DIR = "segments"  # as folders of earlier versions have it
_NAMES = (VIDEO_FILE, OVERLAYS_DIR, LABELS_DIR, PARTS_DIR)

_NARROWEST_VIDEO = 512
_HIGHEST_ENLARGED = 4096
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What decides the predictions, and how far they are.

    Attributes:
        input: name and fingerprint of the frames.
        checkpoint: fingerprint of the weights.
        how: the way in which frames are segmented, and how the network computes.
        is_video_whole: whether the video has every frame.
        sound: "keep" or "none", of a video that is whole.
        problems: broken frames: index and reason.
    """

    input: str
    checkpoint: str
    how: str
    is_video_whole: bool = False
    sound: str = "keep"
    problems: tuple[tuple[int, str], ...] = ()

    def write(self, folder: Path) -> None:
        """Writes the file, whole or not at all."""
        content = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        write_whole(folder / MANIFEST_FILE, content.encode())


def open_manifest(folder: Path, wanted: Manifest, weights: Path) -> Manifest:
    """The manifest of a folder: the one that is there if it goes on, or else the wanted one.

    Args:
        folder: made when it is not there.
        wanted: of the run that begins.
        weights: their file.

    Raises:
        UserError: the folder holds predictions of something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = _read_manifest(folder / MANIFEST_FILE)
        if found is None:
            there = [name for name in _NAMES if (folder / name).exists()]
            if there:
                raise UserError(
                    f"{folder} holds {', '.join(there)} of nobody knows what: there is no "
                    f"{MANIFEST_FILE}. Choose another --output, or delete them."
                )
            wanted.write(folder)
            return wanted
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}. Choose another --output.") from error
    found = _as_spelt_now(found, wanted, weights)
    for field, what in (("input", "input"), ("checkpoint", "weights"), ("how", "settings")):
        if getattr(found, field) != getattr(wanted, field):
            raise UserError(
                f"{folder} holds predictions of other {what}: {getattr(found, field):.200} instead "
                f"of {getattr(wanted, field)}. Choose another --output, or delete this one."
            )
    return found


def _read_manifest(path: Path) -> Manifest | None:
    if not path.exists():
        return None
    where = str(path)
    try:
        return strict_json.decode(Manifest, strict_json.parse(path.read_bytes(), where), where)
    except UserError as error:
        raise UserError(f"{error} Delete the folder, and predict again.") from error


def _as_spelt_now(found: Manifest, wanted: Manifest, weights: Path) -> Manifest:
    """Earlier versions noted weights by their file, sizes as (H, W), and no precision."""
    how = re.sub(r"\((\d+), (\d+)\)", r"\1x\2", found.how)
    if wanted.how.startswith(f"{how}, precision "):
        how = wanted.how
    is_of_file = not found.checkpoint.startswith("tensors ") and weights.is_file()
    checkpoint = found.checkpoint
    if is_of_file and checkpoint == hashlib.sha256(weights.read_bytes()).hexdigest():
        checkpoint = wanted.checkpoint
    return dataclasses.replace(found, how=how, checkpoint=checkpoint)


def fingerprint_weights(path: Path, align_corners: bool | None = None) -> str:
    """What a file of weights or a workdir holds: the same for the same tensors.

    Args:
        path: the file, or the run's workdir.
        align_corners: how logits are up-sampled; None: as the file says.

    Raises:
        UserError: it cannot be read.
    """
    if not path.exists():
        raise UserError(
            f"The weights {path} cannot be read: train first, or name a file with --checkpoint."
        )
    file = files.read(path)
    config = network_of(file, align_corners=align_corners).config
    corners = getattr(config, "align_corners", None)  # no tensor shows it
    return f"tensors {files.content_digest(file.tensors)}, align_corners {corners}"


class Output(typing.Protocol):
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


class VideoOutput:
    """A video of overlays above a legend, in which each class keeps its place.

    The size of a video's frames cannot change, and one that was interrupted goes on without knowing
    what was seen before: so the legend names all classes, those faintly that a frame does not show.

    Frames narrower than 512 pixels are enlarged by a whole factor, so that the legend can be read,
    unlike the pictures of `PictureOutput`.
    Where frames change their size, they are fitted into the size of the first one.

    Args:
        folder: of the video and, until it is whole, of its parts.
        classes: of the legend.
        frames: whose overlays it shows.
        size_of_first: height and width of the first whole frame, known when the first result comes.
        keeps_sound: whether it gets the frames' sound.
    """

    def __init__(
        self,
        folder: Path,
        classes: ClassSet,
        frames: Frames,
        *,
        size_of_first: Callable[[], tuple[int, int] | None],
        keeps_sound: bool,
    ):
        self._folder, self._classes, self._size_of_first = folder, classes, size_of_first
        self._sound_of = frames.sound_of if keeps_sound else None
        self._parts = folder / PARTS_DIR
        self._writer = PartWriter(
            self._parts,
            rate=frames.rate,
            time_base=frames.time_base,
            pixel_aspect=frames.pixel_aspect,
        )
        self._num_before = self._writer.num_done
        self._present: tuple[int, ...] | None = None

    def wants(self, index: int) -> bool:
        """Whether no full part holds the frame."""
        return index >= self._num_before

    def write(self, result: FrameResult) -> None:
        """Adds the frame to the part that is being written."""
        size = self._size_of_first() or (result.frame.shape[0], result.frame.shape[1])
        factor = min(-(-_NARROWEST_VIDEO // size[1]), max(_HIGHEST_ENLARGED // size[0], 1))
        overlay = _fitted(result.overlay, size)
        if factor > 1:
            overlay = overlay.repeat(factor, axis=0).repeat(factor, axis=1)
        present = visible(result.labels, self._classes)
        if present != self._present:
            every_class = range(self._classes.num_classes)
            faint = set(every_class) - set(present)
            self._legend = legend(every_class, self._classes, overlay.shape[1], faint)
            self._present = present
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
