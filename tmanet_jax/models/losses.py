"""The losses, and pixel accuracy, as the original computes them.

Source: `mmseg/models/losses/cross_entropy_loss.py`, `accuracy.py`, and `decode_head.losses`.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.fields import PUBLISHED, Checked, field
from tmanet_jax.models.tmanet import Logits
from tmanet_jax.models.upsampling import half_upsampled, map_columns
from tmanet_jax.parallel.sharding import spread_rows


@dataclasses.dataclass(frozen=True)
class LossConfig(Checked):
    """How the two heads' logits become one number.

    Attributes:
        class_weights: factor of each class's pixels, or None for 1; made of the records.
    """

    name: str = field(
        "cross_entropy", "of each head", choices=lambda: (*PIXEL_LOSSES, *LOSSES), source=PUBLISHED
    )
    aux_weight: float = field(
        0.4, "factor of the auxiliary head's loss", low=0, high=1000, source=PUBLISHED
    )
    average: Literal["all", "valid"] = field(
        "all",
        'over "all" pixels, ignored ones included, or those with a "valid" label',
        source=PUBLISHED,
    )
    ohem_threshold: float | None = field(
        0.7,
        '"ohem": pixels whose label has less probability are hard; None: by the loss',
        above=0,
        high=1,
    )
    ohem_kept: int = field(
        100_000, '"ohem": at least so many of a clip\'s pixels, the hardest of the batch', low=1
    )
    class_weight_power: float = field(
        0.0, "class weights are frequency ** -power; 0: none", low=0, high=4
    )
    class_weights: tuple[float, ...] | None = None


class Losses(NamedTuple):
    """Scalars of one batch."""

    total: jax.Array
    """main + aux"""
    main: jax.Array
    aux: jax.Array
    """Already times `aux_weight`."""
    accuracy: jax.Array
    """Share of all pixels, ignored ones included, that the main head gets right."""


class Pixels(NamedTuple):
    """What the logits say of each pixel's label, BxHxW.

    Attributes:
        nll_BxHxW: -log softmax(logits)[label]; 0 where nothing is labelled.
        is_right_BxHxW: whether the label is the arg-max; ignored pixels count as wrong.
    """

    nll_BxHxW: jax.Array
    is_right_BxHxW: jax.Array


def segmentation_loss(
    logits: Logits, labels_BxHxW: jax.Array, config: LossConfig, *, align_corners: bool
) -> Losses:
    """Both heads' logits, up-sampled to the labels' size, against the labels."""
    labels_BxHxW = spread_rows(labels_BxHxW)
    main, accuracy = _head_loss(logits.main, labels_BxHxW, config, align_corners)
    aux, _ = _head_loss(logits.aux, labels_BxHxW, config, align_corners)
    aux = config.aux_weight * aux
    return Losses(main + aux, main, aux, accuracy)


def _head_loss(
    logits_BxhxwxC: jax.Array, labels_BxHxW: jax.Array, config: LossConfig, align_corners: bool
) -> tuple[jax.Array, jax.Array]:
    """The loss, and the share of all pixels that are right."""
    _, height, width = labels_BxHxW.shape
    upsampled = half_upsampled(logits_BxhxwxC, (height, width), align_corners=align_corners)
    found = map_columns(
        lambda logits, labels: pixels(logits[0], labels), [upsampled], labels_BxHxW, is_trained=True
    )
    accuracy = found.is_right_BxHxW.mean()
    if config.name in PIXEL_LOSSES:
        return PIXEL_LOSSES[config.name](found.nll_BxHxW, labels_BxHxW, config), accuracy
    return LOSSES[config.name](upsampled.whole(), labels_BxHxW, config), accuracy


def pixels(logits_BxHxWxC: jax.Array, labels_BxHxW: jax.Array) -> Pixels:
    """Compares logits with labels."""
    is_valid_BxHxW = labels_BxHxW != IGNORE
    target_BxHxW = jnp.where(is_valid_BxHxW, labels_BxHxW, 0).astype(jnp.int32)
    num_classes, dtype = logits_BxHxWxC.shape[-1], logits_BxHxWxC.dtype
    one_hot_BxHxWxC = jax.nn.one_hot(target_BxHxW, num_classes, dtype=dtype)
    target_logit_BxHxW = (logits_BxHxWxC * one_hot_BxHxWxC).sum(-1)
    nll_BxHxW = jax.nn.logsumexp(logits_BxHxWxC, axis=-1) - target_logit_BxHxW
    return Pixels(
        jnp.where(is_valid_BxHxW, nll_BxHxW, 0.0),
        logits_BxHxWxC.argmax(-1) == labels_BxHxW.astype(jnp.int32),
    )


def cross_entropy(nll_BxHxW: jax.Array, labels_BxHxW: jax.Array, config: LossConfig) -> jax.Array:
    """Mean of -log softmax(logits)[label]; pixels labelled `IGNORE` count 0."""
    return _mean(_weighted(nll_BxHxW, labels_BxHxW, config), labels_BxHxW, config)


def ohem(nll_BxHxW: jax.Array, labels_BxHxW: jax.Array, config: LossConfig) -> jax.Array:
    """Cross entropy of the hard pixels; the others count 0 in its mean."""
    loss_BxHxW = _weighted(nll_BxHxW, labels_BxHxW, config)
    is_hard_BxHxW = hard_pixels(nll_BxHxW, labels_BxHxW, config)
    return _mean(jnp.where(is_hard_BxHxW, loss_BxHxW, 0.0), labels_BxHxW, config)


def hard_pixels(nll_BxHxW: jax.Array, labels_BxHxW: jax.Array, config: LossConfig) -> jax.Array:
    """Which labelled pixels of a batch are hard, BxHxW.

    With a threshold those whose label has less probability than it, or than the
    `ohem_kept` * B-th smallest probability where that is greater; without, the `ohem_kept` * B
    of the greatest losses.

    Source: Shrivastava et al. 2016; `mmseg/core/seg/sampler/ohem_pixel_sampler.py`.
    """
    is_valid_P = (labels_BxHxW != IGNORE).ravel()
    num_kept = min(config.ohem_kept * labels_BxHxW.shape[0], labels_BxHxW.size)
    if config.ohem_threshold is None:
        loss_P = _weighted(nll_BxHxW, labels_BxHxW, config).ravel()
        order_P = jnp.argsort(jnp.where(is_valid_P, loss_P, -jnp.inf), descending=True)
        is_kept_P = jnp.zeros(labels_BxHxW.size, bool).at[order_P[:num_kept]].set(True)
    else:
        probability_P = jnp.exp(-nll_BxHxW).ravel()
        sorted_P = jnp.sort(jnp.where(is_valid_P, probability_P, jnp.inf))
        of_kept = sorted_P[jnp.clip(is_valid_P.sum() - 1, 0, num_kept)]
        is_kept_P = probability_P < jnp.maximum(of_kept, config.ohem_threshold)
    return (is_kept_P & is_valid_P).reshape(labels_BxHxW.shape)


def _weighted(nll_BxHxW: jax.Array, labels_BxHxW: jax.Array, config: LossConfig) -> jax.Array:
    """With the classes' weights."""
    if config.class_weights is None:
        return nll_BxHxW
    weights_C = jnp.asarray(config.class_weights, nll_BxHxW.dtype)
    return nll_BxHxW * weights_C[jnp.where(labels_BxHxW != IGNORE, labels_BxHxW, 0)]


def _mean(loss_BxHxW: jax.Array, labels_BxHxW: jax.Array, config: LossConfig) -> jax.Array:
    if config.average == "all":
        return loss_BxHxW.sum() / labels_BxHxW.size
    num_valid = jnp.maximum((labels_BxHxW != IGNORE).sum(), 1)
    return loss_BxHxW.sum() / num_valid.astype(loss_BxHxW.dtype)


Loss = Callable[[jax.Array, jax.Array, LossConfig], jax.Array]
"""Logits BxHxWxC and labels BxHxW, some of them `IGNORE` -> a scalar."""

PixelLoss = Callable[[jax.Array, jax.Array, LossConfig], jax.Array]
"""`Pixels.nll_BxHxW` and the labels -> a scalar: the logits of all pixels are never there."""

PIXEL_LOSSES: dict[str, PixelLoss] = {"cross_entropy": cross_entropy, "ohem": ohem}
LOSSES: dict[str, Loss] = {}
"""Both are what `config.loss.name` chooses from; one of your own is an entry more."""
