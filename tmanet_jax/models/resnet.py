"""ResNet of output stride 8: dilated stages, a deep or a plain stem (ResNetV1c and ResNet).

Source: He et al. 2015; `mmseg/models/backbones/resnet.py` for stem, dilation and its contraction.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.errors import UserError
from tmanet_jax.fields import PUBLISHED, Checked, field
from tmanet_jax.models.backbone import BackboneConfig, Stages
from tmanet_jax.models.layers import ConvNorm, max_pool

BLOCKS_OF_DEPTH = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
DEEPEST_BASIC = 34
"""Depths up to this one are built of basic blocks, the others of bottlenecks."""

STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)

Run = TypeVar("Run", bound=Callable[..., jax.Array])


@dataclasses.dataclass(frozen=True)
class ResNetConfig(Checked, BackboneConfig):
    """Shape of a ResNet."""

    depth: int = field(50, "of the ResNet", choices=tuple(BLOCKS_OF_DEPTH), source=PUBLISHED)
    deep_stem: bool = field(
        True, "three 3x3 convolutions (ResNetV1c) instead of one 7x7", source=PUBLISHED
    )
    width: int = field(64, "channels of the first stage", low=2, high=512, source=PUBLISHED)
    blocks: tuple[int, int, int, int] | None = field(
        None, "blocks of each stage; None: those of the depth", low=1, high=64
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 2:
            raise UserError(f"width must be an even number, not {self.width}.")

    @property
    def expansion(self) -> int:
        """Output channels of a block, in multiples of its inner ones."""
        return 1 if self.depth <= DEEPEST_BASIC else 4

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        """Output channels of the four stages."""
        first = self.width * self.expansion
        return (first, 2 * first, 4 * first, 8 * first)

    @property
    def stride(self) -> int:
        """Of stages 2 to 4; stage 1 has 4."""
        return 4 * math.prod(STRIDES)

    def build(self, *, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs) -> "ResNet":
        """A module with new weights."""
        return ResNet(self, dtype=dtype, remat=remat, rngs=rngs)

    def __str__(self) -> str:
        return f"ResNet-{self.depth}, {'deep' if self.deep_stem else 'plain'} stem"


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut (depths 18 and 34)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv1 = ConvNorm(
            in_channels, channels, 3, stride=stride, dilation=dilation, dtype=dtype, rngs=rngs
        )
        self.conv2 = ConvNorm(
            channels, channels, 3, relu=False, scale_init=0.0, dtype=dtype, rngs=rngs
        )
        self.shortcut = _shortcut(in_channels, channels, stride, dtype, rngs)

    def __call__(self, x_NxHxWxC: jax.Array, *, train: bool, slots: int) -> jax.Array:
        """NxHxWxC -> NxH'xW'xC'."""
        y = self.conv1(x_NxHxWxC, train=train, slots=slots)
        y = self.conv2(y, train=train, slots=slots)
        return _add_shortcut(y, x_NxHxWxC, self.shortcut, train=train, slots=slots)


class Bottleneck(nnx.Module):
    """1x1, 3x3 (with the stride and the dilation), 1x1 convolutions and a shortcut."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv1 = ConvNorm(in_channels, channels, 1, dtype=dtype, rngs=rngs)
        self.conv2 = ConvNorm(
            channels, channels, 3, stride=stride, dilation=dilation, dtype=dtype, rngs=rngs
        )
        self.conv3 = ConvNorm(
            channels, 4 * channels, 1, relu=False, scale_init=0.0, dtype=dtype, rngs=rngs
        )
        self.shortcut = _shortcut(in_channels, 4 * channels, stride, dtype, rngs)

    def __call__(self, x_NxHxWxC: jax.Array, *, train: bool, slots: int) -> jax.Array:
        """NxHxWxC -> NxH'xW'x4C'."""
        y = self.conv1(x_NxHxWxC, train=train, slots=slots)
        y = self.conv2(y, train=train, slots=slots)
        y = self.conv3(y, train=train, slots=slots)
        return _add_shortcut(y, x_NxHxWxC, self.shortcut, train=train, slots=slots)


def _shortcut(
    in_channels: int, out_channels: int, stride: int, dtype: DTypeLike, rngs: nnx.Rngs
) -> ConvNorm | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride=stride, relu=False, dtype=dtype, rngs=rngs)


def _add_shortcut(
    y: jax.Array, x: jax.Array, shortcut: ConvNorm | None, *, train: bool, slots: int
) -> jax.Array:
    identity = x if shortcut is None else shortcut(x, train=train, slots=slots)
    return nnx.relu(y + identity)


class ResNet(nnx.Module):
    """Stem and four stages; strides 1, 2, 1, 1 and dilations 1, 1, 2, 4.

    The first block of a dilated stage keeps half its dilation (`contract_dilation`).
    """

    def __init__(
        self,
        config: ResNetConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.remat = remat
        self.stem = _stem(config, dtype, rngs)
        self.stages: nnx.List[nnx.List[BasicBlock | Bottleneck]] = nnx.List()
        in_channels = config.width
        blocks_of_stage = config.blocks or BLOCKS_OF_DEPTH[config.depth]
        block_type = BasicBlock if config.depth <= DEEPEST_BASIC else Bottleneck
        for stage, num_blocks in enumerate(blocks_of_stage):
            channels = config.width * 2**stage
            blocks: nnx.List[BasicBlock | Bottleneck] = nnx.List()
            for index in range(num_blocks):
                blocks.append(
                    block_type(
                        in_channels,
                        channels,
                        stride=STRIDES[stage] if index == 0 else 1,
                        dilation=_dilation(stage, index),
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                in_channels = config.stage_channels[stage]
            self.stages.append(blocks)

    def __call__(self, frames_NxHxWx3: jax.Array, *, train: bool, slots: int = 1) -> Stages:
        """Normalised RGB frames NxHxWx3 -> features of the four stages."""
        computes_again = self.remat and train  # nothing else has a backward pass
        run_stem = _rematerialised(_run_stem) if computes_again else _run_stem
        run_block = _rematerialised(_run_block) if computes_again else _run_block
        x = run_stem(self.stem, frames_NxHxWx3, train, slots)
        outputs = []
        for blocks in self.stages:
            for block in blocks:
                x = run_block(block, x, train, slots)
            outputs.append(x)
        return Stages(*outputs)


def _run_stem(stem: nnx.List, x_NxHxWx3: jax.Array, train: bool, slots: int) -> jax.Array:
    x = x_NxHxWx3
    for conv in stem:
        x = conv(x, train=train, slots=slots)
    return max_pool(x)


def _run_block(
    block: BasicBlock | Bottleneck, x_NxHxWxC: jax.Array, train: bool, slots: int
) -> jax.Array:
    return block(x_NxHxWxC, train=train, slots=slots)


def _rematerialised(run: Run) -> Run:
    return nnx.remat(run, static_argnums=(2, 3))


def _dilation(stage: int, block: int) -> int:
    dilation = DILATIONS[stage]
    return max(dilation // 2, 1) if block == 0 else dilation


def _stem(config: ResNetConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.List:
    width = config.width
    if not config.deep_stem:
        return nnx.List([ConvNorm(3, width, 7, stride=2, dtype=dtype, rngs=rngs)])
    half = width // 2
    return nnx.List(
        [
            ConvNorm(3, half, 3, stride=2, dtype=dtype, rngs=rngs),
            ConvNorm(half, half, 3, dtype=dtype, rngs=rngs),
            ConvNorm(half, width, 3, dtype=dtype, rngs=rngs),
        ]
    )
