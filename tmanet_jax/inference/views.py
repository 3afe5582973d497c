"""Multi-scale and flip testing: each frame is segmented at several sizes, and mirrored too.

Source: `MultiScaleFlipAug` (views) and `mmseg/models/segmentors/encoder_decoder.py` (`aug_test`).
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from tmanet_jax.data.codec import Size
from tmanet_jax.data.transforms import resize_frame, scaled_size
from tmanet_jax.inference.windows import Segment, mean_probabilities, view_probabilities


def resized_frames(frames_SxHxWx3: np.ndarray, ratios: Sequence[float]) -> tuple[np.ndarray, ...]:
    """A clip's uint8 frames resized by each ratio as the original resizes them (on the host)."""
    size = Size(*frames_SxHxWx3.shape[1:3])
    return tuple(_resized(frames_SxHxWx3, size, scaled_size(size, ratio)) for ratio in ratios)


def _resized(frames_SxHxWx3: np.ndarray, size: Size, new_size: Size) -> np.ndarray:
    if new_size == size:
        return frames_SxHxWx3
    return np.stack([resize_frame(frame_HxWx3, new_size) for frame_HxWx3 in frames_SxHxWx3])


def class_scores(
    segment: Segment,
    resized: Sequence[jax.Array],
    *,
    size: tuple[int, int],
    align_corners: bool,
    flip: bool,
) -> jax.Array:
    """What the arg-max over classes is taken of, BxHxWxC at `size`: the views' mean probabilities.

    Args:
        segment: see `windows`.
        resized: normalised clips, BxSxhxwx3, one for each ratio.
        size: height and width of the frames as they were.
        align_corners: how logits are rescaled to `size`.
        flip: add the mirror image of each clip.
    """
    return mean_probabilities(
        each_view(segment, resized, size=size, align_corners=align_corners, flip=flip)
    )


def each_view(
    segment: Segment,
    resized: Sequence[jax.Array],
    *,
    size: tuple[int, int],
    align_corners: bool,
    flip: bool,
) -> Iterator[jax.Array]:
    """Class probabilities of each view, BxHxWxC: for each ratio the clip as it is, then mirrored.

    The arguments are those of `class_scores`; the order is the original's.
    """
    for frames_BxSxhxwx3 in resized:
        yield view_probabilities(segment, frames_BxSxhxwx3, size=size, align_corners=align_corners)
        if flip:
            mirrored_BxSxhxwx3 = frames_BxSxhxwx3[:, :, :, ::-1]
            yield view_probabilities(
                segment, mirrored_BxSxhxwx3, size=size, align_corners=align_corners, flip=True
            )
