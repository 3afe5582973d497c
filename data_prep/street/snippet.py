"""The frames of one snippet, its annotated frame degraded where that is asked for."""

import zlib

import numpy as np

from data_prep.street.background import Frame
from data_prep.street.degradations import degrade
from data_prep.street.layout import draw_street
from data_prep.street.render import SnippetRenderer
from data_prep.street.scene import ANNOTATED_FRAME


class SnippetFrames:
    """Renders the frames of a snippet; the annotated one is degraded if it is to be.

    Args:
        split: names the split, which the random numbers depend on.
        index: number of the snippet in its split.
        size: height and width in pixels.
        seed: of the data set.
        is_degraded: whether to degrade the annotated frame.
    """

    def __init__(
        self, split: str, index: int, size: tuple[int, int], seed: int, is_degraded: bool
    ) -> None:
        key = (seed, zlib.crc32(split.encode()), index)
        self._fault_seed = (*key, 3)
        self._is_degraded = is_degraded
        street = draw_street(np.random.default_rng((*key, 2)))
        self._renderer = SnippetRenderer(street, size, key)

    def draw(self, frame: int) -> Frame:
        """The image and the exact labels of a frame."""
        picture = self._renderer.draw(frame)
        if not (self._is_degraded and frame == ANNOTATED_FRAME):
            return picture
        image = degrade(np.random.default_rng(self._fault_seed), picture.image_HxWx3)
        return Frame(image, picture.labels_HxW)
