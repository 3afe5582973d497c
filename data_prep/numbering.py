"""Finds which decoded frame of a video each published still is.

Data sets number the frames of a video, but not from the first frame that a decoder gives. Stills
carry their number in their name, so the number of the first frame is the one under which all stills
of the video together look most like their frames. One still alone cannot tell: while the camera
stands, several frames look the same.

Pictures are compared as small grey thumbnails after the best fit of brightness and contrast: the
root mean square that is left, in grey levels, does not see another colour matrix or range, nor the
blocks of a lossy codec.

A video is decoded twice: once for the number of its first frame, once for the frames that are
wanted. What was found is noted beside the frames, so that a preparation that was stopped goes on
with the second.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.extraction import Watch
from data_prep.source import SourceFile, WrongSourceError, read_frame
from tmanet_jax.data import strict_json
from tmanet_jax.errors import UserError
from tmanet_jax.video.read import open_video

_DOUBTFUL = "a frame that it may refer to is lost"

_NOTHING_1x1x3 = np.zeros((1, 1, 3), np.uint8)
"""Stands for a frame that cannot be decoded: it resembles no still."""

THUMBNAIL = (48, 64)
"""Height and width of the thumbnails in pixels."""

MAX_DIFFERENCE = 8.0
"""Grey levels between a still and its frame. Rendered street scenes of 240x320 come to 5.9 at the
coarsest quantiser of MPEG-4, 4.9 of MPEG-2, 2.7 of MJPEG (1.6, 2.8 at usual ones and DNxHR), to
less at CamVid's size; two different scenes to 20.6 at least."""


def thumbnail(frame_HxWx3: np.ndarray) -> np.ndarray:
    """A small grey picture, uint8 of size THUMBNAIL, of an RGB frame of any size."""
    height, width = THUMBNAIL
    small_HxWx3 = cv2.resize(frame_HxWx3, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small_HxWx3, cv2.COLOR_RGB2GRAY)


