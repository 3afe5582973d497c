"""Metrics: ignored pixels, absent classes, means."""

import numpy as np

from tests.parity.goldens import Case, at_least_one
from tmanet_jax.scoring.metrics import Scores, confusion_matrix, scores


def check_metrics(case: Case) -> None:
    """Areas of each picture, and the scores of each set. All numbers are equal.

    The original can write 0 for a class without pixels (`nan_to_num`); here that is always nan.
    """
    for index, facts in enumerate(case.facts["sets"]):
        arrays = case.expected(f"s{index}_")
        num_classes = facts["num_classes"]
        pairs = zip(at_least_one(arrays["pred"]), arrays["gt"], strict=True)
        matrices = [np.asarray(confusion_matrix(p, gt, num_classes)) for p, gt in pairs]
        np.testing.assert_array_equal([_areas(matrix) for matrix in matrices], arrays["per_image"])
        computed = scores(np.sum(matrices, axis=0))
        np.testing.assert_array_equal(computed.iou_C, arrays["iou"])
        np.testing.assert_array_equal(computed.accuracy_C, arrays["acc"])
        np.testing.assert_array_equal(computed.dice_C, arrays["dice"])
        assert list(np.flatnonzero(np.isnan(computed.iou_C))) == facts["nan_classes_iou"]
        means = _means(computed)
        assert {name: facts[name] for name in means} == means
        for name, rounded in case.facts.get(f"dataset_evaluate_set{index}", {}).items():
            assert round(100 * means[name], 2) / 100 == rounded


def _areas(confusion_CxC: np.ndarray) -> np.ndarray:
    """Pixels of each class: right, right or wrong, predicted, labelled."""
    right_C, predicted_C, labelled_C = (
        np.diag(confusion_CxC),
        confusion_CxC.sum(0),
        confusion_CxC.sum(1),
    )
    return np.stack([right_C, predicted_C + labelled_C - right_C, predicted_C, labelled_C])


def _means(computed: Scores) -> dict[str, float]:
    return {
        "aAcc": computed.all_accuracy,
        "mAcc": computed.mean_accuracy,
        "mIoU": computed.mean_iou,
        "mDice": computed.mean_dice,
    }
