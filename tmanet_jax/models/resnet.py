"""ResNet: a deep or a plain stem, and four stages, dilated in place of the last strides.

Source: He et al. 2015; `mmseg/models/backbones/resnet.py` for ResNetV1c and V1d, dilation and its
contraction, multi-grid and style.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tmanet_jax.errors import UserError
from tmanet_jax.fields import PUBLISHED, Checked, field
from tmanet_jax.models.backbone import BackboneConfig, Stages
from tmanet_jax.models.layers import ConvNorm, max_pool
from tmanet_jax.models.shown import Shapes, count, kernel_of

BLOCKS_OF_DEPTH = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
DEEPEST_BASIC = 34
"""Depths up to this one are built of basic blocks, the others of bottlenecks."""

FourInts = tuple[int, int, int, int]
Run = TypeVar("Run", bound=Callable[..., jax.Array])


@dataclasses.dataclass(frozen=True)
class ResNetConfig(Checked, BackboneConfig):
    """Shape of a ResNet."""

    mmseg: ClassVar[tuple[str, ...]] = ("ResNet", "ResNetV1c", "ResNetV1d")
    unshown: ClassVar[Mapping[str, Any]] = {
        "strides": (1, 2, 2, 2),
        "dilations": (1, 1, 1, 1),
        "contract_dilation": False,
        "multi_grid": None,
        "style": "pytorch",
    }

    depth: int = field(50, "of the ResNet", choices=tuple(BLOCKS_OF_DEPTH), source=PUBLISHED)
    deep_stem: bool = field(
        True, "three 3x3 convolutions (ResNetV1c) instead of one 7x7", source=PUBLISHED
    )
    width: int = field(64, "channels of the first stage", low=2, high=512, source=PUBLISHED)
    blocks: FourInts | None = field(
        None, "blocks of each stage; None: those of the depth", low=1, high=64
    )
    stem_channels: int | None = field(
        None, "channels of the stem; None: as many as the first stage", low=2, high=512
    )
    strides: FourInts = field(
        (1, 2, 1, 1), "of each stage's first block", low=1, high=2, source=PUBLISHED
    )
    dilations: FourInts = field(
        (1, 1, 2, 4), "of each stage's 3x3 convolutions", low=1, high=64, source=PUBLISHED
    )
    contract_dilation: bool = field(
        True, "the first block of a dilated stage has half its dilation", source=PUBLISHED
    )
    multi_grid: tuple[int, ...] | None = field(
        None, "dilations of the last stage's blocks, one each, in place of its own", low=1, high=64
    )
    style: Literal["pytorch", "caffe"] = field(
        "pytorch",
        'a bottleneck\'s stride is that of its 3x3 ("pytorch") or of its first 1x1 ("caffe")',
        source=PUBLISHED,
    )
    avg_down: bool = field(False, "shortcuts pool before a 1x1 of stride 1 (ResNetV1d)")
    frozen_stages: int = field(
        -1,
        "training leaves the stem and so many stages as they are; -1: not even the stem",
        low=-1,
        high=4,
    )
    norm_eval: bool = field(False, "training normalises by the running statistics, and keeps them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 2:
            raise UserError(f"width must be an even number, not {self.width}.")
        if self.num_stem_channels % 2:
            raise UserError(f"stem_channels must be an even number, not {self.stem_channels}.")
        if self.multi_grid is not None and len(self.multi_grid) != self.blocks_of_stages[3]:
            raise UserError(
                f"multi_grid must be a dilation for each of the last stage's "
                f"{self.blocks_of_stages[3]} blocks, not {self.multi_grid}."
            )

    @property
    def num_stem_channels(self) -> int:
        """Channels of the stem."""
        return self.width if self.stem_channels is None else self.stem_channels

    @property
    def blocks_of_stages(self) -> FourInts:
        """Blocks of each stage."""
        return self.blocks or BLOCKS_OF_DEPTH[self.depth]

    @property
    def groups(self) -> int:
        """Of each 3x3 convolution."""
        return 1

    def inner_channels(self, stage: int) -> int:
        """Of the 3x3 convolutions of a stage, from 0."""
        return self.width * 2**stage

    def dilation(self, stage: int, block: int) -> int:
        """Of the 3x3 convolution of a block; stages and blocks from 0."""
        if stage == 3 and self.multi_grid is not None:
            return self.multi_grid[block]
        dilation = self.dilations[stage]
        is_contracted = block == 0 and self.contract_dilation
        return max(dilation // 2, 1) if is_contracted else dilation

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
        """Of stage 4."""
        return 4 * math.prod(self.strides)

    def build(self, *, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs) -> "ResNet":
        """A module with new weights."""
        return ResNet(self, dtype=dtype, remat=remat, rngs=rngs)

    @classmethod
    def shown(cls, shapes: Shapes) -> Self | None:
        """By the blocks of four stages."""
        if not {"conv1.weight", "stem.6.weight"} & shapes.keys():
            return None
        fields = shown_fields(shapes)
        channels, of_group, *_ = kernel_of(shapes, "layer1.0.conv2")
        return cls(**fields) if channels == of_group else None

    def __str__(self) -> str:
        return f"ResNet-{self.depth}, {'deep' if self.deep_stem else 'plain'} stem"


def shown_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of a ResNet that tensors of the framework's names show.

    Raises:
        UserError: it has not four stages.
    """
    deep_stem = "conv1.weight" not in shapes
    stem_channels = kernel_of(shapes, "stem.6" if deep_stem else "conv1")[0]
    is_basic = "layer1.0.conv3.weight" not in shapes
    first, second, third, fourth = (
        count(shapes, f"layer{stage}.{{}}.conv1.weight") for stage in (1, 2, 3, 4)
    )
    blocks = (first, second, third, fourth)
    if not all(blocks):
        raise UserError(f"This is no ResNet of four stages: blocks {blocks}.")
    width = kernel_of(shapes, "layer1.0.conv2" if is_basic else "layer1.0.conv3")[0]
    width //= 1 if is_basic else 4
    of_depth = {
        depth: of_stages
        for depth, of_stages in BLOCKS_OF_DEPTH.items()
        if of_stages == blocks and is_basic == (depth <= DEEPEST_BASIC)
    }
    return {
        "depth": next(iter(of_depth), DEEPEST_BASIC if is_basic else 50),
        "deep_stem": deep_stem,
        "width": width,
        "blocks": None if of_depth else blocks,
        "stem_channels": None if stem_channels == width else stem_channels,
        "avg_down": "layer2.0.downsample.2.weight" in shapes,
    }


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut (depths 18 and 34)."""

    def __init__(
        self,
        in_channels: int,
        config: ResNetConfig,
        stage: int,
        block: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        channels, dilation = config.inner_channels(stage), config.dilation(stage, block)
        stride = config.strides[stage] if block == 0 else 1
        self.conv1 = ConvNorm(
            in_channels, channels, 3, stride=stride, dilation=dilation, dtype=dtype, rngs=rngs
        )
        self.conv2 = ConvNorm(
            channels, channels, 3, relu=False, scale_init=0.0, dtype=dtype, rngs=rngs
        )
        self.shortcut = _shortcut(in_channels, channels, stride, config, dtype, rngs)

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
        config: ResNetConfig,
        stage: int,
        block: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        inner, out_channels = config.inner_channels(stage), config.stage_channels[stage]
        stride = config.strides[stage] if block == 0 else 1
        first, second = (stride, 1) if config.style == "caffe" else (1, stride)
        self.conv1 = ConvNorm(in_channels, inner, 1, stride=first, dtype=dtype, rngs=rngs)
        self.conv2 = ConvNorm(
            inner,
            inner,
            3,
            stride=second,
            dilation=config.dilation(stage, block),
            groups=config.groups,
            dtype=dtype,
            rngs=rngs,
        )
        self.conv3 = ConvNorm(
            inner, out_channels, 1, relu=False, scale_init=0.0, dtype=dtype, rngs=rngs
        )
        self.shortcut = _shortcut(in_channels, out_channels, stride, config, dtype, rngs)

    def __call__(self, x_NxHxWxC: jax.Array, *, train: bool, slots: int) -> jax.Array:
        """NxHxWxC -> NxH'xW'x4C'."""
        y = self.conv1(x_NxHxWxC, train=train, slots=slots)
        y = self.conv2(y, train=train, slots=slots)
        y = self.conv3(y, train=train, slots=slots)
        return _add_shortcut(y, x_NxHxWxC, self.shortcut, train=train, slots=slots)


