"""The fully convolutional head; it remembers nothing.

Source: Long et al. 2015; `mmseg/models/decode_heads/fcn_head.py`, whose defaults these are.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
from flax import nnx
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
from tmanet_jax.models.layers import ConvNorm
from tmanet_jax.models.shown import Shapes, count, kernel_of


@dataclasses.dataclass(frozen=True)
class FCNHeadConfig(HeadConfig):
    """Shape of a fully convolutional head."""

    mmseg = "FCNHead"
    network = "FCN"

    stages: tuple[int, ...] = stages_field()
    channels: int = channels_field(512, "of the convolutions", name="head_channels")
    num_convs: int = field(2, "convolutions", low=0, high=64)
    kernel_size: Literal[1, 3] = field(3, "rows and columns of a convolution's kernel")
    concat_input: bool = field(
        True, "a further convolution reads the stages beside what became of them"
    )

    def build(
        self, stage_channels: tuple[int, int, int, int], *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> "FCNHead":
        """A module with new weights; raises UserError if the numbers of channels do not fit."""
        return FCNHead(channels_of(stage_channels, self.stages), self, dtype=dtype, rngs=rngs)

    @classmethod
    def shown(
        cls, shapes: Shapes, stage_channels: tuple[int, int, int, int], said: Mapping[str, Any]
    ) -> Self | None:
        """By names that no other head has alone."""
        if not {name.split(".")[0] for name in shapes} <= {"convs", "conv_cat", "conv_seg"}:
            return None
        num_classes, channels = kernel_of(shapes, "conv_seg")[:2]
        num_convs = count(shapes, "convs.{}.conv.weight")
        concat_input = "conv_cat.conv.weight" in shapes
        first = "convs.0.conv" if num_convs else "conv_cat.conv" if concat_input else "conv_seg"
        _, in_channels, kernel_size, _ = kernel_of(shapes, first)
        if not num_convs and concat_input:
            in_channels //= 2
        return cls(
            num_classes=num_classes,
            stages=stages_with(in_channels, stage_channels),
            channels=channels,
            num_convs=num_convs,
            kernel_size=1 if kernel_size == 1 and first != "conv_seg" else 3,
            concat_input=concat_input,
        )


class FCNHead(MemorylessHead):
    """Convolutions, dropout, classifier, on the query frame alone."""

    def __init__(
        self,
        in_channels: int,
        config: FCNHeadConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.config = config
        channels, kernel_size = config.channels, config.kernel_size
        if not config.num_convs and in_channels != channels:
            raise UserError(
                f"A head of no convolution has the channels of its stages, {in_channels}, not "
                f"{channels}."
            )

        def conv(width: int) -> ConvNorm:
            return ConvNorm(width, channels, kernel_size, dtype=dtype, rngs=rngs)

        self.conv = conv(in_channels) if config.num_convs else None
        self.further_convs = nnx.List([conv(channels) for _ in range(config.num_convs - 1)])
        self.of_both = conv(in_channels + channels) if config.concat_input else None
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
        x = features if self.conv is None else self.conv(features, train=train)
        for conv in self.further_convs:
            x = conv(x, train=train)
        if self.of_both is not None:
            x = self.of_both(jnp.concatenate([features, x], axis=-1), train=train)
        return logits_of(self.classifier, x, self.config.dropout, dropout_key)
