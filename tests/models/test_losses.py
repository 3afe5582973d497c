"""The losses against their definitions in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.errors import UserError
from tmanet_jax.models import upsampling
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.fcn_head import FCNHeadConfig
from tmanet_jax.models.losses import (
    LOSSES,
    PIXEL_LOSSES,
    LossConfig,
    Losses,
    cross_entropy,
    pixels,
    segmentation_loss,
)
from tmanet_jax.models.tmanet import Logits


@pytest.fixture
def logits_and_labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels_BxHxW = rng.integers(0, 4, (2, 6, 5)).astype(np.uint8)
    labels_BxHxW[0, :2] = IGNORE
    return rng.standard_normal((2, 6, 5, 4)).astype(np.float32), labels_BxHxW


def pixel_losses(logits_BxHxWxC: np.ndarray, labels_BxHxW: np.ndarray) -> np.ndarray:
    """-log softmax at the label, of the labelled pixels."""
    valid = labels_BxHxW != IGNORE
    log_softmax = logits_BxHxWxC - np.log(np.exp(logits_BxHxWxC).sum(-1, keepdims=True))
    return -log_softmax[valid][np.arange(valid.sum()), labels_BxHxW[valid]]


def loss_of(logits_BxHxWxC: np.ndarray, labels_BxHxW: np.ndarray, config: LossConfig) -> float:
    labels = jnp.asarray(labels_BxHxW)
    nll_BxHxW = pixels(jnp.asarray(logits_BxHxWxC), labels).nll_BxHxW
    return float(cross_entropy(nll_BxHxW, labels, config))


def loss_and_gradient(
    logits_BxHxWxC: np.ndarray, labels_BxHxW: np.ndarray, config: LossConfig
) -> tuple[jax.Array, jax.Array]:
    """Of one head."""
    labels = jnp.asarray(labels_BxHxW, jnp.uint8)

    def loss(logits: jax.Array) -> jax.Array:
        return segmentation_loss(Logits(logits, logits), labels, config, align_corners=True).main

    return jax.value_and_grad(loss)(jnp.asarray(logits_BxHxWxC))


def test_average_over_all_pixels_counts_ignored_ones_as_zero(logits_and_labels) -> None:
    logits, labels = logits_and_labels
    loss = loss_of(logits, labels, LossConfig(average="all"))
    assert float(loss) == pytest.approx(pixel_losses(logits, labels).sum() / labels.size, rel=1e-5)


def test_average_over_valid_pixels(logits_and_labels) -> None:
    logits, labels = logits_and_labels
    loss = loss_of(logits, labels, LossConfig(average="valid"))
    assert float(loss) == pytest.approx(pixel_losses(logits, labels).mean(), rel=1e-5)


def test_class_weights_multiply_each_pixels_loss(logits_and_labels) -> None:
    logits, labels = logits_and_labels
    weights = (0.5, 1.0, 2.0, 0.0)
    loss = loss_of(logits, labels, LossConfig(class_weights=weights))
    weighted = pixel_losses(logits, labels) * np.array(weights)[labels[labels != IGNORE]]
    assert float(loss) == pytest.approx(weighted.sum() / labels.size, rel=1e-5)


def test_accuracy_counts_ignored_pixels_as_wrong() -> None:
    logits = jnp.zeros((1, 2, 2, 2)).at[..., 1].set(1.0)
    labels = jnp.array([[[1, 1], [0, IGNORE]]], jnp.uint8)
    assert float(pixels(logits, labels).is_right_BxHxW.mean()) == 0.5


def test_total_is_main_and_weighted_aux_at_the_labels_size(logits_and_labels) -> None:
    full, labels = logits_and_labels
    logits = Logits(main=jnp.asarray(full[:, ::2, ::2]), aux=jnp.asarray(full[:, ::3, ::3]))
    config = LossConfig(aux_weight=0.3)
    losses = segmentation_loss(logits, jnp.asarray(labels), config, align_corners=True)
    unweighted = segmentation_loss(
        logits, jnp.asarray(labels), LossConfig(aux_weight=1.0), align_corners=True
    )
    assert float(losses.aux) == pytest.approx(0.3 * float(unweighted.aux), rel=1e-6)
    assert float(losses.total) == pytest.approx(float(losses.main + losses.aux), rel=1e-6)


def test_124_classes_need_about_the_logits_of_one_head_at_all_pixels() -> None:
    """At VSPW's 480x853, forward and backward, by what XLA says it holds beside its arguments."""
    logits = jnp.zeros((1, 60, 107, 124))
    labels = jnp.zeros((1, 480, 853), jnp.uint8)

    def loss(logits: Logits) -> jax.Array:
        return segmentation_loss(logits, labels, LossConfig(), align_corners=False).total

    analysis = jax.jit(jax.grad(loss)).lower(Logits(logits, logits)).compile().memory_analysis()
    assert analysis is not None
    held = analysis.temp_size_in_bytes
    assert 0 < held < 1.2 * 4 * 480 * 853 * 124