def mean_colours(frame_HxWx3: np.ndarray) -> np.ndarray:
    """The mean colours of 6x8 parts of an RGB frame: uint8 6x8x3."""
    return cv2.resize(frame_HxWx3, (8, 6), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Alignment:
    """How the stills of a video lie on its frames.

    Attributes:
        first_number: the number of the first decoded frame.
        differences: of each still to its frame in grey levels, by number; infinite if the video has
            no such frame.
        best_numbers: the number of the frame that each still resembles most, by the still's number.
        best_differences: how far that one is from it.
        mean_difference: mean over the stills.
        second_difference: the same mean under the next best number of the first frame.
    """

    first_number: int
    differences: Mapping[int, float]
    best_numbers: Mapping[int, int]
    best_differences: Mapping[int, float]
    mean_difference: float
    second_difference: float

    def fault(self, number: int) -> str | None:
        """What is wrong with a still, in words; None if it agrees with the others."""
        best = self.best_differences[number]
        if best > MAX_DIFFERENCE:
            return (
                f"it matches no frame of the video: the nearest is {best:.1f} grey levels away, "
                f"the same picture is at most {MAX_DIFFERENCE:.1f}"
            )
        own = self.differences[number]
        if own > 1.5 * best + 1.0:  # more than the noise of a codec between two like frames
            return (
                f"by the other stills it should be frame {number}, which is {own:.1f} grey levels "
                f"away, but it looks like frame {self.best_numbers[number]} ({best:.1f})"
            )
        return None

    @property
    def num_agreeing(self) -> int:
        """How many stills agree with the others."""
        return sum(self.fault(number) is None for number in self.differences)

    def __str__(self) -> str:
        return (
            f"the first decoded frame is number {self.first_number}; {self.num_agreeing} of "
            f"{len(self.differences)} stills agree, {self.mean_difference:.2f} grey levels away on "
            f"average, {self.second_difference:.2f} with the next best number"
        )


def align(stills: Mapping[int, np.ndarray], frames_KxHxW: np.ndarray) -> Alignment:
    """Finds the number of a video's first frame.

    Args:
        stills: thumbnails, uint8 HxW, by the number in the still's name; at least one.
        frames_KxHxW: thumbnails of all decoded frames, uint8, in their order.
    """
    numbers_N = np.array(list(stills))
    differences_NxK = _differences(np.stack(list(stills.values())), frames_KxHxW)
    num_frames = len(frames_KxHxW)
    firsts_F = np.arange(numbers_N.min() - num_frames + 1, numbers_N.max() + 1)
    worst_N = differences_NxK.max(axis=1)  # what a still without a frame counts
    means_F = np.array(
        [
            np.minimum(_under(first, numbers_N, differences_NxK), worst_N).mean()
            for first in firsts_F
        ]
    )
    best = int(means_F.argmin())
    first_number = int(firsts_F[best])
    own_N = _under(first_number, numbers_N, differences_NxK)
    nearest_N = differences_NxK.argmin(axis=1)
    return Alignment(
        first_number=first_number,
        differences=_by_number(numbers_N, own_N),
        best_numbers={
            int(number): int(index) + first_number
            for number, index in zip(numbers_N, nearest_N, strict=True)
        },
        best_differences=_by_number(numbers_N, differences_NxK.min(axis=1)),
        mean_difference=float(means_F[best]),
        second_difference=float(np.delete(means_F, best).min(initial=np.inf)),
    )


def difference(one_HxW: np.ndarray, other_HxW: np.ndarray) -> float:
    """Grey levels between two thumbnails, fitted in brightness and contrast."""
    return float(_differences(one_HxW[None], other_HxW[None])[0, 0])


def _differences(stills_NxHxW: np.ndarray, frames_KxHxW: np.ndarray) -> np.ndarray:
    """Grey levels between each still and each frame, fitted in brightness and contrast: N x K.

    A still s of standard deviation d, and a frame of correlation r with it, leave d sqrt(1 - r^2).
    """
    stills_NxP, deviations_N = _standardised(stills_NxHxW)
    differences_NxK = np.empty((len(stills_NxHxW), len(frames_KxHxW)), np.float32)
    for start in range(0, len(frames_KxHxW), 1024):
        frames_PxK = _standardised(frames_KxHxW[start : start + 1024])[0].T
        correlation_NxK = np.clip(stills_NxP @ frames_PxK, 0, 1)
        differences_NxK[:, start : start + 1024] = np.sqrt(1 - correlation_NxK**2)
    return differences_NxK * deviations_N[:, None]


def _standardised(pictures_NxHxW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of mean 0 and length 1 (0 if flat), and each picture's standard deviation."""
    rows_NxP = pictures_NxHxW.reshape(len(pictures_NxHxW), -1).astype(np.float32)
    rows_NxP -= rows_NxP.mean(axis=1, keepdims=True)
    lengths_N = np.linalg.norm(rows_NxP, axis=1)
    return rows_NxP / np.maximum(lengths_N, 1e-6)[:, None], lengths_N / rows_NxP.shape[1] ** 0.5


def _under(first: int, numbers_N: np.ndarray, differences_NxK: np.ndarray) -> np.ndarray:
    """Each still's difference to its frame if the first is `first`; infinite without a frame."""
    num_stills, num_frames = differences_NxK.shape
    indices_N = numbers_N - first
    is_inside_N = (indices_N >= 0) & (indices_N < num_frames)
    found_N = differences_NxK[np.arange(num_stills), np.clip(indices_N, 0, num_frames - 1)]
    return np.where(is_inside_N, found_N, np.inf)


def _by_number(numbers_N: np.ndarray, values_N: np.ndarray) -> dict[int, float]:
    return {int(number): float(value) for number, value in zip(numbers_N, values_N, strict=True)}


@dataclass(frozen=True)
class Numbering:
    """What a video was found to hold.

    Attributes:
        num_bytes: size of the video that this was found in.
        stills: fingerprint of the stills that it was compared with.
        first_number: the number of the first decoded frame.
        num_frames: how many frames were counted.
        broken: indices of those that cannot be used, with the reason.
        faults: the stills that do not agree with the others, by number, and what is wrong.
        report: the alignment in words.
    """

    num_bytes: int
    stills: str
    first_number: int
    num_frames: int
    broken: Mapping[int, str]
    faults: Mapping[int, str]
    report: str

    def __post_init__(self) -> None:
        if self.num_bytes < 0 or self.num_frames < 1:
            raise ValueError(
                f"a video of {self.num_bytes} bytes and {self.num_frames} frames gives none"
            )
        if any(not 0 <= index < self.num_frames for index in self.broken):
            raise ValueError(f"broken are frames beyond its {self.num_frames}")

    def gives(self, number: int) -> bool:
        """Whether the video has this frame, whole."""
        index = number - self.first_number
        return 0 <= index < self.num_frames and index not in self.broken

    def is_of(self, video: Path | None, stills: Mapping[int, SourceFile]) -> bool:
        """Whether it was found in this video, if there is one, and with these stills."""
        is_of_video = video is None or video.stat().st_size == self.num_bytes
        return is_of_video and self.stills == _fingerprint(stills)

    def to_json(self) -> bytes:
        """As a file's content."""
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes, where: str) -> "Numbering":
        """Inverse of `to_json`; raises UserError that names the field on anything else."""
        return strict_json.decode(cls, strict_json.parse(content, where), where)


def number_frames(path: Path, stills: Mapping[int, SourceFile], watch: Watch) -> Numbering:
    """Finds the numbers of a video's frames by the stills that were made of it.

    Args:
        path: the video.
        stills: pictures by the number in their name.
        watch: on the decoding.

    Raises:
        WrongSourceError: most stills do not agree, or are of another size: it is another video.
        UserError: the video or a still cannot be read.
    """
    thumbnails: dict[int, np.ndarray] = {}
    colours: dict[int, np.ndarray] = {}
    for number, still in stills.items():
        try:
            picture_HxWx3 = read_frame(still)
        except UserError:
            continue  # told when the still's clip is loaded
        if not thumbnails:
            _check_size_of_video(path, still, picture_HxWx3.shape[:2])
        thumbnails[number] = thumbnail(picture_HxWx3)
        colours[number] = mean_colours(picture_HxWx3)
    if not thumbnails:
        raise WrongSourceError(f"None of the stills of {path} can be read, such as {still}.")
    frames, frame_colours, broken = _decode_small(path, watch)
    alignment = align(thumbnails, np.stack(frames))
    faults = {n: fault for n in thumbnails if (fault := alignment.fault(n)) is not None}
    if 2 * len(faults) > len(thumbnails):
        raise WrongSourceError(_foreign(path, stills, alignment, faults))
    off_by = [
        np.abs(frame_colours[number - alignment.first_number] - colours[number].astype(int)).mean()
        for number in thumbnails
        if number not in faults
    ]
    return Numbering(
        num_bytes=path.stat().st_size,
        stills=_fingerprint(stills),
        first_number=alignment.first_number,
        num_frames=len(frames),
        broken=broken,
        faults=faults,
        report=f"{alignment}; their colours are {np.mean(off_by):.1f} of 255 away",
    )


def _check_size_of_video(path: Path, still: SourceFile, size: tuple[int, ...]) -> None:
    """Raises WrongSourceError unless a video is as large as its stills; decodes one frame."""
    with open_video(path) as video:
        height, width = video.size
    if (height, width) != size:
        raise WrongSourceError(
            f"The stills of {path} are {size[0]}x{size[1]} pixels (height x width), such as "
            f"{still}, but its frames are {height}x{width}: all pictures of a clip must have the "
            "same size. Give the published stills and labels, or frames of the stills' size that "
            "you extracted yourself (--frames), or ask for --memory-range=0."
        )


def _decode_small(
    path: Path, watch: Watch
) -> tuple[list[np.ndarray], list[np.ndarray], dict[int, str]]:
    """Thumbnails and mean colours of all frames, and what is wrong with the broken ones."""
    thumbnails: list[np.ndarray] = []
    colours: list[np.ndarray] = []
    broken: dict[int, str] = {}
    for frame in watch.over(path):
        picture_HxWx3 = frame.pixels_HxWx3
        if picture_HxWx3 is None:
            broken[frame.index] = frame.problem or ""
            picture_HxWx3 = _NOTHING_1x1x3
        elif frame.is_doubtful:
            broken[frame.index] = _DOUBTFUL
        thumbnails.append(thumbnail(picture_HxWx3))
        colours.append(mean_colours(picture_HxWx3))
    return thumbnails, colours, broken


def read_numbering(note: Path) -> Numbering | None:
    """What was noted of a video; None if nothing was. Raises UserError if it cannot be read."""
    try:
        return Numbering.from_json(note.read_bytes(), "its JSON")
    except FileNotFoundError:
        return None
    except (OSError, UserError) as error:
        raise UserError(f"{note} cannot be read ({error}): delete it.") from error


def _fingerprint(stills: Mapping[int, SourceFile]) -> str:
    lines = [f"{number} {still.fingerprint}" for number, still in sorted(stills.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _foreign(
    path: Path,
    stills: Mapping[int, SourceFile],
    alignment: Alignment,
    faults: Mapping[int, str],
) -> str:
    first = min(faults)
    return (
        f"{len(faults)} of {len(alignment.differences)} stills do not show {path} as one numbering "
        f"of its frames would have them ({alignment}). The first is {stills[first]}: "
        f"{faults[first]}. Is it the right video, and is it whole? Frames that you extracted and "
        "checked yourself can be given instead: --frames."
    )
