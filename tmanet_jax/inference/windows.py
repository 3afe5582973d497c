"""Whole frames: segmented at once or in windows, at one size or at several, and mirrored too.

Sources: `mmseg/models/segmentors/encoder_decoder.py` (`slide_inference`, `aug_test`), and for the
views `MultiScaleFlipAug`.

A `segment` function takes clips of any size, frames_BxSxHxWx3 normalised, to the logits of their
last frames at that size, BxHxWxC.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tmanet_jax.data.codec import Size
from tmanet_jax.data.resize import resize_frame
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Protocol

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


def windows_of(protocol: Protocol, size: tuple[int, int]) -> Windows:
    """The windows of a (resized) frame of that height and width; in mode "whole" one.

    The last ones are shifted back inside; a frame smaller than a window is one small window.
    """
    is_whole = protocol.mode == "whole"
    height, width = size if is_whole else map(min, protocol.crop_size, size)
    tops, lefts = (
        [min(i * step, length - window) for i in range(-(-(length - window) // step) + 1)]
        for length, window, step in zip(size, (height, width), protocol.stride, strict=True)
    )
    origins_Wx2 = np.array([(top, left) for top in tops for left in lefts], np.int32)
    return Windows(size, (height, width), origins_Wx2)


def cut_windows(
    frames_NxHxWxC: jax.Array, origins_Gx2: jax.Array, crop: tuple[int, int]
) -> jax.Array:
    """The same windows of all frames, GxNxhxwxC."""
    n, _, _, c = frames_NxHxWxC.shape

    def cut(origin_2: jax.Array) -> jax.Array:
        return lax.dynamic_slice(frames_NxHxWxC, _start(origin_2), (n, *crop, c))

    return jax.vmap(cut)(origins_Gx2)


def segment_windows(
    segment: Segment, frames_BxSxHxWx3: jax.Array, protocol: Protocol, windows_per_call: int = 1
) -> jax.Array:
    """Mean of the logits of all windows that see a pixel, BxHxWxC.

    Args:
        segment: what to call on each window.
        frames_BxSxHxWx3: normalised, and resized as the protocol says.
        protocol: how frames are segmented.
        windows_per_call: windows that `segment` gets at a time, as so many clips more.
    """
    b, s, height, width, _ = frames_BxSxHxWx3.shape
    windows = windows_of(protocol, (height, width))
    if len(windows) == 1:
        return segment(frames_BxSxHxWx3)
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
    if len(windows) == 1:
        return logits_of(groups[0])[0]
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
    return sum_BxHxWxC / jnp.asarray(windows.coverage(), logits.dtype)[None, :, :, None]


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
        segment: see above.
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

    The arguments are those of `class_scores`; the order is the original's. Logits are rescaled
    first, then comes the softmax; a mirrored view is mirrored back.
    """

    def probabilities(frames_BxSxhxwx3: jax.Array) -> jax.Array:
        logits_BxhxwxC = segment(frames_BxSxhxwx3)
        logits_BxHxWxC = resize_bilinear(logits_BxhxwxC, size, align_corners=align_corners)
        return jax.nn.softmax(logits_BxHxWxC, axis=-1)

    for frames_BxSxhxwx3 in resized:
        yield probabilities(frames_BxSxhxwx3)
        if flip:
            yield probabilities(frames_BxSxhxwx3[:, :, :, ::-1])[:, :, ::-1]


def mean_probabilities(views: Iterable[jax.Array]) -> jax.Array:
    """Mean over the views of multi-scale and flip testing, one view in memory at a time."""
    total, count = jnp.zeros(()), 0
    for view_BxHxWxC in views:
        total, count = total + view_BxHxWxC, count + 1
    return total / count
