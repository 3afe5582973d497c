"""Augmentation of a clip: what is drawn, and what a draw does, kept apart.

`draw_*` take a numpy Generator and return what was drawn; everything else is a pure function of
pixels and draws, and gives what the original's pipeline gives for the same draws. A geometric draw
holds for all frames of a clip and its labels; the colours of each frame are drawn for themselves.

The order is the original's: resize, crop, flip (and rotate), photometric distortion, normalise,
pad. Pixels leave the host as uint8: normalising and blanking the padding happen on the device
(`tmanet_jax.models.normalize`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.codec import Size
from tmanet_jax.data.resize import (
    LEAST_RATIO,
    LONGEST_SIDE,
    MOST_RATIO,
    Box,
    resize_labels_in_box,
    scaled_size,
)
from tmanet_jax.errors import UserError
from tmanet_jax.fields import PUBLISHED, Checked, field

CROP_TRIES = 10

COEFFICIENT_ONE = 2**11
"""1.0 in the fixed-point numbers of OpenCV's INTER_LINEAR."""

_EXACT_COUNT = 2**23  # pixels; OpenCV's histograms are float32, which counts to 2**24

PhotometricMode = Literal["frame", "clip", "off"]
"""Each frame is distorted with draws of its own (as the original does), the whole clip with the
same, or nothing."""