class PooledShortcut(nnx.Module):
    """Means of what a stride leaves out, then 1x1 (ResNetV1d)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.stride = stride
        self.of_mean = ConvNorm(in_channels, out_channels, 1, relu=False, dtype=dtype, rngs=rngs)

    def __call__(self, x_NxHxWxC: jax.Array, *, train: bool, slots: int) -> jax.Array:
        """NxHxWxC -> NxceilH/stridexceilW/stridexC'."""
        x, window = x_NxHxWxC, (self.stride, self.stride)
        if self.stride > 1:
            x = nnx.avg_pool(x, window, window, padding="SAME", count_include_pad=False)
        return self.of_mean(x, train=train, slots=slots)


Shortcut = ConvNorm | PooledShortcut


def _shortcut(
    in_channels: int,
    out_channels: int,
    stride: int,
    config: ResNetConfig,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Shortcut | None:
    if stride == 1 and in_channels == out_channels:
        return None
    if config.avg_down:
        return PooledShortcut(in_channels, out_channels, stride, dtype, rngs)
    return ConvNorm(in_channels, out_channels, 1, stride=stride, relu=False, dtype=dtype, rngs=rngs)


def _add_shortcut(
    y: jax.Array, x: jax.Array, shortcut: Shortcut | None, *, train: bool, slots: int
) -> jax.Array:
    identity = x if shortcut is None else shortcut(x, train=train, slots=slots)
    return nnx.relu(y + identity)


class ResNet(nnx.Module):
    """Stem and four stages."""

    def __init__(
        self,
        config: ResNetConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.remat = remat
        self.norm_eval = config.norm_eval
        self.num_frozen = config.frozen_stages + 1
        self.stem = _stem(config, dtype, rngs)
        self.stages: nnx.List[nnx.List[BasicBlock | Bottleneck]] = nnx.List()
        in_channels = config.num_stem_channels
        block_type = BasicBlock if config.depth <= DEEPEST_BASIC else Bottleneck
        for stage, num_blocks in enumerate(config.blocks_of_stages):
            blocks: nnx.List[BasicBlock | Bottleneck] = nnx.List()
            for index in range(num_blocks):
                blocks.append(block_type(in_channels, config, stage, index, dtype=dtype, rngs=rngs))
                in_channels = config.stage_channels[stage]
            self.stages.append(blocks)
        for part in (self.stem, *self.stages)[: self.num_frozen]:
            _freeze(part)

    def __call__(self, frames_NxHxWx3: jax.Array, *, train: bool, slots: int = 1) -> Stages:
        """Normalised RGB frames NxHxWx3 -> features of the four stages."""
        computes_again = self.remat and train  # nothing else has a backward pass
        run_stem = _rematerialised(_run_stem) if computes_again else _run_stem
        run_block = _rematerialised(_run_block) if computes_again else _run_block
        moves = [train and not self.norm_eval and part >= self.num_frozen for part in range(5)]
        x = run_stem(self.stem, frames_NxHxWx3, moves[0], slots)
        outputs = []
        for blocks, moves_stage in zip(self.stages, moves[1:], strict=True):
            for block in blocks:
                x = run_block(block, x, moves_stage, slots)
            outputs.append(x)
        return Stages(*outputs)


class Frozen(nnx.BatchStat):
    """A parameter that training leaves as it is; it has no gradient."""


def _freeze(part: nnx.Module) -> None:
    for _, module in nnx.iter_modules(part):
        for name, variable in list(vars(module).items()):
            if isinstance(variable, nnx.Param):
                setattr(module, name, Frozen(variable[...]))


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


def _stem(config: ResNetConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.List:
    width = config.num_stem_channels
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
