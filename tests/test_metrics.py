"""Confusion matrices and scores, with ignored pixels, absent classes and large counts."""

import jax.numpy as jnp
import numpy as np

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.metrics import ConfusionTotal, confusion_matrix, scores


def test_confusion_counts_label_and_prediction_and_leaves_ignored_pixels_out() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, (2, 2, 7, 9)).astype(np.uint8)
    labels[0, :3] = IGNORE
    expected = np.zeros((5, 5), int)
    for label, prediction in zip(labels.ravel(), predicted.ravel(), strict=True):
        if label != IGNORE:
            expected[label, prediction] += 1
    confusion = confusion_matrix(jnp.asarray(predicted), jnp.asarray(labels), 5)
    np.testing.assert_array_equal(confusion, expected)


def test_scores_of_a_matrix_worked_by_hand() -> None:
    result = scores(np.array([[3, 1, 0], [0, 4, 2], [0, 0, 0]]))
    np.testing.assert_allclose(result.iou_C, [3 / 4, 4 / 7, 0])
    np.testing.assert_allclose(result.accuracy_C, [3 / 4, 4 / 6, np.nan])
    np.testing.assert_allclose(result.dice_C, [6 / 7, 8 / 11, 0])
    assert result.all_accuracy == 7 / 10
    np.testing.assert_allclose(result.mean_accuracy, (3 / 4 + 4 / 6) / 2)


def test_a_class_that_nobody_saw_is_left_out_of_the_means() -> None:
    result = scores(np.array([[2, 0], [0, 0]]))
    assert np.isnan(result.iou_C[1])
    assert result.mean_iou == 1.0


def test_a_total_beyond_int32_does_not_overflow() -> None:
    total = ConfusionTotal(2)
    one = jnp.array([[2**30, 1], [0, 5]], jnp.int32)
    for _ in range(7):
        total.add(one, num_pixels=2**30 + 6)
    np.testing.assert_array_equal(total.result(), 7 * np.asarray(one, np.int64))
    np.testing.assert_array_equal(total.result(), 7 * np.asarray(one, np.int64))
