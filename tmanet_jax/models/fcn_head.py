"""The fully convolutional head.

Source: Long et al. 2015; `mmseg/models/decode_heads/fcn_head.py`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.head import HeadConfig, classifier_of, logits_of
from tmanet_jax.models.layers import ConvNorm


class FCNHead(nnx.Module):
    """The auxiliary head: 3x3, dropout, classifier, on stage 3 of the query frame alone."""

    def __init__(
        self,
        in_channels: int,
        config: HeadConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dropout = config.dropout
        self.conv = ConvNorm(in_channels, config.aux_channels, 3, dtype=dtype, rngs=rngs)
        self.classifier = classifier_of(config.aux_channels, config.num_classes, dtype, rngs)

    def remember(self, features: Stages, position: int, *, train: bool) -> tuple[()]:
        """Nothing."""
        return ()

    def read(
        self,
        query: Stages,
        memory: Sequence[tuple[()]] = (),
        *,
        train: bool,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Logits BxhxwxC, at least float32."""
        x = self.conv(query.stage3, train=train)
        return logits_of(self.classifier, x, self.dropout, dropout_key)
