"""What a head is: from features, and what is remembered of the frames before, to logits.

A head says what each position of the memory remembers of a frame, and reads a query against that;
training, evaluation of clips and streaming know no more of it. One that remembers nothing has no
memory. `HEADS` lists them; a further one is a file beside these: a dataclass (`HeadConfig`) that
builds a module; and a line in the list.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.fields import PUBLISHED, Checked, field
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.layers import Conv, at_least_float32, channel_dropout

_MOST_CHANNELS = 16_384
"""Of any layer; a mistyped number ends here instead of filling the memory."""


def channels_field(default: int, meaning: str, name: str = "") -> Any:
    """A number of channels, declared."""
    return field(default, meaning, low=1, high=_MOST_CHANNELS, source=PUBLISHED, name=name)


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
    aux_channels: int = channels_field(256, "of the auxiliary head")
    dropout: float = field(
        0.1,
        "share of channels that training drops before each classifier",
        low=0,
        below=1,
        source=PUBLISHED,
    )

    @property
    def num_memory(self) -> int:
        """T: memory frames before the query. A head with a memory declares a field of this name."""
        return 0

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


def classifier_of(in_channels: int, num_classes: int, dtype: DTypeLike, rngs: nnx.Rngs) -> Conv:
    """A head's last layer."""
    return Conv(
        in_channels,
        num_classes,
        1,
        use_bias=True,
        kernel_init=nnx.initializers.normal(0.01),
        dtype=dtype,
        rngs=rngs,
    )


def logits_of(
    classifier: Conv, x_BxhxwxC: jax.Array, dropout: float, dropout_key: jax.Array | None
) -> jax.Array:
    """Dropout, then the last layer: BxhxwxC, at least float32."""
    logits = classifier(channel_dropout(x_BxhxwxC, dropout, dropout_key))
    return logits.astype(at_least_float32(logits.dtype))
