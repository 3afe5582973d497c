"""The losses, each chosen by its name in a table, and pixel accuracy.

Source: `mmseg/models/losses/cross_entropy_loss.py`, `accuracy.py`, and `decode_head.losses`; of the
others, beside them.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tmanet_jax.data.classes import IGNORE
from tmanet_jax.errors import UserError
from tmanet_jax.fields import PUBLISHED, Checked, field, named_factors
from tmanet_jax.models.tmanet import Logits
from tmanet_jax.models.upsampling import half_upsampled, map_columns
from tmanet_jax.parallel.sharding import spread_rows


@dataclasses.dataclass(frozen=True)
class LossConfig(Checked):
    """How the two heads' logits become one number."""

    name: str = field(
        "cross_entropy", "of each head", choices=lambda: (*PIXEL_LOSSES, *LOSSES), source=PUBLISHED
    )
    added: tuple[str, ...] = field(
        (), "losses that are added to it, with their factors: ('dice=0.5', 'lovasz=1')"
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
    class_weights: tuple[float, ...] = field(
        (), "factor of each class, in their order; (): by class_weight_power", low=0, high=1e6
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = (*PIXEL_LOSSES, *LOSSES)
        unknown = named_factors(self.added, "added").keys() - {*known}
        if unknown:
            names = ", ".join(map(repr, known))
            raise UserError(f"added must be of {names}, not {', '.join(sorted(unknown))}.")


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

    def of_kind(name: str) -> jax.Array:
        if name in PIXEL_LOSSES:
            return PIXEL_LOSSES[name](found.nll_BxHxW, labels_BxHxW, config)
        return LOSSES[name](upsampled.whole(), labels_BxHxW, config)

    total = of_kind(config.name)
    for name, factor in named_factors(config.added, "added").items():
        total += factor * of_kind(name)
    return total, found.is_right_BxHxW.mean()


def pixels(logits_BxHxWxC: jax.Array, labels_BxHxW: jax.Array) -> Pixels:
    """Compares logits with labels."""
    target_logit_BxHxW = (logits_BxHxWxC * _one_hot(labels_BxHxW, logits_BxHxWxC)).sum(-1)
    nll_BxHxW = jax.nn.logsumexp(logits_BxHxWxC, axis=-1) - target_logit_BxHxW
    return Pixels(
        jnp.where(labels_BxHxW != IGNORE, nll_BxHxW, 0.0),
        logits_BxHxWxC.argmax(-1) == labels_BxHxW.astype(jnp.int32),
    )


def _one_hot(labels_BxHxW: jax.Array, logits_BxHxWxC: jax.Array) -> jax.Array:
    """Of class 0 where nothing is labelled."""
    target_BxHxW = jnp.where(labels_BxHxW != IGNORE, labels_BxHxW, 0).astype(jnp.int32)
    return jax.nn.one_hot(target_BxHxW, logits_BxHxWxC.shape[-1], dtype=logits_BxHxWxC.dtype)


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
    if not config.class_weights:
        return nll_BxHxW
    weights_C = jnp.asarray(config.class_weights, nll_BxHxW.dtype)
    return nll_BxHxW * weights_C[jnp.where(labels_BxHxW != IGNORE, labels_BxHxW, 0)]


def _mean(loss_BxHxW: jax.Array, labels_BxHxW: jax.Array, config: LossConfig) -> jax.Array:
    if config.average == "all":
        return loss_BxHxW.sum() / labels_BxHxW.size
    num_valid = jnp.maximum((labels_BxHxW != IGNORE).sum(), 1)
    return loss_BxHxW.sum() / num_valid.astype(loss_BxHxW.dtype)


def dice(logits_BxHxWxC: jax.Array, labels_BxHxW: jax.Array, config: LossConfig) -> jax.Array:
    """Mean over classes of 1 - (2 sum(p y) + 1) / (sum(p^2) + sum(y) + 1).

    p are probabilities and y is 1 at the class's pixels; sums are over the labelled pixels of the
    batch. Class weights weigh the mean.

    Source: Milletari et al. 2016 (arXiv 1606.04797); smoothed by 1, as mmseg's `DiceLoss`.
    """
    is_valid_BxHxWx1 = (labels_BxHxW != IGNORE)[..., None]
    one_hot_BxHxWxC = jnp.where(is_valid_BxHxWx1, _one_hot(labels_BxHxW, logits_BxHxWxC), 0.0)
    p_BxHxWxC = jnp.where(is_valid_BxHxWx1, jax.nn.softmax(logits_BxHxWxC), 0.0)
    overlap_C = (p_BxHxWxC * one_hot_BxHxWxC).sum((0, 1, 2))
    sizes_C = (p_BxHxWxC**2 + one_hot_BxHxWxC).sum((0, 1, 2))
    return _mean_of_classes(1 - (2 * overlap_C + 1) / (sizes_C + 1), config)


def lovasz(logits_BxHxWxC: jax.Array, labels_BxHxW: jax.Array, config: LossConfig) -> jax.Array:
    """Lovasz-softmax: mean over the classes of a batch of a surrogate of 1 - IoU.

    Of each class, |y - p| of the labelled pixels, in descending order, times what each adds to
    1 - IoU when it is wrong besides those before it. Class weights weigh the mean.

    Source: Berman et al. 2018 (arXiv 1705.08790), classes="present", per_image=False.
    """
    num_classes = logits_BxHxWxC.shape[-1]
    is_valid_P = (labels_BxHxW != IGNORE).ravel()
    p_CxP = jax.nn.softmax(logits_BxHxWxC).reshape(-1, num_classes).T
    one_hot_CxP = _one_hot(labels_BxHxW, logits_BxHxWxC).reshape(-1, num_classes).T
    one_hot_CxP = jnp.where(is_valid_P[None], one_hot_CxP, 0.0)

    def of_class(p_and_one_hot: tuple[jax.Array, jax.Array]) -> jax.Array:
        p_P, one_hot_P = p_and_one_hot
        minus_error_P = jnp.where(is_valid_P, -jnp.abs(one_hot_P - p_P), 1.0)  # ignored ones last
        sorted_P, is_class_P = lax.sort((minus_error_P, one_hot_P), num_keys=1)
        error_P = jnp.where(sorted_P <= 0, -sorted_P, 0.0)
        return (error_P * lax.stop_gradient(_steps_of_iou_loss(is_class_P))).sum()

    loss_C = lax.map(of_class, (p_CxP, one_hot_CxP))  # one at a time: sorting takes memory
    return _mean_of_classes(loss_C, config, is_counted_C=one_hot_CxP.any(1))


def _steps_of_iou_loss(is_class_P: jax.Array) -> jax.Array:
    """By how much 1 - IoU grows with each pixel that is wrong besides those before it.

    A pixel of the class leaves the intersection, another one enters the union. The steps are
    computed from counts: as differences of ratios they would be lost in rounding.
    """
    missed_P = jnp.cumsum(is_class_P.astype(jnp.int32))
    num_pixels = missed_P[-1]
    union_P = num_pixels + jnp.arange(1, missed_P.size + 1) - missed_P
    left_P, union_P, union_before_P = (
        jnp.maximum(count_P, least).astype(is_class_P.dtype)
        for count_P, least in ((num_pixels - missed_P, 0), (union_P, 1), (union_P - 1, 1))
    )
    return jnp.where(is_class_P > 0, 1 / union_P, left_P / union_P / union_before_P)


def _mean_of_classes(
    loss_C: jax.Array, config: LossConfig, is_counted_C: jax.Array | bool = True
) -> jax.Array:
    weights_C = jnp.asarray(config.class_weights or (1.0,) * loss_C.size, loss_C.dtype)
    weights_C = jnp.where(is_counted_C, weights_C, 0.0)
    total = weights_C.sum()
    return (weights_C * loss_C).sum() / jnp.where(total > 0, total, 1.0)


Loss = Callable[[jax.Array, jax.Array, LossConfig], jax.Array]
"""Logits BxHxWxC and labels BxHxW, some of them `IGNORE` -> a scalar."""

PixelLoss = Callable[[jax.Array, jax.Array, LossConfig], jax.Array]
"""`Pixels.nll_BxHxW` and the labels -> a scalar: the logits of all pixels are never there."""

PIXEL_LOSSES: dict[str, PixelLoss] = {"cross_entropy": cross_entropy, "ohem": ohem}
LOSSES: dict[str, Loss] = {"dice": dice, "lovasz": lovasz}
"""Both are what `config.loss.name` chooses from; one of your own is an entry more."""
