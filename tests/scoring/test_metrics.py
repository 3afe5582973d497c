"""Confusion matrices and scores, with ignored pixels, absent classes, void and categories."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.metrics import (
    confusion_matrix,
    confusion_of,
    merged,
    most_confused,
    scores,
    scores_without,
)


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
    np.testing.assert_array_equal(confusion_of(predicted, labels, 5), expected)


def test_scores_of_a_matrix_worked_by_hand() -> None:
    result = scores(np.array([[3, 1, 0], [0, 4, 2], [0, 0, 0]]))
    np.testing.assert_allclose(result.iou_C, [3 / 4, 4 / 7, 0])
    np.testing.assert_allclose(result.accuracy_C, [3 / 4, 4 / 6, np.nan])
    np.testing.assert_allclose(result.dice_C, [6 / 7, 8 / 11, 0])
    assert result.all_accuracy == 7 / 10
    np.testing.assert_allclose(result.mean_accuracy, (3 / 4 + 4 / 6) / 2)
    np.testing.assert_allclose(result.frequency_weighted_iou, 0.4 * 3 / 4 + 0.6 * 4 / 7)
    np.testing.assert_allclose(result.mean_iou_of_labelled, (3 / 4 + 4 / 7) / 2)


def test_a_class_that_nobody_saw_is_left_out_of_the_means() -> None:
    result = scores(np.array([[2, 0], [0, 0]]))
    assert np.isnan(result.iou_C[1])
    assert result.mean_iou == result.frequency_weighted_iou == 1.0
    assert np.isnan(scores(np.zeros((2, 2))).frequency_weighted_iou)


def test_without_void_its_pixels_do_not_count_and_predicting_it_elsewhere_is_wrong() -> None:
    result = scores_without(np.array([[9, 3, 2], [1, 4, 0], [0, 2, 6]]), left_out=0)
    np.testing.assert_allclose(result.iou_C, [4 / (5 + 2), 6 / 8])
    np.testing.assert_allclose(result.accuracy_C, [4 / 5, 6 / 8])
    np.testing.assert_allclose(result.frequency_C, [5 / 13, 8 / 13])
    assert result.all_accuracy == 10 / 13


def test_a_void_that_is_only_predicted_is_no_class_of_the_mean() -> None:
    result = scores_without(np.array([[0, 0, 0], [2, 2, 0], [0, 0, 4]]), left_out=0)
    assert result.mean_iou == (0.5 + 1) / 2


@settings(deadline=None)  # the first example compiles
@given(seed=st.integers(0, 2**32 - 1))
def test_merged_classes_are_counted_as_merged_labels_would_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 5, (2, 1, 6, 7)).astype(np.uint8)
    group_of_class = (0, 1, 0, 2, 1)
    groups = np.array(group_of_class, np.uint8)
    confusion = np.asarray(confusion_matrix(predicted, labels, 5))
    expected = confusion_matrix(groups[predicted], groups[labels], 3)
    np.testing.assert_array_equal(merged(confusion, group_of_class), expected)


@pytest.mark.parametrize("value", [5, 254])
def test_a_label_of_no_class_is_named(value):
    labels = np.full((3, 4), 255, np.uint8)
    labels[1, 2] = value
    with pytest.raises(UserError, match=rf"value {value}: expected 0\.\.4"):
        confusion_of(np.zeros((3, 4), np.uint8), labels, 5)


def test_the_classes_that_are_told_are_those_with_the_most_wrong_pixels() -> None:
    confusion = np.diag(np.arange(1000, 1124))
    np.testing.assert_array_equal(most_confused(confusion[:19, :19]), np.arange(19))
    confusion[3, 120], confusion[100:123, 7] = 9, 1
    told = most_confused(confusion)
    assert len(told) == 40 and (np.diff(told) > 0).all()
    assert {3, 7, 120, *range(100, 123)} <= set(told.tolist())
