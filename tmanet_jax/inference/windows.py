"""Whole frames: segmented at once or in windows, at one size or at several, and mirrored too.

Sources: `mmseg/models/segmentors/encoder_decoder.py` (`slide_inference`, `aug_test`), and for the
views `MultiScaleFlipAug`.

A `segment` function takes clips of any size, frames_BxSxHxWx3 normalised, to the logits of their
last frames, at the network's stride, BxhxwxC. These get the size of the frames a block of columns
at a time: windows lie on a grid, so that the mean of all that see a pixel is a sum of products with
one matrix for the rows and one for the columns of each.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from tmanet_jax.data.codec import Size
from tmanet_jax.data.resize import resize_frame
from tmanet_jax.models import layers
from tmanet_jax.models.upsampling import HalfUpsampled, half_upsampled_windows
from tmanet_jax.protocol import EvalConfig, Protocol

Segment = Callable[[jax.Array], jax.Array]

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


@dataclasses.dataclass(frozen=True)
class Windows:
    """Where windows lie on a frame.

    Attributes:
        size: height and width of the frame in pixels.
        crop: height and width of a window, not larger than the frame.
        tops: of the rows of windows.
        lefts: of the columns of windows.
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def origins_Wx2(self) -> np.ndarray:  # noqa: N802  # the suffix is its shape
        """Top and left of each window, row by row, int32."""
        return np.array([(top, left) for top in self.tops for left in self.lefts], np.int32)

    def in_groups(self, largest: int) -> np.ndarray:
        """The origins in the fewest equal groups of at most `largest` windows, KxGx2 int32.

        The last group is filled up with the last window.
        """
        num_groups = -(-len(self) // largest)
        group = -(-len(self) // num_groups)
        missing = num_groups * group - len(self)
        return np.pad(self.origins_Wx2, [(0, missing), (0, 0)], mode="edge").reshape(-1, group, 2)

    def half_upsampled(
        self, logits_WxBxhxwxC: jax.Array, size: tuple[int, int], *, align_corners: bool
    ) -> HalfUpsampled:
        """The mean of the logits of all windows that see a pixel, on its way to a frame's own size.

        Args:
            logits_WxBxhxwxC: of the windows; further ones are left out.
            size: height and width of the frame before it was resized.
            align_corners: how logits are rescaled.
        """
        _, b, h, w, c = logits_WxBxhxwxC.shape
        starts = self.tops, self.lefts
        logits_IxJxBxhxwxC = logits_WxBxhxwxC[: len(self)].reshape(*map(len, starts), b, h, w, c)
        matrices = (
            _axis_matrices(*axis, align_corners, logits_WxBxhxwxC.dtype)
            for axis in zip((h, w), starts, self.crop, self.size, size, strict=True)
        )
        return half_upsampled_windows(logits_IxJxBxhxwxC, *matrices)


def _axis_matrices(
    network: int,
    starts: Sequence[int],
    crop: int,
    resized: int,
    own: int,
    align_corners: bool,
    dtype: DTypeLike,
) -> jax.Array:
    """What each window's logits give the pixels along an axis, Wxlxk.

    Args:
        network: k, logits of a window.
        starts: of the W windows.
        crop: pixels of a window.
        resized: pixels of the resized frame.
        own: l, pixels of the frame.
        align_corners: how logits are rescaled.
        dtype: of the result.
    """
    matrix_Cxk = layers.interpolation_matrix(network, crop, align_corners, dtype)
    if len(starts) == 1:
        matrix_WxRxk = matrix_Cxk[None]
    else:
        places = [[(start, resized - start - crop), (0, 0)] for start in starts]
        matrix_WxRxk = jnp.stack([jnp.pad(matrix_Cxk, place) for place in places])
        seen_R = sum(np.pad(np.ones(crop, int), place[0]) for place in places)
        matrix_WxRxk = matrix_WxRxk / jnp.asarray(seen_R, dtype)[None, :, None]
    if own == resized:
        return matrix_WxRxk
    to_own_lxR = layers.interpolation_matrix(resized, own, align_corners, dtype)
    return jnp.einsum("lr,wrk->wlk", to_own_lxR, matrix_WxRxk, precision=lax.Precision.HIGHEST)


def windows_of(protocol: Protocol, size: tuple[int, int]) -> Windows:
    """The windows of a (resized) frame of that height and width; in mode "whole" one.

    The last ones are shifted back inside; a frame smaller than a window is one small window.
    """
    is_whole = protocol.mode == "whole"
    height, width = size if is_whole else map(min, protocol.crop_size, size)
    tops, lefts = (
        tuple(min(i * step, length - window) for i in range(-(-(length - window) // step) + 1))
        for length, window, step in zip(size, (height, width), protocol.stride, strict=True)
    )
    return Windows(size, (height, width), tops, lefts)


def cut_windows(
    frames_NxHxWxC: jax.Array, origins_Gx2: jax.Array, crop: tuple[int, int]
) -> jax.Array:
    """The same windows of all frames, GxNxhxwxC."""
    n, _, _, c = frames_NxHxWxC.shape

    def cut(origin_2: jax.Array) -> jax.Array:
        return lax.dynamic_slice(frames_NxHxWxC, _start(origin_2), (n, *crop, c))

    return jax.vmap(cut)(origins_Gx2)


def segment_windows(
    segment: Segment, frames_BxSxHxWx3: jax.Array, windows: Windows, windows_per_call: int = 1
) -> jax.Array:
    """The logits of all windows at the network's stride, WxBxhxwxC; the last ones may be repeated.

    Args:
        segment: what to call on each window.
        frames_BxSxHxWx3: normalised, and resized as the protocol says.
        windows: of them.
        windows_per_call: windows that `segment` gets at a time, as so many clips more.
    """
    if len(windows) == 1:
        return segment(frames_BxSxHxWx3)[None]
    b, s, height, width, _ = frames_BxSxHxWx3.shape
    frames_NxHxWx3 = frames_BxSxHxWx3.reshape(b * s, height, width, 3)
    origins_KxGx2 = jnp.asarray(windows.in_groups(windows_per_call))
    group = origins_KxGx2.shape[1]

    def logits_of(origins_Gx2: jax.Array) -> jax.Array:
        clips = cut_windows(frames_NxHxWx3, origins_Gx2, windows.crop)
        return segment(clips.reshape(group * b, s, *windows.crop, 3))

    logits_KxMxhxwxC = lax.map(logits_of, origins_KxGx2)
    return logits_KxMxhxwxC.reshape(-1, b, *logits_KxMxhxwxC.shape[2:])


def _start(origin_2: jax.Array) -> tuple[jax.Array, ...]:
    zero = jnp.zeros_like(origin_2[0])
    return (zero, origin_2[0], origin_2[1], zero)


def each_view(
    segment: Segment,
    resized: Sequence[jax.Array],
    config: EvalConfig,
    *,
    size: tuple[int, int],
    align_corners: bool,
) -> list[HalfUpsampled]:
    """Logits of each view: for each ratio the clip as it is, then, if wanted, mirrored.

    The order is the original's; what a mirrored view says is mirrored back.

    Args:
        segment: see above.
        resized: normalised clips, BxSxhxwx3, one for each ratio.
        config: how they are segmented.
        size: height and width of the frames as they were.
        align_corners: how logits are rescaled to `size`.
    """

    def view(frames_BxSxhxwx3: jax.Array) -> HalfUpsampled:
        _, _, height, width, _ = frames_BxSxhxwx3.shape
        windows = windows_of(config.protocol, (height, width))
        logits = segment_windows(segment, frames_BxSxhxwx3, windows, config.windows_per_call)
        return windows.half_upsampled(logits, size, align_corners=align_corners)

    views = []
    for frames_BxSxhxwx3 in resized:
        views.append(view(frames_BxSxhxwx3))
        if config.flip:
            mirrored = view(frames_BxSxhxwx3[:, :, :, ::-1])
            views.append(dataclasses.replace(mirrored, matrix_WxK=mirrored.matrix_WxK[::-1]))
    return views


def mean_probabilities(logits_of_views: Iterable[jax.Array]) -> jax.Array:
    """Mean over the views of multi-scale and flip testing, one view in memory at a time."""
    total, count = jnp.zeros(()), 0
    for logits_BxHxWxC in logits_of_views:
        total, count = total + jax.nn.softmax(logits_BxHxWxC, axis=-1), count + 1
    return total / count