@dataclass(frozen=True)
class Augmentation(Checked):
    """How training clips are augmented."""

    crop_size: tuple[int, int] = field(
        (769, 769),
        "of the network's input",
        unit="height, width in pixels",
        low=1,
        high=LONGEST_SIDE,
        source=PUBLISHED,
    )
    ratio_range: tuple[float, float] = field(
        (0.5, 2.0),
        "least and greatest factor that a clip is resized by",
        low=LEAST_RATIO,
        high=MOST_RATIO,
        source=PUBLISHED,
    )
    cat_max_ratio: float = field(
        0.75,
        "share of one class from which a crop is drawn again",
        low=0,
        high=1,
        source=PUBLISHED,
    )
    flip_probability: float = field(
        0.5, "of mirroring left and right", low=0, high=1, source=PUBLISHED
    )
    vertical_flip_probability: float = field(0.0, "of mirroring top and bottom", low=0, high=1)
    rotation_probability: float = field(0.0, "of rotating a crop", low=0, high=1)
    rotation: float = field(10.0, "greatest angle, either way", unit="degrees", low=0, high=180)
    photometric: PhotometricMode = field(
        "frame", "what colours are distorted together", source=PUBLISHED
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio_range[0] > self.ratio_range[1]:
            raise UserError(f"ratio_range is {self.ratio_range}: the least factor comes first.")


@dataclass(frozen=True)
class GeometricDraw:
    """The geometry of all frames of a clip.

    Attributes:
        scaled_size: size that the frames are resized to.
        box: the crop, in pixels of the resized frame.
        flip: whether the crop is mirrored left and right.
        flip_vertically: whether it is mirrored top and bottom.
        angle: by which it is rotated then, in degrees against the clock.
    """

    scaled_size: Size
    box: Box
    flip: bool
    flip_vertically: bool = False
    angle: float = 0.0


def is_varied(labels_HxW: np.ndarray, cat_max_ratio: float) -> bool:
    """Whether several classes are seen and none has the share `cat_max_ratio`, 255 not counting."""
    counts_256 = np.zeros(256)
    for rows in np.array_split(labels_HxW, -(-labels_HxW.size // _EXACT_COUNT)):
        counts_256 += cv2.calcHist([rows], [0], None, [256], [0, 256]).ravel()
    counts_256[IGNORE] = 0
    if np.count_nonzero(counts_256) < 2:
        return False
    return bool(counts_256.max() / counts_256.sum() < cat_max_ratio)


def draw_boxes(rng: np.random.Generator, size: Size, crop_size: tuple[int, int]) -> Iterator[Box]:
    """Draws crops of a picture, for ever; one that is too small is cropped from its origin."""
    height, width = crop_size
    while True:
        top = int(rng.integers(max(size.height - height, 0) + 1))
        left = int(rng.integers(max(size.width - width, 0) + 1))
        yield Box(top, left, height, width)


def choose_box(
    labels_HxW: np.ndarray, size: Size, boxes: Iterator[Box], cat_max_ratio: float
) -> Box:
    """The first of ten boxes with varied labels; if there is none, the eleventh, unchecked.

    Args:
        labels_HxW: the labels before resizing.
        size: the size that they are resized to.
        boxes: crops of the resized labels; no more are taken than are looked at.
        cat_max_ratio: see `is_varied`.
    """
    for _ in range(CROP_TRIES):
        box = next(boxes)
        if is_varied(resize_labels_in_box(labels_HxW, size, box), cat_max_ratio):
            return box
    return next(boxes)


def draw_geometry(
    rng: np.random.Generator, labels_HxW: np.ndarray, augmentation: Augmentation
) -> GeometricDraw:
    """Draws a clip's geometry; it depends on the labels, by the rule of `choose_box`."""
    ratio = rng.uniform(*augmentation.ratio_range)
    height, width = scaled_size(Size(*labels_HxW.shape), ratio)
    size = Size(max(height, 1), max(width, 1))  # of a frame of one pixel nothing might be left
    boxes = draw_boxes(rng, size, augmentation.crop_size)
    box = choose_box(labels_HxW, size, boxes, augmentation.cat_max_ratio)
    flips = bool(rng.random() < augmentation.flip_probability)
    return GeometricDraw(
        size,
        box,
        flips,
        _happens(rng, augmentation.vertical_flip_probability),
        _draw_angle(rng, augmentation),
    )


def _draw_angle(rng: np.random.Generator, augmentation: Augmentation) -> float:
    if not _happens(rng, augmentation.rotation_probability):
        return 0.0
    return rng.uniform(-augmentation.rotation, augmentation.rotation)


def _happens(rng: np.random.Generator, probability: float) -> bool:
    """Takes no random number where nothing can happen: the other draws stay what they were."""
    return probability > 0 and bool(rng.random() < probability)


def flip(picture_HxW: np.ndarray) -> np.ndarray:
    """Mirrors a picture (HxW or HxWxC) left and right."""
    return picture_HxW[:, ::-1]


def rotate(picture_HxW: np.ndarray, angle: float, interpolation: int, outside: int) -> np.ndarray:
    """Rotates a picture (HxW or HxWxC) around its centre; its size stays.

    Args:
        picture_HxW: uint8.
        angle: in degrees against the clock.
        interpolation: of OpenCV.
        outside: the value of what comes from outside.

    Source: mmseg's `RandomRotate`.
    """
    height, width = picture_HxW.shape[:2]
    turn_2x3 = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return cv2.warpAffine(
        picture_HxW,
        turn_2x3,
        (width, height),
        flags=interpolation,
        borderValue=(outside,) * 3,
    )


def source_window(size: Size, draw: GeometricDraw) -> Box:
    """The part of a frame that its crop is made of, with a margin for rounding.

    Args:
        size: the frame's size.
        draw: how it is resized and cropped.
    """
    top, bottom = _source_range(size.height, draw.scaled_size.height, draw.box.top, draw.box.height)
    left, right = _source_range(size.width, draw.scaled_size.width, draw.box.left, draw.box.width)
    return Box(top, left, bottom - top, right - left)


def _source_range(length: int, scaled_length: int, start: int, extent: int) -> tuple[int, int]:
    """First and last + 1 of the positions that INTER_LINEAR reads, along one axis."""
    scale = length / scaled_length
    last = min(start + extent, scaled_length) - 1
    first_read = int((start + 0.5) * scale - 0.5)
    last_read = int((last + 0.5) * scale - 0.5) + 1
    return max(first_read - 1, 0), min(last_read + 2, length)


def apply_geometry_to_window(
    window_hxwx3: np.ndarray,
    window: Box,
    size: Size,
    draw: GeometricDraw,
    out_HxWx3: np.ndarray | None = None,
) -> np.ndarray:
    """Resizes, crops and mirrors a frame of which only a window is known.

    Bilinear, and bit-equal to cv2.INTER_LINEAR of the whole frame. OpenCV itself would have to
    resize the frame from its origin to the window's end: its coefficients depend on the place.

    Args:
        window_hxwx3: uint8 RGB, at least the pixels inside `source_window`.
        window: where it lies in the frame.
        size: the frame's size.
        draw: how the frame is resized and cropped.
        out_HxWx3: where the result goes, if anywhere: contiguous, of the crop's size or larger.

    Returns:
        uint8 RGB, smaller than the crop's box if the resized frame is; a view of `out_HxWx3`.
    """
    from tmanet_jax.data import kernels  # compiled code that few processes need

    scaled, box = draw.scaled_size, draw.box
    height = min(box.height, scaled.height - box.top)
    width = min(box.width, scaled.width - box.left)
    rows_2xH, row_weights_2xH = _linear(size.height, scaled.height, box.top, height)
    columns_2xW, column_weights_2xW = _linear(size.width, scaled.width, box.left, width)
    outside = columns_2xW[0] == columns_2xW[1]  # OpenCV: all of one pixel, along a row only
    column_weights_2xW[:, outside] = [[COEFFICIENT_ONE], [0]]
    if draw.flip_vertically:
        rows_2xH, row_weights_2xH = (
            np.ascontiguousarray(array[:, ::-1]) for array in (rows_2xH, row_weights_2xH)
        )
    if draw.flip:
        columns_2xW = columns_2xW[:, ::-1]
        column_weights_2xW = np.ascontiguousarray(column_weights_2xW[:, ::-1])
    if out_HxWx3 is None:
        out_HxWx3 = np.empty((height, width, 3), np.uint8)
    kernels.resize(
        np.ascontiguousarray(window_hxwx3).reshape(window.height, -1),
        (rows_2xH - window.top).astype(np.uint64),
        row_weights_2xH,
        (3 * (columns_2xW - window.left)).astype(np.uint64, order="C"),
        column_weights_2xW,
        out_HxWx3.reshape(len(out_HxWx3), -1),
    )
    crop_hxwx3 = out_HxWx3[:height, :width]
    if draw.angle:
        crop_hxwx3[:] = rotate(crop_hxwx3, draw.angle, cv2.INTER_LINEAR, outside=0)
    return crop_hxwx3


def _linear(
    length: int, scaled_length: int, start: int, extent: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which two positions INTER_LINEAR makes each resized one of, and their weights.

    Returns:
        2 x extent int64 and 2 x extent int32, of COEFFICIENT_ONE, rounded as OpenCV does.
    """
    scale = 1.0 / (scaled_length / length)
    positions = ((np.arange(start, start + extent) + 0.5) * scale - 0.5).astype(np.float32)
    firsts = np.floor(positions)
    second_weights = positions - firsts
    weights = np.stack([1 - second_weights, second_weights]) * np.float32(COEFFICIENT_ONE)
    places = np.stack([firsts, firsts + 1]).astype(np.int64).clip(0, length - 1)
    return places, np.rint(weights).astype(np.int32)


def apply_geometry_to_labels(labels_HxW: np.ndarray, draw: GeometricDraw) -> np.ndarray:
    """Resizes, crops and mirrors labels; the crop may come out smaller than its box."""
    crop_hxw = resize_labels_in_box(labels_HxW, draw.scaled_size, draw.box)
    crop_hxw = flip(crop_hxw) if draw.flip else crop_hxw
    crop_hxw = crop_hxw[::-1] if draw.flip_vertically else crop_hxw
    if draw.angle:
        crop_hxw = rotate(crop_hxw, draw.angle, cv2.INTER_NEAREST, outside=IGNORE)
    return crop_hxw


def fill_padding(padded_HxW: np.ndarray, size: Size, value: int) -> None:
    """Sets what lies below and to the right of a picture (HxW or HxWxC) of that size."""
    padded_HxW[size.height :] = value
    padded_HxW[: size.height, size.width :] = value


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
    from tmanet_jax.data import kernels

    hsv_HxWx3 = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2HSV)
    kernels.look_up_channel(hsv_HxWx3, channel, table_256)
    cv2.cvtColor(hsv_HxWx3, cv2.COLOR_HSV2RGB, dst=frame_HxWx3)
