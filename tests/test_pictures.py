"""Pictures for people."""

import numpy as np

from tmanet_jax.data.classes import CAMVID
from tmanet_jax.pictures import blend


def test_a_class_has_one_colour_over_objects_of_any_colour() -> None:
    red, grey = (np.full((8, 8, 3), colour, np.uint8) for colour in ((200, 0, 0), (60, 60, 60)))
    labels_HxW = np.full((8, 8), 3, np.uint8)
    over_red, over_grey = (blend(frame, labels_HxW, CAMVID).astype(int) for frame in (red, grey))
    assert np.abs(over_red - over_grey).max() <= 2
    bright = blend(grey + 180, labels_HxW, CAMVID)
    assert (bright > over_grey + 20).all()  # what is there is still seen
