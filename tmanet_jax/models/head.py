"""What a head is: from features, and what is remembered of the frames before, to logits.

A head says what each position of the memory remembers of a frame, and reads a query against that;
training, evaluation of clips and streaming know no more of it. One that remembers nothing has no
memory. `HEADS` lists them; a further one is a file beside these: a dataclass (`HeadConfig`) that
builds a module; and a line in the list.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.errors import UserError
from tmanet_jax.fields import PUBLISHED, Checked, field
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.initial import normal
from tmanet_jax.models.layers import Conv, at_least_float32, channel_dropout, resize_bilinear
from tmanet_jax.models.shown import Shapes

_MOST_CHANNELS = 16_384
"""Of any layer; a mistyped number ends here instead of filling the memory."""


def channels_field(default: int, meaning: str, name: str = "") -> Any:
    """A number of channels, declared."""
    return field(default, meaning, low=1, high=_MOST_CHANNELS, source=PUBLISHED, name=name)


def stages_field() -> Any:
    """The backbone's stages that a head reads, declared."""
    meaning = "stages of the backbone that are read; several are resized to the first one's size"
    return field((4,), f"{meaning} and concatenated (`resize_concat`)", low=1, high=4)


class Head(Protocol):
    """The module that a head's configuration builds.

    Its last layer is called `classifier`. A class attribute `align_corners` is set to what the
    network has.
    """

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
    dropout: float = field(
        0.1,
        "share of channels that training drops before each classifier",
        low=0,
        below=1,
        source=PUBLISHED,
    )

    mmseg: ClassVar[str] = ""
    """The framework's `type` of it; empty: it has none, and the tensors have names of their own."""
    network: ClassVar[str] = "Network"
    """What a network with this head is called."""

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

    @classmethod
    def shown(
        cls, shapes: Shapes, stage_channels: tuple[int, int, int, int], said: Mapping[str, Any]
    ) -> Self | None:
        """The head that tensors are of, by the framework's names; None: one of another kind.

        Args:
            shapes: of the head's tensors alone.
            stage_channels: of the backbone.
            said: fields that the framework's configuration gives.

        Raises:
            UserError: it is of this kind, and none that can be built.
        """
        return None


class MemorylessHead(nnx.Module):
    """What heads share that see the query frame alone."""

    align_corners: bool = True

    def remember(self, features: Stages, position: int, *, train: bool) -> tuple[()]:
        """Nothing."""
        return ()


def stages_with(channels: int, stage_channels: Sequence[int]) -> tuple[int, ...]:
    """The stages of so many channels, where tensors alone say which: the last one, or all."""
    for stages in ((4,), (3,), (2,), (1,), (1, 2, 3, 4)):
        if channels_of(stage_channels, stages) == channels:
            return stages
    raise UserError(
        f"A head reads {channels} channels; the backbone's stages have {tuple(stage_channels)}."
    )


def channels_of(stage_channels: Sequence[int], stages: Sequence[int]) -> int:
    """Of `chosen_features`."""
    return sum(stage_channels[stage - 1] for stage in stages)


def chosen_features(features: Stages, stages: Sequence[int], *, align_corners: bool) -> jax.Array:
    """Those of the chosen stages (1 to 4), resized to the first one's size: NxhxwxC."""
    first, *others = (features[stage - 1] for stage in stages)
    size = (first.shape[1], first.shape[2])
    resized = [resize_bilinear(x, size, align_corners=align_corners) for x in others]
    return jnp.concatenate([first, *resized], axis=-1) if resized else first


def classifier_of(in_channels: int, num_classes: int, dtype: DTypeLike, rngs: nnx.Rngs) -> Conv:
    """A head's last layer."""
    return Conv(
        in_channels,
        num_classes,
        1,
        use_bias=True,
        kernel_init=normal(0.01),
        dtype=dtype,
        rngs=rngs,
    )


def logits_of(
    classifier: Conv, x_BxhxwxC: jax.Array, dropout: float, dropout_key: jax.Array | None
) -> jax.Array:
    """Dropout, then the last layer: BxhxwxC, at least float32."""
    logits = classifier(channel_dropout(x_BxhxwxC, dropout, dropout_key))
    return logits.astype(at_least_float32(logits.dtype))
