"""The temporal memory attention head.

Source: TMANet section 3; `mmseg/models/decode_heads/tma_head.py`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.fields import PUBLISHED, field
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.head import HeadConfig, channels_field, classifier_of, logits_of
from tmanet_jax.models.layers import ConvNorm, MatmulPrecision
from tmanet_jax.models.memory import read_memory_of_rows, read_neighbourhood
from tmanet_jax.models.memory_kernels import Attention
from tmanet_jax.models.shown import Shapes, count, kernel_of


@dataclasses.dataclass(frozen=True)
class TMAHeadConfig(HeadConfig):
    """Shape of the temporal memory attention head."""

    mmseg = "TMAHead"
    network = "TMANet"

    num_memory: int = field(
        2, "T: memory frames before the query; 0: no memory", low=0, high=64, source=PUBLISHED
    )
    key_channels: int = channels_field(64, "channels that are compared")
    value_channels: int = channels_field(256, "channels that are read")
    channels: int = channels_field(
        512, "of the bottleneck before the classifier", name="head_channels"
    )
    tied_init: bool = field(
        False,
        "memory encoders begin as copies of the query's, so that from the first step a position's "
        "key is most like the keys of positions that look the same (the original: no)",
    )
    scale_scores: bool = field(
        False, "multiply the scores by key_channels ** -0.5 (the original's `matmul_norm`)"
    )
    neighbourhood: int | None = field(
        None,
        "rows and columns of features, each way from its own, that a position reads of each memory "
        "frame; None: it reads all, as the original does",
        low=0,
        high=4,
    )

    @property
    def score_scale(self) -> float:
        """What products of query and key are multiplied by."""
        return self.key_channels**-0.5 if self.scale_scores else 1.0

    def build(
        self, stage_channels: tuple[int, int, int, int], *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> "TMAHead":
        """A module with new weights, on stage 4."""
        return TMAHead(stage_channels[3], self, dtype=dtype, rngs=rngs)

    @classmethod
    def shown(
        cls, shapes: Shapes, stage_channels: tuple[int, int, int, int], said: Mapping[str, Any]
    ) -> Self | None:
        """By the branches of the query."""
        if "query_value_conv.0.conv.weight" not in shapes:
            return None
        return cls(
            num_classes=kernel_of(shapes, "conv_seg")[0],
            num_memory=count(shapes, "memory_key_conv.0.{}.conv.weight"),
            key_channels=kernel_of(shapes, "query_key_conv.0.conv")[0],
            value_channels=kernel_of(shapes, "query_value_conv.0.conv")[0],
            channels=kernel_of(shapes, "bottleneck.conv")[0],
        )


class KeyValue(NamedTuple):
    """Encoded frames: what is compared, and what is read."""

    key: jax.Array
    """NxhxwxK"""
    value: jax.Array
    """NxhxwxV"""


class FrameEncoder(nnx.Module):
    """Key and value branches for the frames of one position of the clip: 1x1, then 3x3."""

    def __init__(self, in_channels: int, config: TMAHeadConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        self.key = _branch(in_channels, config.key_channels, dtype, rngs)
        self.value = _branch(in_channels, config.value_channels, dtype, rngs)

    def __call__(self, features_NxhxwxC: jax.Array, *, train: bool) -> KeyValue:
        """Stage-4 features NxhxwxC -> key NxhxwxK (never negative) and value NxhxwxV."""
        return KeyValue(
            _run(self.key, features_NxhxwxC, train), _run(self.value, features_NxhxwxC, train)
        )


def _copied(encoder: FrameEncoder) -> FrameEncoder:
    """Equal, with arrays of its own, since a training step gives its state's buffers away."""
    graphdef, state = nnx.split(encoder)
    return nnx.merge(graphdef, jax.jit(functools.partial(jax.tree.map, jnp.copy))(state))


def _branch(in_channels: int, channels: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.List:
    return nnx.List(
        [
            ConvNorm(in_channels, channels, 1, dtype=dtype, rngs=rngs),
            ConvNorm(channels, channels, 3, dtype=dtype, rngs=rngs),
        ]
    )


def _run(branch: nnx.List, x_NxhxwxC: jax.Array, train: bool) -> jax.Array:
    for conv in branch:
        x_NxhxwxC = conv(x_NxhxwxC, train=train)
    return x_NxhxwxC


class TMAHead(nnx.Module):
    """Encodes query and memory frames, reads the memory, classifies each position.

    Every position of the memory has an encoder of its own, position 0 being the oldest frame.
    """

    precision: MatmulPrecision = "default"
    attention: Attention = "auto"

    def __init__(
        self,
        in_channels: int,
        config: TMAHeadConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.neighbourhood = config.neighbourhood
        self.query_encoder = FrameEncoder(in_channels, config, dtype, rngs)
        self.memory_encoders = nnx.List(
            [
                _copied(self.query_encoder)
                if config.tied_init
                else FrameEncoder(in_channels, config, dtype, rngs)
                for _ in range(config.num_memory)
            ]
        )
        parts = 2 if config.num_memory else 1
        self.bottleneck = ConvNorm(
            parts * config.value_channels, config.channels, 3, dtype=dtype, rngs=rngs
        )
        self.classifier = classifier_of(config.channels, config.num_classes, dtype, rngs)

    def remember(self, features: Stages, position: int, *, train: bool) -> KeyValue:
        """Keys and values of the position's own encoder."""
        encoder = self.memory_encoders[position]
        return encoder(features.stage4, train=train)

    def read(
        self,
        query: Stages,
        memory: Sequence[KeyValue],
        *,
        train: bool,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Logits BxhxwxC, at least float32."""
        encoded = self.query_encoder(query.stage4, train=train)
        return self.classify(self.attend(encoded, memory), train=train, dropout_key=dropout_key)

    def attend(self, query: KeyValue, memory: Sequence[KeyValue]) -> jax.Array:
        """The query's value beside what it reads from the memory: Bxhxwx2V (without memory V)."""
        if not memory:
            return query.value
        scale = self.config.score_scale
        keys_BxTxhxwxK = jnp.stack([frame.key for frame in memory], axis=1)
        values_BxTxhxwxV = jnp.stack([frame.value for frame in memory], axis=1)
        if self.neighbourhood is None:
            read_BxhxwxV = read_memory_of_rows(
                query.key,
                _flatten_positions(keys_BxTxhxwxK),
                _flatten_positions(values_BxTxhxwxV),
                scale=scale,
                attention=self.attention,
                precision=self.precision,
            )
        else:
            read_BxhxwxV = read_neighbourhood(
                query.key, keys_BxTxhxwxK, values_BxTxhxwxV, self.neighbourhood, scale=scale
            )
        return jnp.concatenate([query.value, read_BxhxwxV], axis=-1)

    def classify(
        self, read_Bxhxwx2V: jax.Array, *, train: bool, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Bxhxwx2V -> logits BxhxwxC, at least float32."""
        x = self.bottleneck(read_Bxhxwx2V, train=train)
        return logits_of(self.classifier, x, self.config.dropout, dropout_key)


def _flatten_positions(frames_BxTxhxwxC: jax.Array) -> jax.Array:
    """BxTxhxwxC -> BxMxC with M = T * h * w, T-major."""
    b, t, h, w, c = frames_BxTxhxwxC.shape
    return frames_BxTxhxwxC.reshape(b, t * h * w, c)