@pytest.mark.parametrize("name", ["cross_entropy", "ohem"])
def test_blocks_of_columns_change_no_loss_and_no_gradient(
    logits_and_labels, name, monkeypatch
) -> None:
    """The second block has two columns, filled up to the first one's three."""
    full, labels = logits_and_labels
    small = Logits(main=jnp.asarray(full[:, ::2, ::2]), aux=jnp.asarray(full[:, ::3, ::3]))
    config = LossConfig(name, ohem_kept=10, class_weights=(0.5, 1.0, 2.0, 0.0))

    def loss(logits: Logits) -> tuple[jax.Array, Losses]:
        losses = segmentation_loss(logits, jnp.asarray(labels), config, align_corners=False)
        return losses.total, losses

    def compiled() -> Any:
        return jax.jit(lambda logits: jax.value_and_grad(loss, has_aux=True)(logits))

    whole = compiled()(small)
    monkeypatch.setattr(upsampling, "FLOATS_AT_A_TIME", 2 * 6 * 4 * 3)
    in_blocks = compiled()(small)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), whole, in_blocks
    )


def softmax(logits_BxHxWxC: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits_BxHxWxC - logits_BxHxWxC.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def dice_loss(p_PxC: np.ndarray, labels_P: np.ndarray, weights_C: np.ndarray) -> float:
    """Of labelled pixels."""
    losses = []
    for index in range(p_PxC.shape[1]):
        is_class_P, p_P = labels_P == index, p_PxC[:, index]
        similarity = (2 * p_P[is_class_P].sum() + 1) / ((p_P**2).sum() + is_class_P.sum() + 1)
        losses.append(1 - similarity)
    return float(np.average(losses, weights=weights_C))


def iou_loss(is_wrong_P: np.ndarray, is_class_P: np.ndarray) -> float:
    """1 - IoU of a class if these pixels are wrong."""
    return 1 - (is_class_P & ~is_wrong_P).sum() / (is_class_P | is_wrong_P).sum()


def lovasz_loss(p_PxC: np.ndarray, labels_P: np.ndarray, weights_C: np.ndarray) -> float:
    """The Lovasz extension of `iou_loss` at the errors, by its definition."""
    losses, weights = [], []
    for index in np.unique(labels_P):
        is_class_P = labels_P == index
        error_P = np.abs(is_class_P - p_PxC[:, index])
        is_wrong_P, loss = np.zeros(len(labels_P), bool), 0.0
        for pixel in np.argsort(-error_P):
            before = iou_loss(is_wrong_P, is_class_P)
            is_wrong_P[pixel] = True
            loss += error_P[pixel] * (iou_loss(is_wrong_P, is_class_P) - before)
        losses.append(loss)
        weights.append(weights_C[index])
    return float(np.average(losses, weights=weights))


DEFINITIONS = {"dice": dice_loss, "lovasz": lovasz_loss}


@pytest.mark.parametrize("weights", [(), (0.5, 1.0, 2.0, 0.0)])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_losses_of_regions_and_their_gradients_are_their_definitions(
    logits_and_labels, name: str, weights: tuple[float, ...]
) -> None:
    """One class is in no pixel of the batch; ignored pixels change nothing."""
    logits, labels = logits_and_labels
    labels = np.where(labels == 1, 2, labels)
    valid, config = labels != IGNORE, LossConfig(name, class_weights=weights)

    def definition(logits_BxHxWxC: np.ndarray) -> float:
        weights_C = np.array(weights or (1.0,) * 4)
        return DEFINITIONS[name](softmax(logits_BxHxWxC)[valid], labels[valid], weights_C)

    loss, gradient = loss_and_gradient(logits, labels, config)
    assert float(loss) == pytest.approx(definition(logits.astype(np.float64)), rel=1e-5)
    assert not np.asarray(gradient)[~valid].any()
    rng = np.random.default_rng(1)
    for _ in range(5):
        step = 1e-6 * rng.standard_normal(logits.shape)
        change = definition(logits + step) - definition(logits - step)
        assert float((gradient * step).sum()) == pytest.approx(change / 2, rel=1e-3, abs=1e-10)


@pytest.mark.parametrize("name", [*PIXEL_LOSSES, *LOSSES])
def test_of_a_head_in_bfloat16_loss_and_gradient_are_about_float32s(
    logits_and_labels, name: str
) -> None:
    features_BxHxWx16 = 100 * np.random.default_rng(0).standard_normal((2, 6, 5, 16))
    labels = jnp.asarray(logits_and_labels[1])
    classifier = FCNHeadConfig(
        num_classes=4, dropout=0.0, stages=(4,), channels=16, num_convs=0, concat_input=False
    )

    def loss_and_gradient(dtype: jnp.dtype) -> tuple[float, np.ndarray]:
        head = classifier.build((16,) * 4, dtype=dtype, rngs=nnx.Rngs(0))

        def loss(x: jax.Array) -> jax.Array:
            logits = head.read(Stages(x, x, x, x), (), train=True)
            both, config = Logits(logits, logits), LossConfig(name, ohem_kept=10)
            return segmentation_loss(both, labels, config, align_corners=True).total

        found, gradient = jax.value_and_grad(loss)(jnp.asarray(features_BxHxWx16, dtype))
        return float(found), np.asarray(gradient, np.float64)

    loss, gradient = loss_and_gradient(jnp.dtype("bfloat16"))
    expected_loss, expected_gradient = loss_and_gradient(jnp.dtype("float32"))
    assert loss == pytest.approx(expected_loss, rel=0.01)
    difference = np.linalg.norm(gradient - expected_gradient)
    assert difference < 0.05 * np.linalg.norm(expected_gradient)


@pytest.mark.parametrize("average", ["all", "valid"])
@pytest.mark.parametrize("name", [*PIXEL_LOSSES, *LOSSES])
def test_nothing_labelled_has_no_loss_and_no_gradient(name: str, average) -> None:
    labels, logits = np.full((1, 3, 3), IGNORE, np.uint8), np.ones((1, 3, 3, 2), np.float32)
    loss, gradient = loss_and_gradient(logits, labels, LossConfig(name, average=average))
    assert float(loss) == 0 and not gradient.any()


def test_lovasz_of_sure_predictions_is_the_mean_of_1_minus_iou(logits_and_labels) -> None:
    _, labels = logits_and_labels
    valid, guesses = labels != IGNORE, np.roll(labels % 4, 1, axis=2)
    expected = [
        iou_loss(((labels == c) != (guesses == c))[valid], (labels == c)[valid]) for c in range(4)
    ]
    sure = jnp.asarray(1e4 * np.eye(4)[guesses])
    loss = LOSSES["lovasz"](sure, jnp.asarray(labels), LossConfig())
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_losses_are_added_with_their_factors(logits_and_labels) -> None:
    logits, labels = logits_and_labels

    def loss(name: str, added: tuple[str, ...] = ()) -> Losses:
        both = Logits(jnp.asarray(logits), jnp.asarray(logits))
        config = LossConfig(name, added=added, ohem_kept=3)
        return segmentation_loss(both, jnp.asarray(labels), config, align_corners=True)

    found = loss("ohem", ("dice=0.5", "cross_entropy=2"))
    expected = loss("ohem").main + 0.5 * loss("dice").main + 2 * loss("cross_entropy").main
    assert float(found.main) == pytest.approx(float(expected), rel=1e-6)
    assert float(found.aux) == pytest.approx(0.4 * float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "said"), [("tversky=1", "'lovasz', not tversky"), ("dice", "NAME=FACTOR each")]
)
def test_what_is_added_is_a_loss_with_a_factor(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        LossConfig(added=(text,))
