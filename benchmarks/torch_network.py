"""TMANet in PyTorch, as strong as a user would write it today: the other side of measurements.

Written from the paper and from the original's names, so that `load_state_dict` takes the original's
weights and those that `tmanet_jax.weights` writes, strictly.

Needs requirements-torch.txt: the measurements import this module when they are told `--torch`.

Source: Wang et al. 2021 (arXiv 2102.08643), `mmseg/models/decode_heads/tma_head.py`.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tmanet_jax.models.fcn_head import FCNHeadConfig
from tmanet_jax.models.resnet import (
    DEEPEST_BASIC,
    ResNetConfig,
)
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.weights.names import Tensors

QUERY_CHUNK = 512
"""Query positions whose scores the chunked way holds at one time: the fastest of what was tried.

2048 queries, 4096 keys, 2 cores, CPU ms: the whole matrix 175, chunks 145,
`scaled_dot_product_attention` 187 with values split into heads, 161 with keys padded to their size.
"""


class KeyValue(NamedTuple):
    """An encoded frame: key BxKxhxw, what is compared, and value BxVxhxw, what is read."""

    key: Tensor
    value: Tensor


class Features(NamedTuple):
    """What the backbone makes of frames, both NxCxhxw."""

    stage3: Tensor
    stage4: Tensor


class Logits(NamedTuple):
    """Of the query, both BxCxhxw."""

    main: Tensor
    aux: Tensor


ReadMemory = Callable[[KeyValue, Sequence[KeyValue], float], Tensor]
"""Query, memory frames (oldest first), scale of the scores -> what is read, BxVxhxw."""


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """Without bias, padded so that stride 1 keeps the size."""
    padding = dilation * (kernel_size // 2)
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, bias=False
    )


class ConvModule(nn.Module):
    """Convolution, batch norm, ReLU; padded so that the size stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.conv = _conv(in_channels, out_channels, kernel_size)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x_NxCxHxW: Tensor) -> Tensor:
        """NxCxHxW -> NxC'xHxW."""
        return functional.relu(self.bn(self.conv(x_NxCxHxW)), inplace=True)


class Block(nn.Module):
    """A bottleneck (1x1, 3x3, 1x1) or a basic block (3x3, 3x3), and its shortcut."""

    def __init__(
        self, in_channels: int, channels: int, *, is_basic: bool, stride: int, dilation: int
    ):
        super().__init__()
        out_channels = channels if is_basic else 4 * channels
        spatial = functools.partial(_conv, kernel_size=3, stride=stride, dilation=dilation)
        point = functools.partial(_conv, kernel_size=1)
        second = functools.partial(_conv, kernel_size=3)
        kinds = [spatial, second] if is_basic else [point, spatial, point]
        widths = [in_channels, *[channels] * (len(kinds) - 1), out_channels]
        self.num_convs = len(kinds)
        for index, make in enumerate(kinds):
            self.add_module(f"conv{index + 1}", make(widths[index], widths[index + 1]))
            self.add_module(f"bn{index + 1}", nn.BatchNorm2d(widths[index + 1]))
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                _conv(in_channels, out_channels, 1, stride=stride),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x_NxCxHxW: Tensor) -> Tensor:
        """NxCxHxW -> NxC'xH'xW'."""
        y = x_NxCxHxW
        for index in range(1, self.num_convs + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            if index < self.num_convs:
                y = functional.relu(y, inplace=True)
        identity = x_NxCxHxW if self.downsample is None else self.downsample(x_NxCxHxW)
        return functional.relu(y + identity, inplace=True)


class ResNet(nn.Module):
    """Dilated ResNet of output stride 8; `contract_dilation` as in the original."""

    def __init__(self, config: ResNetConfig):
        super().__init__()
        self.is_deep = config.deep_stem
        width, half = config.width, config.width // 2
        if config.deep_stem:
            layers: list[nn.Module] = []
            for channels, stride in (((3, half), 2), ((half, half), 1), ((half, width), 1)):
                conv = nn.Conv2d(*channels, 3, stride=stride, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(channels[1]), nn.ReLU(inplace=True)]
            self.stem = nn.Sequential(*layers)
        else:
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
        in_channels = width
        for stage, num_blocks in enumerate(config.blocks_of_stages):
            blocks = []
            for index in range(num_blocks):
                dilation = config.dilation(stage, index)
                block = Block(
                    in_channels,
                    width * 2**stage,
                    is_basic=config.depth <= DEEPEST_BASIC,
                    stride=config.strides[stage] if index == 0 else 1,
                    dilation=dilation,
                )
                blocks.append(block)
                in_channels = config.stage_channels[stage]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, frames_Nx3xHxW: Tensor) -> Features:
        """Normalised RGB frames Nx3xHxW -> features of the last two stages."""
        if self.is_deep:
            x = self.stem(frames_Nx3xHxW)
        else:
            x = functional.relu(self.bn1(self.conv1(frames_Nx3xHxW)), inplace=True)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        outputs = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            outputs.append(x)
        return Features(*outputs[2:])


