"""Weights for rare classes, from how often each occurs in the records."""

import numpy as np

from tmanet_jax.data.records import ClipSource


def class_weights(source: ClipSource, power: float) -> tuple[float, ...] | None:
    """Frequency ** -power for each class, scaled so that the mean over labelled pixels is 1.

    A class that never occurs weighs 0. With power 0 there are no weights.
    """
    if power == 0:
        return None
    pixels_C = np.array(source.class_pixels)
    frequency_C = pixels_C / pixels_C.sum()
    present_C = frequency_C > 0
    weights_C = np.where(present_C, np.where(present_C, frequency_C, 1.0) ** -power, 0.0)
    weights_C /= (weights_C * frequency_C).sum()
    return tuple(float(weight) for weight in weights_C)
