"""Weights for rare classes, from how often each occurs in the records."""

import numpy as np
from tqdm import tqdm

from tmanet_jax.data.records import ClipSource


def class_weights(source: ClipSource, power: float) -> tuple[float, ...] | None:
    """Frequency ** -power for each class, scaled so that the mean over labelled pixels is 1.

    A class that never occurs weighs 0. With power 0 there are no weights, and nothing is read.
    """
    if power == 0:
        return None
    pixels_C = _class_pixels(source)
    frequency_C = pixels_C / pixels_C.sum()
    present_C = frequency_C > 0
    weights_C = np.where(present_C, np.where(present_C, frequency_C, 1.0) ** -power, 0.0)
    weights_C /= (weights_C * frequency_C).sum()
    return tuple(float(weight) for weight in weights_C)


def _class_pixels(source: ClipSource) -> np.ndarray:
    num_classes = source.info.classes.num_classes
    pixels_C = np.zeros(num_classes, np.int64)
    for index in tqdm(range(len(source)), desc="count classes", unit="clip", leave=False):
        labels_HxW = source.read_encoded(index).decode_labels()
        pixels_C += np.bincount(labels_HxW.reshape(-1), minlength=256)[:num_classes]
    return pixels_C
