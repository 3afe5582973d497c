"""What a backbone is: frames to the features of four stages. `BACKBONES` lists them.

A further one is a file beside these: a dataclass (`BackboneConfig`) that builds a module; and a
line in the list.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import jax
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.models.shown import Shapes


class Stages(NamedTuple):
    """Output of the four stages, each NxhxwxC; stage 4 at the backbone's stride."""

    stage1: jax.Array
    stage2: jax.Array
    stage3: jax.Array
    stage4: jax.Array


class Backbone(Protocol):
    """The module that a backbone's configuration builds."""

    def __call__(self, frames_NxHxWx3: jax.Array, *, train: bool, slots: int = 1) -> Stages:
        """Features of normalised RGB frames.

        Args:
            frames_NxHxWx3: any height and width from 1; N = B * slots, batch-major.
            train: normalise by the batch's statistics and move the running ones.
            slots: S, frames of a clip, for which a batch norm takes its statistics one by one
                (`layers.BatchNorm`).
        """


@dataclasses.dataclass(frozen=True)
class BackboneConfig(abc.ABC):
    """What chooses a backbone: a frozen dataclass whose fields have defaults, JSON's types alone.

    A field decides the parameters or what is computed of them: checkpoints and files of weights
    carry all of them.
    """

    mmseg: ClassVar[tuple[str, ...]] = ()
    """The framework's `type`s of it; none: its tensors have names of their own."""
    out_indices: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    """By which the framework calls its stages."""
    unshown: ClassVar[Mapping[str, Any]] = {}
    """Fields that no tensor shows, with the framework's defaults."""

    @property
    @abc.abstractmethod
    def stage_channels(self) -> tuple[int, int, int, int]:
        """Channels of the four stages."""

    @property
    @abc.abstractmethod
    def stride(self) -> int:
        """Pixels of a frame to a position of stage 4, which has ceil(H / stride) rows."""

    @abc.abstractmethod
    def build(self, *, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs) -> Backbone:
        """A module with new weights.

        Args:
            dtype: that it computes in; parameters and statistics are float32.
            remat: its backward pass computes the inside of each block again.
            rngs: of the weights.
        """

    @classmethod
    def shown(cls, shapes: Shapes) -> Self | None:
        """The backbone that tensors are of, by the framework's names; None: one of another kind.

        Raises:
            UserError: it is of this kind, and none that can be built.
        """
        return None
