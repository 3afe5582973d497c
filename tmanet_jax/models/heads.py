"""Heads: from features, and what is remembered of the frames before, to logits.

`HEADS` lists them by name. A head says what each position of the memory remembers of a frame, and
reads a query against that; training, evaluation of clips and streaming know no more of it. One that
remembers nothing has no memory, as the auxiliary head of training. A further head is a dataclass
(`HeadConfig`) that builds a module, and a line in the list.

Source: TMANet section 3; `mmseg/models/decode_heads/tma_head.py` and `fcn_head.py`.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.fields import PUBLISHED, Checked, field
from tmanet_jax.models.backbones import Stages
from tmanet_jax.models.layers import Conv, ConvNorm, Precision, at_least_float32, channel_dropout
from tmanet_jax.models.memory import read_memory_of_rows
from tmanet_jax.models.memory_kernels import Attention

classifier_init = nnx.initializers.normal(0.01)

_MOST_CHANNELS = 16_384
"""Of any layer; a mistyped number ends here instead of filling the memory."""


def _channels(default: int, meaning: str, name: str = "") -> Any:
    return field(default, meaning, low=1, high=_MOST_CHANNELS, source=PUBLISHED, name=name)


def _memory(default: int) -> Any:
    meaning = "T: memory frames before the query; 0: no memory"
    return field(default, meaning, low=0, high=64, source=PUBLISHED)


class Head(Protocol):
    """The module that a head's configuration builds. Its last layer is called `classifier`."""

    def remember(self, features: Stages, position: int, *, train: bool) -> Any:
        """What a position of the memory keeps of frames, arrays Nx... (a pytree of them).

        Args:
            features: of N frames.
            position: of the T in the memory, 0 being the oldest frame.
            train: normalise by the batch's statistics and move the running ones.
        """

    def read(
        self,
        query: Stages,
        memory: Sequence[Any],
        *,
        train: bool,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Logits BxhxwxC, at least float32.

        Args:
            query: features of the B frames that are segmented.
            memory: what each of T positions remembers, the oldest frame's first.
            train: as above.
            dropout_key: without one nothing is dropped.
        """


@dataclasses.dataclass(frozen=True)
class HeadConfig(Checked, abc.ABC):
    """What chooses a head; each is a frozen dataclass with defaults, JSON's types alone."""

    num_classes: int = field(
        19, "channels of the logits, as many as the records have classes", low=1, high=255
    )
    num_memory: int = _memory(0)
    aux_channels: int = _channels(256, "of the auxiliary head")
    dropout: float = field(
        0.1,
        "share of channels that training drops before each classifier",
        low=0,
        below=1,
        source=PUBLISHED,
    )

    @abc.abstractmethod
    def build(
        self, stage_channels: tuple[int, int, int, int], *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> Head:
        """A module with new weights.

        Args:
            stage_channels: of the backbone.
            dtype: that it computes in; parameters and statistics are float32.
            rngs: of the weights.
        """


@dataclasses.dataclass(frozen=True)
class TMAHeadConfig(HeadConfig):
    """Shape of the temporal memory attention head."""

    num_memory: int = _memory(2)
    key_channels: int = _channels(64, "channels that are compared")
    value_channels: int = _channels(256, "channels that are read")
    channels: int = _channels(512, "of the bottleneck before the classifier", name="head_channels")
    tied_init: bool = field(
        False,
        "memory encoders begin as copies of the query's, so that from the first step a position's "
        "key is most like the keys of positions that look the same (the original: no)",
    )
    scale_scores: bool = field(
        False, "multiply the scores by key_channels ** -0.5 (the original's `matmul_norm`)"
    )

    def build(
        self, stage_channels: tuple[int, int, int, int], *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> "TMAHead":
        """A module with new weights, on stage 4."""
        return TMAHead(stage_channels[3], self, dtype=dtype, rngs=rngs)


HEADS: dict[str, type[HeadConfig]] = {"tma": TMAHeadConfig}
"""Every head by the name that files of weights and checkpoints carry."""


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
    return nnx.merge(graphdef, jax.tree.map(jnp.copy, state))


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

    precision: Precision = "default"
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
        self.classifier = _classifier(config.channels, config.num_classes, dtype, rngs)

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
        read_BxhxwxV = read_memory_of_rows(
            query.key,
            _flatten_positions([frame.key for frame in memory]),
            _flatten_positions([frame.value for frame in memory]),
            scale=self.config.key_channels**-0.5 if self.config.scale_scores else 1.0,
            attention=self.attention,
            precision=self.precision,
        )
        return jnp.concatenate([query.value, read_BxhxwxV], axis=-1)

    def classify(
        self, read_Bxhxwx2V: jax.Array, *, train: bool, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Bxhxwx2V -> logits BxhxwxC, at least float32."""
        x = self.bottleneck(read_Bxhxwx2V, train=train)
        return _logits(self.classifier, x, self.config.dropout, dropout_key)


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
        self.classifier = _classifier(config.aux_channels, config.num_classes, dtype, rngs)

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
        return _logits(self.classifier, x, self.dropout, dropout_key)


def _classifier(in_channels: int, num_classes: int, dtype: DTypeLike, rngs: nnx.Rngs) -> Conv:
    return Conv(
        in_channels,
        num_classes,
        1,
        use_bias=True,
        kernel_init=classifier_init,
        dtype=dtype,
        rngs=rngs,
    )


def _logits(
    classifier: Conv, x_BxhxwxC: jax.Array, dropout: float, dropout_key: jax.Array | None
) -> jax.Array:
    logits = classifier(channel_dropout(x_BxhxwxC, dropout, dropout_key))
    return logits.astype(at_least_float32(logits.dtype))


def _flatten_positions(frames_TxBxhxwxC: list[jax.Array]) -> jax.Array:
    """T arrays BxhxwxC -> BxMxC with M = T * h * w, T-major."""
    stacked_BxTxhxwxC = jnp.stack(frames_TxBxhxwxC, axis=1)
    b, t, h, w, c = stacked_BxTxhxwxC.shape
    return stacked_BxTxhxwxC.reshape(b, t * h * w, c)