def _through(layers: nn.ModuleList, position: int, features_BxCxhxw: Tensor) -> Tensor:
    """Each layer's module of a position, one after the other."""
    for modules_T in layers:
        assert isinstance(modules_T, nn.ModuleList)
        features_BxCxhxw = modules_T[position](features_BxCxhxw)
    return features_BxCxhxw


class TMAHead(nn.Module):
    """The memory head; every position of the memory has convolutions of its own, 0 the oldest."""

    def __init__(self, in_channels: int, config: TMAHeadConfig):
        super().__init__()
        self.scale = config.key_channels**-0.5 if config.scale_scores else 1.0
        key, value = config.key_channels, config.value_channels
        self.query_key_conv = _branch(in_channels, key)
        self.query_value_conv = _branch(in_channels, value)
        self.memory_key_conv = _branches(in_channels, key, config.num_memory)
        self.memory_value_conv = _branches(in_channels, value, config.num_memory)
        self.bottleneck = ConvModule((2 if config.num_memory else 1) * value, config.channels, 3)
        self.dropout = nn.Dropout2d(config.dropout)
        self.conv_seg = nn.Conv2d(config.channels, config.num_classes, 1)

    def encode_query(self, features_BxCxhxw: Tensor) -> KeyValue:
        """Stage-4 features -> the query's key and value."""
        return KeyValue(
            self.query_key_conv(features_BxCxhxw), self.query_value_conv(features_BxCxhxw)
        )

    def encode_memory(self, features_BxCxhxw: Tensor, position: int) -> KeyValue:
        """Stage-4 features -> key and value as the memory frame at this position."""
        return KeyValue(
            _through(self.memory_key_conv, position, features_BxCxhxw),
            _through(self.memory_value_conv, position, features_BxCxhxw),
        )

    def classify(self, query: KeyValue, memory: Sequence[KeyValue], read: ReadMemory) -> Tensor:
        """The query's value beside what it reads from the memory -> logits BxCxhxw."""
        found = query.value
        if memory:
            found = torch.cat([query.value, read(query, memory, self.scale)], dim=1)
        return self.conv_seg(self.dropout(self.bottleneck(found)))


class FCNHead(nn.Module):
    """The auxiliary head of training; inference does not use it."""

    def __init__(self, in_channels: int, config: FCNHeadConfig):
        super().__init__()
        self.convs = nn.Sequential(ConvModule(in_channels, config.channels, 3))
        self.dropout = nn.Dropout2d(config.dropout)
        self.conv_seg = nn.Conv2d(config.channels, config.num_classes, 1)

    def forward(self, features_BxCxhxw: Tensor) -> Tensor:
        """Stage-3 features of the query -> logits BxC'xhxw."""
        return self.conv_seg(self.dropout(self.convs(features_BxCxhxw)))


