"""Scores of a segmentation, from a confusion matrix.

Source: `mmseg/core/evaluation/metrics.py` (areas summed over the data set, then divided).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tmanet_jax.data.classes import IGNORE


def confusion_matrix(
    predicted_BxHxW: jax.Array, labels_BxHxW: jax.Array, num_classes: int
) -> jax.Array:
    """Pixels by (label, prediction), int32 CxC; pixels labelled `IGNORE` are left out."""
    labels_N = labels_BxHxW.reshape(-1).astype(jnp.int32)
    cells_N = labels_N * num_classes + predicted_BxHxW.reshape(-1).astype(jnp.int32)
    outside = num_classes * num_classes
    cells_N = jnp.where(labels_N == IGNORE, outside, cells_N)
    counts = jnp.bincount(cells_N, length=outside + 1)[:outside]
    return counts.reshape(num_classes, num_classes).astype(jnp.int32)


class ConfusionTotal:
    """A confusion matrix summed over a data set of any size.

    Sums on the device in int32, so that no batch waits for a transfer, and moves the sum to the
    host's int64 before it could overflow.
    """

    def __init__(self, num_classes: int):
        self._host_CxC = np.zeros((num_classes, num_classes), np.int64)
        self._device_CxC: jax.Array | None = None
        self._device_pixels = 0

    def add(self, confusion_CxC: jax.Array, num_pixels: int) -> None:
        """Adds one batch's matrix, which counts at most `num_pixels` pixels."""
        if self._device_pixels + num_pixels > np.iinfo(np.int32).max:
            self._flush()
        sum_CxC = confusion_CxC if self._device_CxC is None else self._device_CxC + confusion_CxC
        self._device_CxC = sum_CxC
        self._device_pixels += num_pixels

    def result(self) -> np.ndarray:
        """The sum so far: int64 CxC, labels in rows, predictions in columns."""
        self._flush()
        return self._host_CxC.copy()

    def _flush(self) -> None:
        if self._device_CxC is not None:
            self._host_CxC += np.asarray(self._device_CxC, np.int64)
        self._device_CxC = None
        self._device_pixels = 0


@dataclasses.dataclass(frozen=True)
class Scores:
    """Fractions; a class that has no pixel where the score needs one is nan and left out of means.

    Attributes:
        iou_C: intersection over union; 0 for a class that is predicted but not in the labels.
        accuracy_C: intersection over labelled pixels.
        dice_C: twice the intersection over the sum of both areas.
        frequency_C: share of the labelled pixels.
        all_accuracy: right pixels over labelled pixels (aAcc).
    """

    iou_C: np.ndarray
    accuracy_C: np.ndarray
    dice_C: np.ndarray
    frequency_C: np.ndarray
    all_accuracy: float

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur (mIoU)."""
        return _mean(self.iou_C)

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes in the labels (mAcc)."""
        return _mean(self.accuracy_C)

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that occur (mDice)."""
        return _mean(self.dice_C)


def scores(confusion_CxC: np.ndarray) -> Scores:
    """Scores of a confusion matrix with labels in rows and predictions in columns."""
    matrix = confusion_CxC.astype(np.float64)
    intersect_C = np.diag(matrix)
    label_C, predicted_C = matrix.sum(1), matrix.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Scores(
            iou_C=intersect_C / (label_C + predicted_C - intersect_C),
            accuracy_C=intersect_C / label_C,
            dice_C=2 * intersect_C / (label_C + predicted_C),
            frequency_C=label_C / label_C.sum(),
            all_accuracy=float(intersect_C.sum() / label_C.sum()),
        )


def _mean(score_C: np.ndarray) -> float:
    return float("nan") if np.isnan(score_C).all() else float(np.nanmean(score_C))
