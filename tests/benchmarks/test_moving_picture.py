"""The README's moving picture."""

import io

import numpy as np
from PIL import Image, ImageSequence

from benchmarks.moving_picture import _drawn, _webp
from tests.processes import PROJECT
from tmanet_jax.data.classes import CITYSCAPES, IGNORE


def test_a_drawn_picture_a_frame_and_the_readmes_is_small_and_moves() -> None:
    frames_SxHxWx3 = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
    labels_SxHxW = np.array([np.full((16, 32), 3), np.full((16, 32), IGNORE)], np.uint8)
    panels = dict.fromkeys(("labels", "each frame alone", "with memory"), labels_SxHxW)
    content = _webp(list(_drawn(frames_SxHxWx3, panels, CITYSCAPES)))
    with Image.open(io.BytesIO(content)) as picture:
        assert (num_frames(picture), picture.width) == (2, 2 * 512 + 4)
    made = PROJECT / "docs" / "street.webp"
    assert made.stat().st_size < 2_000_000
    with Image.open(made) as picture:
        assert num_frames(picture) == 30


def num_frames(picture: Image.Image) -> int:
    return sum(1 for _ in ImageSequence.Iterator(picture))
