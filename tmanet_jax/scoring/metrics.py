"""Scores of a segmentation, from a confusion matrix.

Source: `mmseg/core/evaluation/metrics.py` (areas summed over the data set, then divided).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.errors import UserError


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


def confusion_of(predicted_HxW: np.ndarray, labels_HxW: np.ndarray, num_classes: int) -> np.ndarray:
    """The same on the host, of one frame: int32 CxC; raises UserError if a label is no class."""
    counted_HxW = labels_HxW != IGNORE
    if labels_HxW.max(initial=0, where=counted_HxW) >= num_classes:
        raise UserError(
            f"The labels hold the value {labels_HxW[counted_HxW].max()}: expected "
            f"0..{num_classes - 1}, or {IGNORE} where ignored."
        )
    cells_N = labels_HxW[counted_HxW].astype(np.int64) * num_classes + predicted_HxW[counted_HxW]
    counts = np.bincount(cells_N, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int32)


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
    def mean_iou_of_labelled(self) -> float:
        """Mean over the classes in the labels (mIoU as VSPW's kit has it)."""
        return _mean(np.where(self.frequency_C > 0, self.iou_C, np.nan))

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes in the labels (mAcc)."""
        return _mean(self.accuracy_C)

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that occur (mDice)."""
        return _mean(self.dice_C)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean over the labelled pixels of the IoU of their class (fwIoU, as VSPW's kit has it)."""
        if np.isnan(self.frequency_C).all():
            return float("nan")
        return float(np.nansum(self.frequency_C * self.iou_C))


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


def scores_without(confusion_CxC: np.ndarray, left_out: int) -> Scores:
    """Scores of all classes but one, whose pixels do not count.

    Where another class is labelled, a prediction of the one that is left out is wrong.
    """
    matrix = confusion_CxC.copy()
    matrix[left_out] = 0
    every = scores(matrix)
    return Scores(
        iou_C=np.delete(every.iou_C, left_out),
        accuracy_C=np.delete(every.accuracy_C, left_out),
        dice_C=np.delete(every.dice_C, left_out),
        frequency_C=np.delete(every.frequency_C, left_out),
        all_accuracy=every.all_accuracy,
    )


MOST_TOLD = 40
"""Classes of a confusion matrix that a reader can survey."""


def most_confused(confusion_CxC: np.ndarray) -> np.ndarray:
    """Classes that are labelled or predicted: all, or the `MOST_TOLD` of most wrong pixels.

    Their indices, in order.
    """
    told_C = confusion_CxC.sum(0) + confusion_CxC.sum(1)
    wrong_C = told_C - 2 * np.diag(confusion_CxC)
    most_C = np.argsort(-wrong_C, kind="stable")
    return np.sort(most_C[told_C[most_C] > 0][:MOST_TOLD])


def row_shares(confusion_CxC: np.ndarray) -> np.ndarray:
    """Each label's pixels by prediction, as shares of 1; 0 for a label that does not occur."""
    labelled_Cx1 = confusion_CxC.sum(1, keepdims=True)
    return confusion_CxC / np.maximum(labelled_Cx1, 1)


def merged(confusion_CxC: np.ndarray, group_of_class_C: Sequence[int]) -> np.ndarray:
    """The confusion matrix KxK of groups of classes.

    Scored, it gives what `cityscapesscripts` calls the IoU of a category: to mistake a class for
    another of its group is right.
    """
    num_groups = max(group_of_class_C) + 1
    member_KxC = np.arange(num_groups)[:, None] == np.asarray(group_of_class_C)
    return member_KxC.astype(np.int64) @ confusion_CxC.astype(np.int64) @ member_KxC.T


def _mean(score_C: np.ndarray) -> float:
    return float("nan") if np.isnan(score_C).all() else float(np.nanmean(score_C))
