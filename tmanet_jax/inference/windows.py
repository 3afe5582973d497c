"""Logits of whole frames: at once, by a sliding window, and averaged over scales and flips.

Source: `mmseg/models/segmentors/encoder_decoder.py` (`slide_inference`, `aug_test`).

A `segment` function takes clips of any size, frames_BxSxHxWx3 normalised, to the logits of their
last frames at that size, BxHxWxC.
"""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.tmanet import TMANet

Segment = Callable[[jax.Array], jax.Array]


def segment_whole(model: TMANet, frames_BxSxHxWx3: jax.Array) -> jax.Array:
    """Logits of the last frames at the frames' own size, BxHxWxC."""
    _, _, height, width, _ = frames_BxSxHxWx3.shape
    logits_BxhxwxC = model(frames_BxSxHxWx3).main
    return resize_bilinear(
        logits_BxhxwxC, (height, width), align_corners=model.config.align_corners
    )


def window_origins(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]
) -> np.ndarray:
    """Top and left of each window, Wx2, row by row; the last ones are shifted back inside."""
    tops, lefts = (
        [min(i * step, max(length - window, 0)) for i in range(_num_windows(length, window, step))]
        for length, window, step in zip(size, crop, stride, strict=True)
    )
    return np.array([(top, left) for top in tops for left in lefts], np.int32)


def _num_windows(length: int, window: int, step: int) -> int:
    return max(length - window + step - 1, 0) // step + 1


def segment_windows(
    segment: Segment,
    frames_BxSxHxWx3: jax.Array,
    *,
    crop: tuple[int, int],
    stride: tuple[int, int],
    windows_per_call: int = 1,
) -> jax.Array:
    """Mean of the logits of all windows that see a pixel, BxHxWxC.

    Args:
        segment: what to call on each window.
        frames_BxSxHxWx3: normalised frames; one smaller than the crop is one small window.
        crop: height and width of a window.
        stride: from window to window, down and to the right.
        windows_per_call: windows that `segment` gets at a time, as so many clips more.

    Raises:
        ValueError: the stride is larger than the crop, so that no window sees some pixels.
    """
    if stride[0] > crop[0] or stride[1] > crop[1]:
        raise ValueError(f"windows of {crop} at a stride of {stride} leave gaps")
    b, s, height, width, _ = frames_BxSxHxWx3.shape
    crop = (min(crop[0], height), min(crop[1], width))
    origins_Wx2 = window_origins((height, width), crop, stride)
    count_HxW = _windows_over_pixels(origins_Wx2, crop, (height, width))
    group = min(windows_per_call, len(origins_Wx2))

    def cut(origin_2: jax.Array) -> jax.Array:
        zero = jnp.zeros_like(origin_2[0])
        start = (zero, zero, origin_2[0], origin_2[1], zero)
        return lax.dynamic_slice(frames_BxSxHxWx3, start, (b, s, *crop, 3))

    def add_windows(
        sum_BxHxWxC: jax.Array, windows: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        origins_Gx2, weights_G = windows
        clips = jax.vmap(cut)(origins_Gx2).reshape(group * b, s, *crop, 3)
        logits_GxBxhxwxC = segment(clips).reshape(group, b, *crop, -1)
        for index in range(group):
            sum_BxHxWxC = _add_at(
                sum_BxHxWxC, weights_G[index] * logits_GxBxhxwxC[index], origins_Gx2[index]
            )
        return sum_BxHxWxC, None

    logits = jax.eval_shape(segment, jax.ShapeDtypeStruct((b, s, *crop, 3), frames_BxSxHxWx3.dtype))
    sum_BxHxWxC = jnp.zeros((b, height, width, logits.shape[-1]), logits.dtype)
    groups = _in_groups(origins_Wx2, group, logits.dtype)
    sum_BxHxWxC, _ = lax.scan(add_windows, sum_BxHxWxC, groups)
    return sum_BxHxWxC / jnp.asarray(count_HxW, logits.dtype)[:, :, None]


def _windows_over_pixels(
    origins_Wx2: np.ndarray, crop: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    count_HxW = np.zeros(size, np.int32)
    for top, left in origins_Wx2:
        count_HxW[top : top + crop[0], left : left + crop[1]] += 1
    return count_HxW


def _in_groups(
    origins_Wx2: np.ndarray, group: int, dtype: jax.typing.DTypeLike
) -> tuple[jax.Array, jax.Array]:
    """Groups of `group` windows, and 1 for each; the last group is filled up with windows of 0."""
    missing = -len(origins_Wx2) % group
    origins = np.concatenate([origins_Wx2, np.repeat(origins_Wx2[-1:], missing, axis=0)])
    weights = np.concatenate([np.ones(len(origins_Wx2)), np.zeros(missing)])
    return jnp.asarray(origins.reshape(-1, group, 2)), jnp.asarray(
        weights.reshape(-1, group), dtype
    )


def _add_at(sum_BxHxWxC: jax.Array, part_BxhxwxC: jax.Array, origin_2: jax.Array) -> jax.Array:
    zero = jnp.zeros_like(origin_2[0])
    start = (zero, origin_2[0], origin_2[1], zero)
    before = lax.dynamic_slice(sum_BxHxWxC, start, part_BxhxwxC.shape)
    return lax.dynamic_update_slice(sum_BxHxWxC, before + part_BxhxwxC, start)


def view_probabilities(
    segment: Segment,
    frames_BxSxHxWx3: jax.Array,
    *,
    size: tuple[int, int],
    align_corners: bool,
    flip: bool = False,
) -> jax.Array:
    """Class probabilities of one view, BxHxWxC at `size`; a flipped view is flipped back.

    The logits are rescaled first, then comes the softmax, as in the original's `inference`.
    """
    logits_BxHxWxC = segment(frames_BxSxHxWx3)
    logits_BxHxWxC = resize_bilinear(logits_BxHxWxC, size, align_corners=align_corners)
    probabilities_BxHxWxC = jax.nn.softmax(logits_BxHxWxC, axis=-1)
    return probabilities_BxHxWxC[:, :, ::-1] if flip else probabilities_BxHxWxC


def mean_probabilities(views_BxHxWxC: Iterable[jax.Array]) -> jax.Array:
    """Mean over the views of multi-scale and flip testing, one view in memory at a time."""
    total, count = functools.reduce(
        lambda sum_and_count, view: (sum_and_count[0] + view, sum_and_count[1] + 1),
        views_BxHxWxC,
        (jnp.zeros(()), 0),
    )
    return total / count
