"""Photometric distortion of a frame: what is drawn, and what a draw does to its colours.

As in `transforms`, `draw_*` take a numpy Generator and return what was drawn; everything else is a
function of pixels and draws, and gives what the original's pipeline gives for the same draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from tmanet_jax.data import kernels

PhotometricMode = Literal["frame", "clip", "off"]
"""Each frame is distorted with draws of its own (as the original does), the whole clip with the
same, or nothing."""


@dataclass(frozen=True)
class PhotometricDraw:
    """The colours of one frame; None leaves a property alone. Applied in this order.

    Attributes:
        brightness: added to R, G and B, of 0..255.
        contrast_before: factor of R, G and B, applied before saturation and hue.
        saturation: factor of S in HSV.
        hue: added to H in HSV, in steps of 2 degrees.
        contrast_after: factor of R, G and B, applied after saturation and hue.
    """

    brightness: float | None = None
    contrast_before: float | None = None
    saturation: float | None = None
    hue: int | None = None
    contrast_after: float | None = None


def draw_photometry(rng: np.random.Generator) -> PhotometricDraw:
    """Draws the colours of one frame, each property with probability 1/2."""
    contrast = _maybe(rng, rng.uniform(0.5, 1.5))
    contrast_is_first = rng.random() < 0.5
    return PhotometricDraw(
        brightness=_maybe(rng, rng.uniform(-32, 32)),
        contrast_before=contrast if contrast_is_first else None,
        saturation=_maybe(rng, rng.uniform(0.5, 1.5)),
        hue=None if rng.random() < 0.5 else int(rng.integers(-18, 18)),
        contrast_after=None if contrast_is_first else contrast,
    )


def draw_clip_photometry(
    rng: np.random.Generator, num_frames: int, mode: PhotometricMode
) -> Sequence[PhotometricDraw]:
    """Draws the colours of each frame of a clip."""
    match mode:
        case "frame":
            return [draw_photometry(rng) for _ in range(num_frames)]
        case "clip":
            return [draw_photometry(rng)] * num_frames
        case "off":
            return [PhotometricDraw()] * num_frames


def apply_photometry(frame_HxWx3: np.ndarray, draw: PhotometricDraw) -> np.ndarray:
    """The colours of a uint8 RGB frame, distorted; see `distort`."""
    distorted_HxWx3 = frame_HxWx3.copy()
    distort(distorted_HxWx3, draw)
    return distorted_HxWx3


def distort(frame_HxWx3: np.ndarray, draw: PhotometricDraw) -> None:
    """Distorts the colours of a uint8 RGB frame where it lies.

    Saturation and hue each convert to OpenCV's uint8 HSV and back, as the original does: one
    conversion for both would differ by up to 2. OpenCV's way back depends, by 1, on the width of
    the rows and on the processor.
    """
    _apply_linear(frame_HxWx3, draw.brightness, draw.contrast_before)
    if draw.saturation is not None:
        table_256 = _linear_table(draw.saturation, 0.0)
        _apply_in_hsv(frame_HxWx3, channel=1, table_256=table_256)
    if draw.hue is not None:
        table_256 = ((np.arange(256) + draw.hue) % 180).astype(np.uint8)
        _apply_in_hsv(frame_HxWx3, channel=0, table_256=table_256)
    _apply_linear(frame_HxWx3, None, draw.contrast_after)


def _maybe(rng: np.random.Generator, value: float) -> float | None:
    return value if rng.random() < 0.5 else None


def _linear_table(factor: float, offset: float) -> np.ndarray:
    """Table of factor * value + offset: in float32, clipped to 0..255, truncated to uint8."""
    values_256 = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return np.clip(values_256, 0, 255).astype(np.uint8)


def _apply_linear(
    frame_HxWx3: np.ndarray, brightness: float | None, contrast: float | None
) -> None:
    """Applies one after the other, with one table for both."""
    if brightness is None and contrast is None:
        return
    table_256 = np.arange(256, dtype=np.uint8)
    if brightness is not None:
        table_256 = _linear_table(1.0, brightness)
    if contrast is not None:
        table_256 = _linear_table(contrast, 0.0)[table_256]
    cv2.LUT(frame_HxWx3, table_256, dst=frame_HxWx3)


def _apply_in_hsv(frame_HxWx3: np.ndarray, channel: int, table_256: np.ndarray) -> None:
    hsv_HxWx3 = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2HSV)
    kernels.look_up_channel(hsv_HxWx3, channel, table_256)
    cv2.cvtColor(hsv_HxWx3, cv2.COLOR_HSV2RGB, dst=frame_HxWx3)
