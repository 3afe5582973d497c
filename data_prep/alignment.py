"""Finds which decoded frame of a video each published still is.

Data sets number the frames of a video, but not from the first frame that a decoder gives. Stills
carry their number in their name, so the number of the first frame is the one under which all stills
of the video together look most like their frames. One still alone cannot tell: while the camera
stands, several frames look the same.

Pictures are compared as small grey thumbnails after the best fit of brightness and contrast: the
root mean square that is left, in grey levels, does not see another colour matrix or range, nor the
blocks of a lossy codec.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

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
