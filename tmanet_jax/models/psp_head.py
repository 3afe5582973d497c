"""The pyramid pooling head; it remembers nothing.

Source: Zhao et al. 2017; `mmseg/models/decode_heads/psp_head.py`, whose defaults these are.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from tmanet_jax.errors import UserError
from tmanet_jax.fields import field
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.head import (
    HeadConfig,
    MemorylessHead,
    channels_field,
    channels_of,
    chosen_features,
    classifier_of,
    logits_of,
    stages_field,
    stages_with,
)
from tmanet_jax.models.layers import ConvNorm, at_least_float32, resize_bilinear
from tmanet_jax.models.shown import Shapes, count, kernel_of


@dataclasses.dataclass(frozen=True)
class PSPHeadConfig(HeadConfig):
    """Shape of a pyramid pooling head."""

    mmseg = "PSPHead"
    network = "PSPNet"

    stages: tuple[int, ...] = stages_field()
    channels: int = channels_field(
        512, "of each pooled branch and of the bottleneck", name="head_channels"
    )
    pool_scales: tuple[int, ...] = field(
        (1, 2, 3, 6), "rows and columns that the features are pooled to", low=1, high=512
    )

    def build(
        self, stage_channels: tuple[int, int, int, int], *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> "PSPHead":
        """A module with new weights."""
        return PSPHead(channels_of(stage_channels, self.stages), self, dtype=dtype, rngs=rngs)

    @classmethod
    def shown(
        cls, shapes: Shapes, stage_channels: tuple[int, int, int, int], said: Mapping[str, Any]
    ) -> Self | None:
        """By the pooled branches, whose scales no tensor shows."""
        if not (num_scales := count(shapes, "psp_modules.{}.1.conv.weight")):
            return None
        pool_scales = said.get("pool_scales", cls.pool_scales)
        if len(pool_scales) != num_scales:
            raise UserError(
                f"a pyramid of {num_scales} scales, and not those of pool_scales {pool_scales}"
            )
        channels, in_channels, *_ = kernel_of(shapes, "psp_modules.0.1.conv")
        return cls(
            num_classes=kernel_of(shapes, "conv_seg")[0],
            stages=stages_with(in_channels, stage_channels),
            channels=channels,
            pool_scales=pool_scales,
        )


class PSPHead(MemorylessHead):
    """Features beside their means over grids of several scales; on the query frame alone."""

    def __init__(
        self, in_channels: int, config: PSPHeadConfig, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.config = config
        channels, scales = config.channels, config.pool_scales
        self.pooled = nnx.List(
            [ConvNorm(in_channels, channels, 1, dtype=dtype, rngs=rngs) for _ in scales]
        )
        self.bottleneck = ConvNorm(
            in_channels + len(scales) * channels, channels, 3, dtype=dtype, rngs=rngs
        )
        self.classifier = classifier_of(channels, config.num_classes, dtype, rngs)

    def read(
        self,
        query: Stages,
        memory: Sequence[tuple[()]] = (),
        *,
        train: bool,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Logits BxhxwxC, at least float32."""
        features = chosen_features(query, self.config.stages, align_corners=self.align_corners)
        size = (features.shape[1], features.shape[2])
        parts = [features]
        for scale, conv in zip(self.config.pool_scales, self.pooled, strict=True):
            x = conv(mean_of_cells(features, scale), train=train)
            parts.append(resize_bilinear(x, size, align_corners=self.align_corners))
        x = self.bottleneck(jnp.concatenate(parts, axis=-1), train=train)
        return logits_of(self.classifier, x, self.config.dropout, dropout_key)


def mean_of_cells(x_NxHxWxC: jax.Array, scale: int) -> jax.Array:
    """Means over the cells of a grid, as torch's `adaptive_avg_pool2d`: NxscalexscalexC.

    Cell i of s reaches from floor(i * H / s) to ceil((i + 1) * H / s).
    """
    dtype = at_least_float32(x_NxHxWxC.dtype)
    mean = x_NxHxWxC.astype(dtype)
    for axis, product in ((1, "sh,nhwc->nswc"), (2, "sw,nhwc->nhsc")):
        cells_SxN = _cells(scale, x_NxHxWxC.shape[axis]).astype(dtype)
        shares_SxN = cells_SxN / cells_SxN.sum(1, keepdims=True)
        mean = jnp.einsum(product, shares_SxN, mean, precision=lax.Precision.HIGHEST)
    return mean.astype(x_NxHxWxC.dtype)


def _cells(scale: int, size: int) -> jax.Array:
    """Where a position is in a cell: scale x size."""
    cell_Sx1, position_1xN = jnp.arange(scale)[:, None], jnp.arange(size)[None]
    first_Sx1, last_Sx1 = cell_Sx1 * size // scale, ((cell_Sx1 + 1) * size - 1) // scale
    return (first_Sx1 <= position_1xN) & (position_1xN <= last_Sx1)
