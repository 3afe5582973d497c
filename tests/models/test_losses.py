"""The losses against their definitions in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.models import upsampling
from tmanet_jax.models.losses import LossConfig, Losses, cross_entropy, pixels, segmentation_loss
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


@pytest.mark.parametrize("average", ["all", "valid"])
def test_nothing_labelled_is_no_loss(average) -> None:
    labels = np.full((1, 3, 3), IGNORE, np.uint8)
    assert loss_of(np.ones((1, 3, 3, 2), np.float32), labels, LossConfig(average=average)) == 0


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
