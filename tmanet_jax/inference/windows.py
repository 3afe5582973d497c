"""Logits of whole frames: at once, by a sliding window, and averaged over scales and flips.

Source: `mmseg/models/segmentors/encoder_decoder.py` (`slide_inference`, `aug_test`).

A `segment` function takes clips of any size, frames_BxSxHxWx3 normalised, to the logits of their
last frames at that size, BxHxWxC.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Protocol

Segment = Callable[[jax.Array], jax.Array]


def segment_whole(model: TMANet, frames_BxSxHxWx3: jax.Array) -> jax.Array:
    """Logits of the last frames at the frames' own size, BxHxWxC."""
    _, _, height, width, _ = frames_BxSxHxWx3.shape
    logits_BxhxwxC = model(frames_BxSxHxWx3).main
    return resize_bilinear(
        logits_BxhxwxC, (height, width), align_corners=model.config.align_corners
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Where windows lie on a frame.

    Attributes:
        size: height and width of the frame in pixels.
        crop: height and width of a window, not larger than the frame.
        origins_Wx2: top and left of each window, row by row, int32.
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    origins_Wx2: np.ndarray

    def __len__(self) -> int:
        return len(self.origins_Wx2)

    def coverage(self) -> np.ndarray:
        """How many windows see each pixel, int32 HxW."""
        count_HxW = np.zeros(self.size, np.int32)
        for top, left in self.origins_Wx2:
            count_HxW[top : top + self.crop[0], left : left + self.crop[1]] += 1
        return count_HxW

    def in_groups(self, largest: int) -> np.ndarray:
        """The origins in the fewest equal groups of at most `largest` windows, KxGx2 int32.

        The last group is filled up with the last window.
        """
        num_groups = -(-len(self) // largest)
        group = -(-len(self) // num_groups)
        missing = num_groups * group - len(self)
        return np.pad(self.origins_Wx2, [(0, missing), (0, 0)], mode="edge").reshape(-1, group, 2)


def place_windows(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> Windows:
    """Covers a frame with windows.

    Args:
        size: height and width of the frame; one smaller than the crop is one small window.
        crop: height and width of a window.
        stride: from window to window, down and to the right.

    Raises:
        ValueError: the stride is larger than the crop, so that no window sees some pixels.
    """
    if stride[0] > crop[0] or stride[1] > crop[1]:
        raise ValueError(f"windows of {crop} at a stride of {stride} leave gaps")
    crop = (min(crop[0], size[0]), min(crop[1], size[1]))
    return Windows(size, crop, window_origins(size, crop, stride))


def windows_of(protocol: Protocol, size: tuple[int, int]) -> Windows:
    """The windows of a (resized) frame of that height and width; in mode "whole" one."""
    if protocol.mode == "whole":
        return place_windows(size, size, size)
    return place_windows(size, protocol.crop_size, protocol.stride)


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


def cut_windows(
    frames_NxHxWxC: jax.Array, origins_Gx2: jax.Array, crop: tuple[int, int]
) -> jax.Array:
    """The same windows of all frames, GxNxhxwxC."""
    n, _, _, c = frames_NxHxWxC.shape

    def cut(origin_2: jax.Array) -> jax.Array:
        return lax.dynamic_slice(frames_NxHxWxC, _start(origin_2), (n, *crop, c))

    return jax.vmap(cut)(origins_Gx2)


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
    b, s, height, width, _ = frames_BxSxHxWx3.shape
    windows = place_windows((height, width), crop, stride)
    frames_NxHxWx3 = frames_BxSxHxWx3.reshape(b * s, height, width, 3)
    origins_KxGx2 = jnp.asarray(windows.in_groups(windows_per_call))
    group = origins_KxGx2.shape[1]

    def logits_of(origins_Gx2: jax.Array) -> jax.Array:
        clips = cut_windows(frames_NxHxWx3, origins_Gx2, windows.crop)
        logits = segment(clips.reshape(group * b, s, *windows.crop, 3))
        return logits.reshape(group, b, *windows.crop, -1)

    return mean_of_windows(logits_of, origins_KxGx2, windows)


def mean_of_windows(
    logits_of: Callable[[jax.Array], jax.Array], groups: jax.Array, windows: Windows
) -> jax.Array:
    """Mean of the logits of all windows that see a pixel, BxHxWxC; one group at a time.

    Args:
        logits_of: from an item of `groups` to the logits of that group's windows, GxBxhxwxC.
        groups: K items, in the order of `windows.in_groups(G)`.
        windows: where they lie.
    """
    logits = jax.eval_shape(logits_of, jax.ShapeDtypeStruct(groups.shape[1:], groups.dtype))
    group, b, _, _, c = logits.shape
    weights_KxG = np.arange(len(groups) * group).reshape(-1, group) < len(windows)

    def add_group(
        sum_BxHxWxC: jax.Array, some: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        item, origins_Gx2, weights_G = some
        weighted = weights_G[:, None, None, None, None] * logits_of(item)
        return _add_windows(sum_BxHxWxC, weighted, origins_Gx2), None

    sum_BxHxWxC, _ = lax.scan(
        add_group,
        jnp.zeros((b, *windows.size, c), logits.dtype),
        (
            groups,
            jnp.asarray(windows.in_groups(group)),
            jnp.asarray(weights_KxG, logits.dtype),
        ),
    )
    return sum_BxHxWxC / jnp.asarray(windows.coverage(), logits.dtype)[:, :, None]


def _add_windows(
    sum_BxHxWxC: jax.Array, logits_GxBxhxwxC: jax.Array, origins_Gx2: jax.Array
) -> jax.Array:
    for logits_BxhxwxC, origin_2 in zip(logits_GxBxhxwxC, origins_Gx2, strict=True):
        start = _start(origin_2)
        before = lax.dynamic_slice(sum_BxHxWxC, start, logits_BxhxwxC.shape)
        sum_BxHxWxC = lax.dynamic_update_slice(sum_BxHxWxC, before + logits_BxhxwxC, start)
    return sum_BxHxWxC


def _start(origin_2: jax.Array) -> tuple[jax.Array, ...]:
    zero = jnp.zeros_like(origin_2[0])
    return (zero, origin_2[0], origin_2[1], zero)


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
