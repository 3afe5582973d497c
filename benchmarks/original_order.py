"""The original's order of work on a training clip, to measure this project's against.

T + 1 whole PNG frames and a PNG of labels are decoded; all are resized whole; crops of the whole
resized labels are tested; frames and labels are cropped, mirrored, distorted in float32, and
stacked with padding. Each step calls what the original's transforms call (OpenCV, Pillow, numpy),
except that frames are decoded as RGB at once, which costs the same and spares a conversion, and
without its slow way of making tensors of lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tmanet_jax.data import augment
from tmanet_jax.data.augment import Box, PhotometricDraw, draw_clip_photometry
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.codec import Size
from tmanet_jax.data.records import Clip
from tmanet_jax.data.samples import Lap, Sampling
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB


@dataclass(frozen=True)
class PngClip:
    """The files of a clip: frames, the query last, and the query's labels."""

    frames: Sequence[Path]
    labels: Path


def write_pngs(clip: Clip, directory: Path) -> PngClip:
    """Writes a clip's frames and labels as PNG files, with OpenCV's usual compression."""
    frames = [directory / f"{clip.id}_{place}.png" for place in range(len(clip.frames_SxHxWx3))]
    for path, frame_HxWx3 in zip(frames, clip.frames_SxHxWx3, strict=True):
        cv2.imwrite(str(path), cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2BGR))
    labels = directory / f"{clip.id}_labels.png"
    cv2.imwrite(str(labels), clip.labels_HxW)
    return PngClip(frames, labels)


def make_clip(
    clip: PngClip, rng: np.random.Generator, sampling: Sampling, lap: Lap
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a training clip; its draws are those that `samples.draw_clip` makes of the generator.

    Returns:
        SxHxWx3 uint8 RGB frames, the query last, and HxW uint8 labels, both padded.
    """
    augmentation = sampling.augmentation
    offsets = augment.draw_memory_offsets(rng, sampling.num_memory, sampling.memory_range)
    paths = [clip.frames[-1 - offset] for offset in (*offsets, 0)]
    contents = [np.frombuffer(path.read_bytes(), np.uint8) for path in paths]
    lap("read")
    frames = [np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)) for content in contents]
    with Image.open(clip.labels) as picture:
        labels_HxW = np.array(picture)
    lap("decode")
    size = augment.scaled_size(Size(*labels_HxW.shape), rng.uniform(*augmentation.ratio_range))
    frames = [_resized(frame_HxWx3, size, cv2.INTER_LINEAR) for frame_HxWx3 in frames]
    labels_HxW = _resized(labels_HxW, size, cv2.INTER_NEAREST)
    lap("resize, crop")
    box = _choose_box(rng, labels_HxW, size, sampling)
    is_flipped = rng.random() < augmentation.flip_probability
    lap("labels and draws")
    frames = [_cropped(frame_HxWx3, box, flip=is_flipped) for frame_HxWx3 in frames]
    labels_HxW = _cropped(labels_HxW, box, flip=is_flipped)
    lap("resize, crop")
    photometry = draw_clip_photometry(rng, len(frames), augmentation.photometric)
    frames = [
        _distorted(frame_HxWx3, draw) for frame_HxWx3, draw in zip(frames, photometry, strict=True)
    ]
    lap("colours")
    frames_SxHxWx3 = np.stack([_padded(frame, augmentation.crop_size, 0) for frame in frames])
    labels_HxW = _padded(labels_HxW, augmentation.crop_size, IGNORE)
    lap("batch")
    return frames_SxHxWx3, labels_HxW


def normalized(frames_SxHxWx3: np.ndarray) -> np.ndarray:
    """Frames as the original ships them: normalised in float32, S x 3 x H x W."""
    mean_1x3 = MEAN_RGB.astype(np.float64)[None]
    inverse_std_1x3 = 1 / STD_RGB.astype(np.float64)[None]
    frames = []
    for frame_HxWx3 in frames_SxHxWx3:
        values_HxWx3 = frame_HxWx3.astype(np.float32)
        cv2.subtract(values_HxWx3, mean_1x3, values_HxWx3)
        cv2.multiply(values_HxWx3, inverse_std_1x3, values_HxWx3)
        frames.append(values_HxWx3.transpose(2, 0, 1))
    return np.stack(frames)


def _resized(picture_HxW: np.ndarray, size: Size, interpolation: int) -> np.ndarray:
    return cv2.resize(picture_HxW, (size.width, size.height), interpolation=interpolation)


def _choose_box(
    rng: np.random.Generator, labels_HxW: np.ndarray, size: Size, sampling: Sampling
) -> Box:
    boxes = augment.draw_boxes(rng, size, sampling.augmentation.crop_size)
    for _ in range(augment.CROP_TRIES):
        box = next(boxes)
        classes, counts = np.unique(box.of(labels_HxW), return_counts=True)
        counts = counts[classes != IGNORE]
        if len(counts) > 1 and counts.max() / counts.sum() < sampling.augmentation.cat_max_ratio:
            return box
    return next(boxes)


def _cropped(picture_HxW: np.ndarray, box: Box, *, flip: bool) -> np.ndarray:
    crop_HxW = box.of(picture_HxW)
    return cv2.flip(crop_HxW, 1) if flip else crop_HxW


def _padded(picture_HxW: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    below, right = size[0] - picture_HxW.shape[0], size[1] - picture_HxW.shape[1]
    values = (value,) * 3
    return cv2.copyMakeBorder(picture_HxW, 0, below, 0, right, cv2.BORDER_CONSTANT, value=values)


def _distorted(frame_HxWx3: np.ndarray, draw: PhotometricDraw) -> np.ndarray:
    if draw.brightness is not None:
        frame_HxWx3 = _converted(frame_HxWx3, offset=draw.brightness)
    if draw.contrast_before is not None:
        frame_HxWx3 = _converted(frame_HxWx3, factor=draw.contrast_before)
    if draw.saturation is not None:
        hsv_HxWx3 = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2HSV)
        hsv_HxWx3[:, :, 1] = _converted(hsv_HxWx3[:, :, 1], factor=draw.saturation)
        frame_HxWx3 = cv2.cvtColor(hsv_HxWx3, cv2.COLOR_HSV2RGB)
    if draw.hue is not None:
        hsv_HxWx3 = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2HSV)
        hsv_HxWx3[:, :, 0] = (hsv_HxWx3[:, :, 0].astype(int) + draw.hue) % 180
        frame_HxWx3 = cv2.cvtColor(hsv_HxWx3, cv2.COLOR_HSV2RGB)
    if draw.contrast_after is not None:
        frame_HxWx3 = _converted(frame_HxWx3, factor=draw.contrast_after)
    return frame_HxWx3


def _converted(picture_HxW: np.ndarray, factor: float = 1.0, offset: float = 0.0) -> np.ndarray:
    values_HxW = picture_HxW.astype(np.float32) * factor + offset
    return np.clip(values_HxW, 0, 255).astype(np.uint8)
