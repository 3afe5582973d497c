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
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.tmanet import Logits
from tmanet_jax.parallel.sharding import spread_rows


@dataclasses.dataclass(frozen=True)
class LossConfig(Checked):
    """How the two heads' logits become one number.

    Attributes:
        class_weights: factor of each class's pixels, or None for 1; made of the records.
    """

    name: str = field(
        "cross_entropy", "of each head", choices=lambda: tuple(LOSSES), source=PUBLISHED
    )
    aux_weight: float = field(
        0.4, "factor of the auxiliary head's loss", low=0, high=1000, source=PUBLISHED
    )
    average: Literal["all", "valid"] = field(
        "all",
        'over "all" pixels, ignored ones included, or those with a "valid" label',
        source=PUBLISHED,
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


def segmentation_loss(
    logits: Logits, labels_BxHxW: jax.Array, config: LossConfig, *, align_corners: bool
) -> Losses:
    """Both heads' logits, up-sampled to the labels' size, against the labels."""
    _, height, width = labels_BxHxW.shape
    size = (height, width)
    labels_BxHxW = spread_rows(labels_BxHxW)
    main_BxHxWxC = spread_rows(resize_bilinear(logits.main, size, align_corners=align_corners))
    aux_BxHxWxC = spread_rows(resize_bilinear(logits.aux, size, align_corners=align_corners))
    loss = LOSSES[config.name]
    main = loss(main_BxHxWxC, labels_BxHxW, config)
    aux = config.aux_weight * loss(aux_BxHxWxC, labels_BxHxW, config)
    return Losses(main + aux, main, aux, pixel_accuracy(main_BxHxWxC, labels_BxHxW))


def cross_entropy(
    logits_BxHxWxC: jax.Array, labels_BxHxW: jax.Array, config: LossConfig
) -> jax.Array:
    """Mean of -log softmax(logits)[label]; pixels labelled `IGNORE` count 0."""
    valid_BxHxW = labels_BxHxW != IGNORE
    target_BxHxW = jnp.where(valid_BxHxW, labels_BxHxW, 0).astype(jnp.int32)
    log_normalizer_BxHxW = jax.nn.logsumexp(logits_BxHxWxC, axis=-1)
    one_hot_BxHxWxC = jax.nn.one_hot(
        target_BxHxW, logits_BxHxWxC.shape[-1], dtype=logits_BxHxWxC.dtype
    )
    target_logit_BxHxW = (logits_BxHxWxC * one_hot_BxHxWxC).sum(-1)
    loss_BxHxW = jnp.where(valid_BxHxW, log_normalizer_BxHxW - target_logit_BxHxW, 0.0)
    if config.class_weights is not None:
        weights_C = jnp.asarray(config.class_weights, loss_BxHxW.dtype)
        loss_BxHxW = loss_BxHxW * (one_hot_BxHxWxC @ weights_C)
    if config.average == "all":
        return loss_BxHxW.sum() / labels_BxHxW.size
    return loss_BxHxW.sum() / jnp.maximum(valid_BxHxW.sum(), 1).astype(loss_BxHxW.dtype)


Loss = Callable[[jax.Array, jax.Array, LossConfig], jax.Array]
"""Logits BxHxWxC and labels BxHxW, some of them `IGNORE` -> a scalar."""

LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy}
"""What `config.loss.name` chooses from; one of your own is an entry more."""


def pixel_accuracy(logits_BxHxWxC: jax.Array, labels_BxHxW: jax.Array) -> jax.Array:
    """Share of all pixels whose label is the arg-max; ignored pixels count as wrong."""
    return (logits_BxHxWxC.argmax(-1) == labels_BxHxW.astype(jnp.int32)).mean()
