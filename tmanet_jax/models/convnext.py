"""ConvNeXt: patches of 4x4 pixels, and four stages of depthwise 7x7 convolutions and products.

Source: Liu et al. 2022 (arXiv 2201.03545); torchvision's `models/convnext.py`. A stride below 32 is
reached as by timm's `output_stride`, by dilation in place of strides, so that weights of any stride
serve. The taps lie where the strided network has them: its features are some of the dilated one's.

Stochastic depth is left out (rate 0): a backbone is handed no random keys. Like torchvision's, and
unlike those of the paper's segmentation, stages end without a norm of their own: the heads begin
with one.
"""

import dataclasses
from typing import Any, Literal, Self

import jax
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from tmanet_jax.fields import Checked, field
from tmanet_jax.models.backbone import BackboneConfig, Stages
from tmanet_jax.models.initial import full, normal
from tmanet_jax.models.layers import Conv, Dense
from tmanet_jax.models.shown import Shapes, count, kernel_of

LAYER_SCALE = 1e-6
"""With which the sums of a block begin."""

_initial = normal(0.02)


@dataclasses.dataclass(frozen=True)
class ConvNeXtConfig(Checked, BackboneConfig):
    """Shape of a ConvNeXt."""

    width: int = field(
        96, "channels of the first stage: 96 in ConvNeXt-T and S, 128 in B", low=1, high=512
    )
    blocks: tuple[int, int, int, int] = field(
        (3, 3, 9, 3), "of each stage: (3, 3, 9, 3) in T, (3, 3, 27, 3) in S and B", low=1, high=64
    )
    output_stride: Literal[8, 16, 32] = field(32, "of stage 4; below 32 by dilation")

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        """Output channels of the four stages."""
        return (self.width, 2 * self.width, 4 * self.width, 8 * self.width)

    @property
    def stride(self) -> int:
        """Of stage 4."""
        return self.output_stride

    def dilation(self, stage: int) -> int:
        """Of the depthwise convolutions of a stage, from 0."""
        return max(1, 4 * 2**stage // self.output_stride)

    def build(self, *, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs) -> "ConvNeXt":
        """A module with new weights."""
        return ConvNeXt(self, dtype=dtype, remat=remat, rngs=rngs)

    @classmethod
    def shown(cls, shapes: Shapes) -> Self | None:
        """By torchvision's names."""
        if "features.1.0.layer_scale" not in shapes:
            return None
        first, second, third, fourth = (
            count(shapes, f"features.{number}.{{}}.layer_scale") for number in (1, 3, 5, 7)
        )
        return cls(kernel_of(shapes, "features.0.0")[0], (first, second, third, fourth))

    def __str__(self) -> str:
        return f"ConvNeXt of width {self.width} and {sum(self.blocks)} blocks"


class Block(nnx.Module):
    """Depthwise 7x7, layer norm, four times the channels and back; added at a learnt scale."""

    def __init__(self, channels: int, dilation: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.depthwise = _conv(
            channels, channels, 7, dilation=dilation, groups=channels, dtype=dtype, rngs=rngs
        )
        self.norm = _layer_norm(channels, dtype, rngs)
        self.wide = Dense(channels, 4 * channels, kernel_init=_initial, dtype=dtype, rngs=rngs)
        self.narrow = Dense(4 * channels, channels, kernel_init=_initial, dtype=dtype, rngs=rngs)
        self.layer_scale = nnx.Param(full(channels, LAYER_SCALE))

    def __call__(self, x_NxHxWxC: jax.Array) -> jax.Array:
        """NxHxWxC -> NxHxWxC."""
        y = self.narrow(_gelu(self.wide(self.norm(self.depthwise(x_NxHxWxC)))))
        return x_NxHxWxC + y * self.layer_scale[...].astype(y.dtype)[None, None, None]


class ConvNeXt(nnx.Module):
    """Patches, and four stages; before all but the first a convolution that makes them smaller."""

    def __init__(self, config: ConvNeXtConfig, *, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs):
        self.remat = remat
        widths = config.stage_channels
        dilations = [config.dilation(stage) for stage in range(4)]
        patches = _conv(3, widths[0], 4, stride=4, dtype=dtype, rngs=rngs)
        self.stem = nnx.List([patches, _layer_norm(widths[0], dtype, rngs)])
        self.downs: nnx.List[nnx.List] = nnx.List()
        for stage in range(3):
            before, after = dilations[stage : stage + 2]
            down = _conv(
                widths[stage],
                widths[stage + 1],
                2,
                stride=2 * before // after,
                dilation=before,
                dtype=dtype,
                rngs=rngs,
            )
            self.downs.append(nnx.List([_layer_norm(widths[stage], dtype, rngs), down]))
        self.stages: nnx.List[nnx.List[Block]] = nnx.List()
        for channels, dilation, num_blocks in zip(widths, dilations, config.blocks, strict=True):
            blocks = [Block(channels, dilation, dtype=dtype, rngs=rngs) for _ in range(num_blocks)]
            self.stages.append(nnx.List(blocks))

    def __call__(self, frames_NxHxWx3: jax.Array, *, train: bool, slots: int = 1) -> Stages:
        """Normalised RGB frames NxHxWx3 -> features of the four stages."""
        run_block = nnx.remat(Block.__call__) if self.remat and train else Block.__call__
        x, outputs = frames_NxHxWx3, []
        for smaller, blocks in zip((self.stem, *self.downs), self.stages, strict=True):
            for layer in smaller:
                x = layer(x)
            for block in blocks:
                x = run_block(block, x)
            outputs.append(x)
        return Stages(*outputs)


def _conv(in_channels: int, out_channels: int, kernel_size: int, **how: Any) -> Conv:
    return Conv(in_channels, out_channels, kernel_size, use_bias=True, kernel_init=_initial, **how)


def _layer_norm(channels: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(channels, epsilon=1e-6, use_fast_variance=False, dtype=dtype, rngs=rngs)


def _gelu(x: jax.Array) -> jax.Array:
    """With the error function, written as engines fuse it."""
    return 0.5 * x * (1 + lax.erf(x * 0.5**0.5))
