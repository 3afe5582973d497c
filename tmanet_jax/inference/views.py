"""Multi-scale and flip testing: each frame is segmented at several sizes, and mirrored too.

Source: `MultiScaleFlipAug` (views) and `mmseg/models/segmentors/encoder_decoder.py` (`aug_test`).
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from tmanet_jax.data.augment import resize_frame
from tmanet_jax.data.codec import Size
from tmanet_jax.inference.windows import (
    Segment,
    mean_probabilities,
    view_probabilities,
    windows_of,
)
from tmanet_jax.protocol import Protocol

MANY_WINDOWS = 50
"""Of a frame: more are worth a remark."""


def resized_frames(frames_SxHxWx3: np.ndarray, size: Size) -> np.ndarray:
    """uint8 frames resized as the original resizes them, on the host."""
    if frames_SxHxWx3.shape[1:3] == size:
        return frames_SxHxWx3
    return np.stack([resize_frame(frame_HxWx3, size) for frame_HxWx3 in frames_SxHxWx3])


def remarks(protocol: Protocol, size: tuple[int, int]) -> list[str]:
    """What is to be told of frames of that height and width, a line each."""
    resized = protocol.size_of(size)
    lines = []
    if protocol.is_resized_by_default(size):
        lines.append(
            f"Frames of {size[0]}x{size[1]} pixels are resized to {resized[0]}x{resized[1]}: the "
            f"network was trained on frames of {protocol.train_height} rows. A scale of 1 keeps "
            "them as they are."
        )
    num_windows = len(windows_of(protocol, resized))
    if num_windows > MANY_WINDOWS:
        lines.append(
            f"A frame of {resized[0]}x{resized[1]} pixels takes {num_windows} windows: a smaller "
            "scale, larger windows (crop_size), a larger stride or mode whole are faster."
        )
    return lines


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
