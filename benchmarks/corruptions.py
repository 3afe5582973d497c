"""What spoils a camera's frames, each in five severities, and the clips of which it spoils frames.

Noise, blur and compression are ImageNet-C's, with its parameters, for frames of about 224 pixels;
fog is its formula (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019). Glare, rain and lost rows it does not have.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from tmanet_jax.data.clips import Clip

SEVERITIES = (1, 2, 3, 4, 5)
_ROWS = 20
"""Into so many bands the rows of a frame are read out."""


def corrupted(clip: Clip, name: str, severity: int, *, all_frames: bool) -> Clip:
    """A clip of which the annotated frame is spoilt, or each frame.

    What a severity changes is the strength alone. Fog and glare stay where they are from frame to
    frame; noise, rain and lost rows are others in each.

    Args:
        clip: as it was recorded.
        name: one of `CORRUPTIONS`.
        severity: one of `SEVERITIES`.
        all_frames: the memory frames, too.
    """
    frames_SxHxWx3 = clip.frames_SxHxWx3.copy()
    last = len(frames_SxHxWx3) - 1
    for index in range(0 if all_frames else last, last + 1):
        moment = 0 if name in _LASTING else last - index
        rng = np.random.default_rng([zlib.crc32(clip.id.encode()), moment])
        frames_SxHxWx3[index] = CORRUPTIONS[name](rng, frames_SxHxWx3[index], severity - 1)
    return dataclasses.replace(clip, frames_SxHxWx3=frames_SxHxWx3)


def _noise(rng: np.random.Generator, image_HxWx3: np.ndarray, grade: int) -> np.ndarray:
    deviation = 255 * (0.08, 0.12, 0.18, 0.26, 0.38)[grade]
    return _as_uint8(image_HxWx3 + deviation * rng.standard_normal(image_HxWx3.shape))


def _blur(rng: np.random.Generator, image_HxWx3: np.ndarray, grade: int) -> np.ndarray:
    del rng
    return cv2.GaussianBlur(image_HxWx3, (0, 0), (1, 2, 3, 4, 6)[grade])


def _glare(rng: np.random.Generator, image_HxWx3: np.ndarray, grade: int) -> np.ndarray:
    """The sun in the lens: a bloom, and a fifth of it over the whole frame."""
    height, width, _ = image_HxWx3.shape
    row, column = rng.uniform(0.25, 0.6) * height, rng.uniform(0.2, 0.8) * width
    rows_HxW, columns_HxW = np.mgrid[:height, :width]
    distance_HxW = np.hypot(rows_HxW - row, columns_HxW - column) / (0.6 * height)
    bloom_HxW = (0.2 + np.exp(-(distance_HxW**2))) * (0.2, 0.35, 0.55, 0.85, 1.3)[grade]
    return _as_uint8(image_HxWx3 + bloom_HxW[..., None] * np.array([255, 245, 225]))


def _fog(rng: np.random.Generator, image_HxWx3: np.ndarray, grade: int) -> np.ndarray:
    """A cloud of octaves, each weaker than the one before; it takes away contrast."""
    strength = (0.6, 1.0, 1.5, 2.2, 3.0)[grade]
    height, width, _ = image_HxWx3.shape
    cloud_HxW = np.zeros((height, width))
    for octave in range(1, 8):
        coarse = rng.standard_normal((2**octave + 1, 2**octave + 1)) / 1.7**octave
        cloud_HxW += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    cloud_HxW = (cloud_HxW - cloud_HxW.min()) / np.ptp(cloud_HxW)
    image = image_HxWx3 / 255
    brightest = image.max()
    fogged = (image + strength * cloud_HxW[..., None]) * brightest / (brightest + strength)
    return _as_uint8(255 * fogged)


def _rain(rng: np.random.Generator, image_HxWx3: np.ndarray, grade: int) -> np.ndarray:
    """Slanting streaks in a frame that the clouds have darkened."""
    height, width, _ = image_HxWx3.shape
    share = (0.004, 0.008, 0.014, 0.022, 0.034)[grade]
    drops_HxW = (rng.random((height, width)) < share).astype(np.float32)
    length = 15
    streak = np.zeros((length, length), np.float32)
    cv2.line(streak, (length // 2 + 3, 0), (length // 2 - 3, length - 1), 1.0)
    streaks_HxW = np.minimum(cv2.filter2D(drops_HxW, -1, streak), 1)[..., None] * 0.6
    dim = image_HxWx3 * (0.9, 0.85, 0.8, 0.75, 0.7)[grade]
    return _as_uint8(dim * (1 - streaks_HxW) + 210 * streaks_HxW)


def _lost_rows(rng: np.random.Generator, image_HxWx3: np.ndarray, grade: int) -> np.ndarray:
    """Bands that were not read out; a greater severity loses others beside those of a smaller."""
    lost = rng.permutation(_ROWS)[: (2, 4, 6, 9, 13)[grade]]
    band_H = np.arange(len(image_HxWx3)) * _ROWS // len(image_HxWx3)
    return np.where(np.isin(band_H, lost)[:, None, None], np.uint8(0), image_HxWx3)


def _compression(rng: np.random.Generator, image_HxWx3: np.ndarray, grade: int) -> np.ndarray:
    del rng
    quality = (25, 18, 15, 10, 7)[grade]
    _, jpeg = cv2.imencode(".jpg", image_HxWx3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))[..., ::-1]


def _as_uint8(image_HxWx3: np.ndarray) -> np.ndarray:
    return np.clip(image_HxWx3, 0, 255).astype(np.uint8)


CORRUPTIONS: Mapping[str, Callable[[np.random.Generator, np.ndarray, int], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "glare": _glare,
    "fog": _fog,
    "rain": _rain,
    "lost rows": _lost_rows,
    "compression": _compression,
}
"""Each of a frame HxWx3, RGB uint8, and a severity's place among the five."""
_LASTING = ("fog", "glare")
