"""MobileNetV2, of output stride 8 by dilation; its stages are its layers 2, 3, 5 and 7.

Source: Sandler et al. 2018; `mmseg/models/backbones/mobilenet_v2.py`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.fields import Checked, field
from tmanet_jax.models.backbone import BackboneConfig, Stages
from tmanet_jax.models.layers import ConvNorm
from tmanet_jax.models.shown import Shapes, kernel_of

LAYERS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
"""Expansion, channels and blocks of each layer, of width 1."""
LAYERS_OF_STAGES = (1, 2, 4, 6)
FIRST_CHANNELS = 32

SevenInts = tuple[int, int, int, int, int, int, int]


@dataclasses.dataclass(frozen=True)
class MobileNetV2Config(Checked, BackboneConfig):
    """Shape of a MobileNetV2."""

    mmseg: ClassVar[tuple[str, ...]] = ("MobileNetV2",)
    out_indices: ClassVar[tuple[int, ...]] = LAYERS_OF_STAGES
    unshown: ClassVar[Mapping[str, Any]] = {"strides": (1, 2, 2, 2, 1, 2, 1), "dilations": (1,) * 7}

    widen_factor: float = field(1.0, "of the numbers of channels", low=0.05, high=16)
    strides: SevenInts = field((1, 2, 2, 1, 1, 1, 1), "of each layer's first block", low=1, high=2)
    dilations: SevenInts = field(
        (1, 1, 1, 2, 2, 4, 4), "of each layer's first block", low=1, high=64
    )

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        """Output channels of the four stages."""
        first, second, third, fourth = (self.channels(LAYERS[i][1]) for i in LAYERS_OF_STAGES)
        return (first, second, third, fourth)

    @property
    def stride(self) -> int:
        """Of stage 4."""
        return 2 * math.prod(self.strides)

    def channels(self, of_width_1: int) -> int:
        """A multiple of 8 near the number times the factor, not below nine tenths of it."""
        wanted = of_width_1 * self.widen_factor
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wanted else rounded + 8

    def build(self, *, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs) -> "MobileNetV2":
        """A module with new weights; its activations are small, none is computed again."""
        return MobileNetV2(self, dtype=dtype, rngs=rngs)

    @classmethod
    def shown(cls, shapes: Shapes) -> Self | None:
        """By the names of its blocks; the factor by the last layer's channels."""
        if "layer7.0.conv.2.conv.weight" not in shapes:
            return None
        return cls(kernel_of(shapes, "layer7.0.conv.2.conv")[0] / LAYERS[-1][1])

    def __str__(self) -> str:
        return f"MobileNetV2 of width {self.widen_factor:g}"


class InvertedResidual(nnx.Module):
    """1x1 to more channels, depthwise 3x3 (with the stride and the dilation), 1x1 to few."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        expansion: int,
        stride: int,
        dilation: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        inner = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == channels

        def conv(*shape: int, **how: int) -> ConvNorm:
            return ConvNorm(*shape, **how, relu=False, dtype=dtype, rngs=rngs)

        self.convs = nnx.List([conv(in_channels, inner, 1)] if expansion > 1 else [])
        self.convs.append(conv(inner, inner, 3, stride=stride, dilation=dilation, groups=inner))
        self.convs.append(conv(inner, channels, 1))

    def __call__(self, x_NxHxWxC: jax.Array, *, train: bool, slots: int) -> jax.Array:
        """NxHxWxC -> NxH'xW'xC'."""
        *convs, last = self.convs
        y = x_NxHxWxC
        for conv in convs:
            y = jax.nn.relu6(conv(y, train=train, slots=slots))
        y = last(y, train=train, slots=slots)
        return x_NxHxWxC + y if self.has_shortcut else y


class MobileNetV2(nnx.Module):
    """A convolution and seven layers of inverted residuals."""

    def __init__(self, config: MobileNetV2Config, *, dtype: DTypeLike, rngs: nnx.Rngs):
        in_channels = config.channels(FIRST_CHANNELS)
        self.first = ConvNorm(3, in_channels, 3, stride=2, relu=False, dtype=dtype, rngs=rngs)
        self.layers: nnx.List[nnx.List[InvertedResidual]] = nnx.List()
        for index, (expansion, of_width_1, num_blocks) in enumerate(LAYERS):
            channels = config.channels(of_width_1)
            blocks: nnx.List[InvertedResidual] = nnx.List()
            for block in range(num_blocks):
                blocks.append(
                    InvertedResidual(
                        in_channels,
                        channels,
                        expansion=expansion,
                        stride=config.strides[index] if block == 0 else 1,
                        dilation=config.dilations[index] if block == 0 else 1,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                in_channels = channels
            self.layers.append(blocks)

    def __call__(self, frames_NxHxWx3: jax.Array, *, train: bool, slots: int = 1) -> Stages:
        """Normalised RGB frames NxHxWx3 -> features of the four stages."""
        x = jax.nn.relu6(self.first(frames_NxHxWx3, train=train, slots=slots))
        outputs = []
        for blocks in self.layers:
            for block in blocks:
                x = block(x, train=train, slots=slots)
            outputs.append(x)
        return Stages(*(outputs[index] for index in LAYERS_OF_STAGES))
