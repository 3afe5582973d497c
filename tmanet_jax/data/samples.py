"""One training clip: everything that is drawn for it, then its pixels for those draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tmanet_jax.data import augment
from tmanet_jax.data.augment import Augmentation, GeometricDraw, PhotometricDraw
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.clips import EncodedClip
from tmanet_jax.data.codec import Size

Lap = Callable[[str], None]
"""Is told the name of each stage of the work when it has ended."""


class Batch(NamedTuple):
    """Training clips; also one of them, without the B dimension.

    Attributes:
        frames: BxSxHxWx3 uint8 RGB in the order of time, the query last; padding is 0.
        labels: BxHxW uint8 train ids; ignored pixels and padding are 255.
        sizes: Bx2 int32, height and width of the picture inside the padding.
        indices: B int64, which clip of the split each is.
    """

    frames: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """How training clips are made of records.

    Attributes:
        augmentation: how they are augmented.
        num_memory: number of memory frames T of each clip; S = T + 1.
        memory_range: they are drawn, anew each time, from this many before the query.
    """

    augmentation: Augmentation
    num_memory: int
    memory_range: int


@dataclass(frozen=True)
class ClipDraw:
    """All that is random in a training clip but which frames it remembers.

    Attributes:
        geometry: of all frames and the labels.
        photometry: of each frame, the query last.
    """

    geometry: GeometricDraw
    photometry: Sequence[PhotometricDraw]


def draw_memory_offsets(
    rng: np.random.Generator, num_memory: int, memory_range: int
) -> Sequence[int]:
    """Draws which of the frames before the query a network remembers.

    Returns:
        `num_memory` different numbers of 1..memory_range, descending: how many strides before the
        query each lies, oldest first.
    """
    drawn = rng.choice(memory_range, num_memory, replace=False) + 1
    return sorted(map(int, drawn), reverse=True)


def draw_clip(rng: np.random.Generator, labels_HxW: np.ndarray, sampling: Sampling) -> ClipDraw:
    """Draws a training clip; its crop depends on the labels."""
    return ClipDraw(
        augment.draw_geometry(rng, labels_HxW, sampling.augmentation),
        augment.draw_clip_photometry(
            rng, sampling.num_memory + 1, sampling.augmentation.photometric
        ),
    )


def empty_batch(num_clips: int, num_frames: int, crop_size: tuple[int, int]) -> Batch:
    """Memory of a batch, its contents undefined."""
    return Batch(
        frames=np.empty((num_clips, num_frames, *crop_size, 3), np.uint8),
        labels=np.empty((num_clips, *crop_size), np.uint8),
        sizes=np.empty((num_clips, 2), np.int32),
        indices=np.empty(num_clips, np.int64),
    )


def make_frames(
    clip: EncodedClip, draw: ClipDraw, out_SxHxWx3: np.ndarray, lap: Lap = lambda stage: None
) -> None:
    """Decodes, resizes, crops, mirrors and distorts a clip's frames; pads them with 0.

    Args:
        clip: with the memory frames that were drawn.
        draw: what was drawn for it.
        out_SxHxWx3: uint8 RGB, where the frames go, the query last.
        lap: is told when a stage ends; benchmarks measure by it.

    Raises:
        UserError: a frame is damaged.
    """
    window = augment.source_window(clip.size, draw.geometry)
    frames = range(len(clip.frames))
    for frame, colours, out_HxWx3 in zip(frames, draw.photometry, out_SxHxWx3, strict=True):
        window_hxwx3 = clip.decode_window(frame, *window)
        lap("decode")
        crop_hxwx3 = augment.apply_geometry_to_window(
            window_hxwx3, window, clip.size, draw.geometry, out_HxWx3
        )
        lap("resize, crop")
        augment.distort(crop_hxwx3, colours)
        lap("colours")
        augment.fill_padding(out_HxWx3, Size(*crop_hxwx3.shape[:2]), 0)
        lap("batch")


def make_labels(labels_HxW: np.ndarray, draw: ClipDraw, out_HxW: np.ndarray) -> Size:
    """Resizes, crops and mirrors a clip's labels; pads them with 255.

    Args:
        labels_HxW: the labels of the whole query.
        draw: what was drawn for the clip.
        out_HxW: where the labels go.

    Returns:
        The size of the picture inside the padding.
    """
    crop_hxw = augment.apply_geometry_to_labels(labels_HxW, draw.geometry)
    size = Size(*crop_hxw.shape)
    out_HxW[: size.height, : size.width] = crop_hxw
    augment.fill_padding(out_HxW, size, IGNORE)
    return size


def make_clip(
    clip: EncodedClip, labels_HxW: np.ndarray, draw: ClipDraw, out: Batch, place: int
) -> None:
    """Makes a drawn clip's frames, labels and size, where they lie in a batch.

    Raises:
        UserError: a frame is damaged.
    """
    make_frames(clip, draw, out.frames[place])
    out.sizes[place] = make_labels(labels_HxW, draw, out.labels[place])
