"""Pictures and labels in other sizes, as OpenCV and the original make them."""

from typing import NamedTuple

import cv2
import numpy as np

from tmanet_jax.data.codec import Size

LONGEST_SIDE = 2**14
"""Of a frame or crop in pixels; a mistyped number ends here instead of filling the memory."""

LEAST_RATIO, MOST_RATIO = 1 / 16, 16
"""That a frame is resized by: beyond these it is no picture, or fills the memory."""


class Box(NamedTuple):
    """A rectangle of pixels; it may reach over the bottom and right edge of the picture."""

    top: int
    left: int
    height: int
    width: int

    def of(self, picture_HxW: np.ndarray) -> np.ndarray:
        """The part of a picture (HxW or HxWxC) inside the box; a view."""
        return picture_HxW[self.top : self.top + self.height, self.left : self.left + self.width]


def keep_ratio_size(size: Size, scale: tuple[int, int]) -> Size:
    """Size of a picture resized to fit `scale` with its aspect ratio kept (mmcv.rescale_size).

    Args:
        size: the picture's size.
        scale: two lengths in pixels, in either order: the longer bounds the picture's longer side,
            the shorter its shorter side.
    """
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return Size(int(size.height * factor + 0.5), int(size.width * factor + 0.5))


def scaled_size(size: Size, ratio: float) -> Size:
    """Size of a picture resized by a factor, rounded as the original does."""
    return keep_ratio_size(size, (int(size.height * ratio), int(size.width * ratio)))


def resize_frame(frame_HxWx3: np.ndarray, size: Size) -> np.ndarray:
    """Resizes a uint8 frame bilinearly (cv2.INTER_LINEAR, no antialiasing)."""
    return cv2.resize(frame_HxWx3, (size.width, size.height), interpolation=cv2.INTER_LINEAR)


def resize_labels(labels_HxW: np.ndarray, size: Size) -> np.ndarray:
    """Resizes labels to the nearest neighbour towards the origin (cv2.INTER_NEAREST)."""
    return resize_labels_in_box(labels_HxW, size, Box(0, 0, *size))


def resize_labels_in_box(labels_HxW: np.ndarray, size: Size, box: Box) -> np.ndarray:
    """The part of the resized labels inside the box, without resizing the rest."""
    rows = _nearest(labels_HxW.shape[0], size.height)[box.top : box.top + box.height]
    columns = _nearest(labels_HxW.shape[1], size.width)[box.left : box.left + box.width]
    window_hxw = labels_HxW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Whole rows are gathered at the speed of memory, single pixels are not.
    return cv2.transpose(cv2.transpose(window_hxw)[columns - columns[0]])[rows - rows[0]]


def _nearest(length: int, resized_length: int) -> np.ndarray:
    """Source position of each resized position, as cv2.INTER_NEAREST computes it."""
    scale = 1.0 / (resized_length / length)
    return np.minimum((np.arange(resized_length) * scale).astype(np.int64), length - 1)