class TMANet(nn.Module):
    """The whole network, with the original's `state_dict` names; made for inference (`eval`).

    Args:
        config: its shape.
        read: how the memory is read.
    """

    def __init__(self, config: ModelConfig, read: ReadMemory):
        super().__init__()
        self.config = config
        self.read = read
        assert isinstance(config.backbone, ResNetConfig) and isinstance(config.head, TMAHeadConfig)
        assert isinstance(config.aux, FCNHeadConfig)
        channels = config.backbone.stage_channels
        self.backbone = ResNet(config.backbone)
        self.decode_head = TMAHead(channels[3], config.head)
        self.auxiliary_head = FCNHead(channels[2], config.aux)
        self.eval()

    def forward(self, frames_BxSx3xHxW: Tensor) -> Tensor:
        """The original's way: the whole clip -> logits BxCxhxw of its last frame.

        The query, and then each memory frame, goes through the backbone by itself.
        """
        return self._segment(frames_BxSx3xHxW)[0]

    def both_logits(self, frames_BxSx3xHxW: Tensor) -> Logits:
        """What training needs, in the same order of work."""
        main, stage3_of_query = self._segment(frames_BxSx3xHxW)
        return Logits(main, self.auxiliary_head(stage3_of_query))

    def _segment(self, frames_BxSx3xHxW: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(frames_BxSx3xHxW[:, -1])
        query = self.decode_head.encode_query(features.stage4)
        memory = []
        for t in range(self.config.head.num_memory):
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.memory_gradient):
                stage4 = self.backbone(frames_BxSx3xHxW[:, t]).stage4
            memory.append(self.decode_head.encode_memory(stage4, t))
        return self.decode_head.classify(query, memory, self.read), features.stage3

    def encode(self, frame_Bx3xHxW: Tensor) -> tuple[KeyValue, list[KeyValue]]:
        """A new frame, once through the backbone: as the query, and as each memory position."""
        features = self.backbone(frame_Bx3xHxW).stage4
        head = self.decode_head
        positions = range(self.config.head.num_memory)
        return head.encode_query(features), [head.encode_memory(features, t) for t in positions]

    def full_logits(self, logits_BxCxhxw: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits at stride 8 -> logits of a frame of this size, BxCxHxW."""
        return functional.interpolate(
            logits_BxCxhxw, size, mode="bilinear", align_corners=self.config.align_corners
        )


def read_memory(
    query: KeyValue, memory: Sequence[KeyValue], scale: float, query_chunk: int | None = None
) -> Tensor:
    """Memory values weighted by softmax(scale * query . key) over all positions: BxVxhxw.

    Args:
        query: of the frame that is segmented.
        memory: T frames, oldest first.
        scale: of the scores.
        query_chunk: positions whose scores exist at one time; None is all, as in the original.
    """
    query_BxNxK = query.key.flatten(2).transpose(1, 2)
    key_BxKxM = torch.stack([frame.key for frame in memory], dim=2).flatten(2)
    value_BxMxV = torch.stack([frame.value for frame in memory], dim=2).flatten(2).transpose(1, 2)
    read_BxNxV = torch.cat(
        [
            torch.softmax(scale * (chunk_BxQxK @ key_BxKxM), dim=-1) @ value_BxMxV
            for chunk_BxQxK in query_BxNxK.split(query_chunk or query_BxNxK.shape[1], dim=1)
        ],
        dim=1,
    )
    return read_BxNxV.transpose(1, 2).reshape(query.value.shape)


def read_memory_fused(query: KeyValue, memory: Sequence[KeyValue], scale: float) -> Tensor:
    """`read_memory` by `scaled_dot_product_attention`, which holds no matrix of scores.

    Its fast kernels want keys as wide as values: zeros are added to the narrower of the two.
    """
    width = max(query.key.shape[1], query.value.shape[1])

    def rows(frames: Sequence[Tensor]) -> Tensor:
        """T arrays BxCxhxw -> Bx1x(T*h*w)xwidth."""
        rows_BxMxC = torch.stack(list(frames), dim=2).flatten(2).transpose(1, 2)
        return functional.pad(rows_BxMxC, (0, width - rows_BxMxC.shape[2]))[:, None]

    read_Bx1xNxW = functional.scaled_dot_product_attention(
        rows([query.key]),
        rows([frame.key for frame in memory]),
        rows([frame.value for frame in memory]),
        scale=scale,
    )
    read_BxVxN = read_Bx1xNxW[:, 0, :, : query.value.shape[1]].transpose(1, 2)
    return read_BxVxN.reshape(query.value.shape)


def _branch(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(ConvModule(in_channels, channels, 1), ConvModule(channels, channels, 3))


def _branches(in_channels: int, channels: int, num_memory: int) -> nn.ModuleList:
    """As the original orders them: layer first, then position."""
    return nn.ModuleList(
        nn.ModuleList(ConvModule(width, channels, kernel_size) for _ in range(num_memory))
        for width, kernel_size in ((in_channels, 1), (channels, 3))
    )


READS: Mapping[str, ReadMemory] = {
    "whole": read_memory,
    "chunks": functools.partial(read_memory, query_chunk=QUERY_CHUNK),
    "fused": read_memory_fused,
}
"""Ways to read the memory; the first is the original's."""


class Stage4(nn.Module):
    """The backbone alone."""

    def __init__(self, model: TMANet):
        super().__init__()
        self.backbone = model.backbone

    def forward(self, frames_Bx3xHxW: Tensor) -> Tensor:
        """Stage-4 features."""
        return self.backbone(frames_Bx3xHxW).stage4


class Encode(nn.Module):
    """A new frame of a video: `TMANet.encode`."""

    def __init__(self, model: TMANet):
        super().__init__()
        self.model = model.eval()

    def forward(self, frame_Bx3xHxW: Tensor) -> tuple[KeyValue, ...]:
        """As the query, and as each position of the memory."""
        query, memory = self.model.encode(frame_Bx3xHxW)
        return (query, *memory)


class Classify(nn.Module):
    """The rest of the network for a new frame whose memory is kept."""

    def __init__(self, model: TMANet):
        super().__init__()
        self.decode_head = model.decode_head.eval()

    def forward(self, query: KeyValue, *memory: KeyValue) -> Tensor:
        """Logits BxCxhxw."""
        frames = [KeyValue(*frame) for frame in memory]
        return self.decode_head.classify(KeyValue(*query), frames, READS["chunks"])


def loaded(config: ModelConfig, tensors: Tensors, read: ReadMemory = read_memory) -> TMANet:
    """The network with copies of these weights."""
    model = TMANet(config, read)
    model.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
    return model


def fold_batch_norm(model: TMANet) -> None:
    """Batch norm with its running statistics becomes part of the convolution before it."""
    for module in list(model.modules()):
        children = list(module.named_children())
        for (name, conv), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
