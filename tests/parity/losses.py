"""The loss of the hard pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.goldens import Case, nchw
from tests.parity.training import TOLERANCES
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.losses import LossConfig, Pixels, hard_pixels, ohem, pixels

GRADIENT_RELATIVE = 1e-4


def check_ohem(case: Case) -> None:
    """Which pixels are hard, the loss, accuracy, and the gradient by the small logits."""
    facts = case.facts
    config = LossConfig(
        "ohem",
        ohem_threshold=facts["thresh"],
        ohem_kept=facts["min_kept"],
        class_weights=tuple(facts["class_weight"]),
    )
    labels_BxHxW = jnp.asarray(case.arrays["labels"][:, 0])
    size = (labels_BxHxW.shape[1], labels_BxHxW.shape[2])

    def found(logits_BxhxwxC: jax.Array) -> Pixels:
        return pixels(resize_bilinear(logits_BxhxwxC, size, align_corners=False), labels_BxHxW)

    def loss_of(logits_BxhxwxC: jax.Array) -> jax.Array:
        return facts["loss_weight"] * ohem(found(logits_BxhxwxC).nll_BxHxW, labels_BxHxW, config)

    logits_BxhxwxC = jnp.asarray(np.moveaxis(case.arrays["logits"], 1, -1))
    loss, gradient = jax.jit(jax.value_and_grad(loss_of))(logits_BxhxwxC)
    nll_BxHxW, is_right_BxHxW = found(logits_BxhxwxC)
    weight = hard_pixels(nll_BxHxW, labels_BxHxW, config)
    np.testing.assert_array_equal(weight, case.arrays["weight"])
    bounds, losses = TOLERANCES["float32"], facts["losses"]
    np.testing.assert_allclose(loss, losses["loss_seg"], rtol=bounds.loss)
    accuracy = 100 * is_right_BxHxW.mean()
    np.testing.assert_allclose(accuracy, losses["acc_seg"], rtol=0, atol=bounds.accuracy)
    expected = case.arrays["grad"]
    error = np.linalg.norm(nchw(gradient) - expected) / np.linalg.norm(expected)
    assert error <= GRADIENT_RELATIVE, f"gradient: relative L2 {error}"
