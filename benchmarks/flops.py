"""Floating point operations of the network, by formula: what a step costs on any machine.

A multiply-add counts as two operations. Counted are the convolutions and the matrix products of the
network; norms, activations, the loss and the up-sampling of the logits (together below one percent
of the published networks) are not. Positions of a kernel that lie on padding count like all others,
as in the numbers that papers give. What is computed a second time in order to save memory (the
scores of the memory read, `remat`) is not counted again: these are the operations of the model, not
of an implementation.
"""

import dataclasses

from tmanet_jax.models.fcn_head import FCNHeadConfig
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig


@dataclasses.dataclass(frozen=True)
class ForwardFlops:
    """One frame, or one clip's query, going forward.

    Attributes:
        first_conv: the backbone's first convolution, of one frame.
        backbone: all of the backbone, of one frame.
        encoder: key and value branch of one frame; without a memory nobody reads the key.
        encoder_first: the 1x1 convolutions of that.
        read: of one query from the memory of all T frames.
        classify: bottleneck and classifier.
        aux_head: of one query; only training needs it.
    """

    first_conv: int
    backbone: int
    encoder: int
    encoder_first: int
    read: int
    classify: int
    aux_head: int


def forward_flops(model: ModelConfig, size: tuple[int, int]) -> ForwardFlops:
    """Operations of each part of the network for frames of this height and width."""
    positions = _area(model.feature_size(size))
    head, aux = model.head, model.aux
    assert isinstance(model.backbone, ResNetConfig) and isinstance(head, TMAHeadConfig)
    assert isinstance(aux, FCNHeadConfig)
    first_conv, backbone = _backbone_flops(model.backbone, size)
    stage3, stage4 = model.backbone.stage_channels[2:]
    branches = (head.key_channels, head.value_channels)[0 if head.num_memory else 1 :]
    encoder_first = sum(_conv_flops(positions, 1, stage4, channels) for channels in branches)
    encoder_rest = sum(_conv_flops(positions, 3, channels, channels) for channels in branches)
    return ForwardFlops(
        first_conv=first_conv,
        backbone=backbone,
        encoder=encoder_first + encoder_rest,
        encoder_first=encoder_first,
        read=_read_flops(head, positions),
        classify=_classify_flops(head, positions),
        aux_head=_conv_flops(positions, 3, stage3, aux.channels)
        + _conv_flops(positions, 1, aux.channels, head.num_classes),
    )


def clip_flops(model: ModelConfig, size: tuple[int, int]) -> int:
    """Segmenting one clip: T + 1 frames through the backbone, one query; no auxiliary head."""
    part, frames = forward_flops(model, size), model.head.num_memory + 1
    return frames * (part.backbone + part.encoder) + part.read + part.classify


def stream_flops(model: ModelConfig, size: tuple[int, int]) -> int:
    """Segmenting the newest frame of a stream.

    The backbone sees it once, and every position of the clip encodes it
    (`tmanet_jax/inference/stream.py`).
    """
    part, frames = forward_flops(model, size), model.head.num_memory + 1
    return part.backbone + frames * part.encoder + part.read + part.classify


def training_flops(model: ModelConfig, size: tuple[int, int], batch_size: int) -> int:
    """One step: three times the forward pass, less what has no gradient.

    A product's backward pass is two products of its own size: the gradient of its input and that of
    its weights. The frames themselves have no gradient; without `memory_gradient` the memory frames
    go through the backbone forward alone, and their encoders' first convolutions miss the gradient
    of their input.

    Args:
        model: the network.
        size: height and width of the crops.
        batch_size: clips.
    """
    part, num_memory = forward_flops(model, size), model.head.num_memory
    frames_with_gradient = 1 + (num_memory if model.memory_gradient else 0)
    frames_without = num_memory + 1 - frames_with_gradient
    clip = frames_with_gradient * (3 * part.backbone - part.first_conv + 3 * part.encoder)
    clip += frames_without * (part.backbone + 3 * part.encoder - part.encoder_first)
    clip += 3 * (part.read + part.classify + part.aux_head)
    return batch_size * clip


def _backbone_flops(config: ResNetConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Of the first convolution, and of all of them."""
    size = _strided(size, 2)
    width = config.width
    if config.deep_stem:
        half = width // 2
        first_conv = _conv_flops(_area(size), 3, 3, half)
        total = first_conv + _conv_flops(_area(size), 3, half, half)
        total += _conv_flops(_area(size), 3, half, width)
    else:
        first_conv = total = _conv_flops(_area(size), 7, 3, width)
    size = _strided(size, 2)
    in_channels = width
    for stage, num_blocks in enumerate(config.blocks_of_stages):
        for block in range(num_blocks):
            stride = config.strides[stage] if block == 0 else 1
            total += _block_flops(config, in_channels, width * 2**stage, size, stride)
            size = _strided(size, stride)
            in_channels = config.stage_channels[stage]
    return first_conv, total


def _block_flops(
    config: ResNetConfig, in_channels: int, channels: int, in_size: tuple[int, int], stride: int
) -> int:
    before, after = _area(in_size), _area(_strided(in_size, stride))
    out_channels = config.expansion * channels
    if config.expansion == 1:
        flops = _conv_flops(after, 3, in_channels, channels)
        flops += _conv_flops(after, 3, channels, channels)
    else:
        flops = _conv_flops(before, 1, in_channels, channels)
        flops += _conv_flops(after, 3, channels, channels)
        flops += _conv_flops(after, 1, channels, out_channels)
    if stride != 1 or in_channels != out_channels:
        flops += _conv_flops(after, 1, in_channels, out_channels)
    return flops


def _read_flops(head: TMAHeadConfig, positions: int) -> int:
    """Scores of all pairs of positions, and the sum of the values."""
    channels = head.key_channels + head.value_channels
    return 2 * positions * head.num_memory * positions * channels


def _classify_flops(head: TMAHeadConfig, positions: int) -> int:
    parts = 2 if head.num_memory else 1
    bottleneck = _conv_flops(positions, 3, parts * head.value_channels, head.channels)
    return bottleneck + _conv_flops(positions, 1, head.channels, head.num_classes)


def _conv_flops(out_positions: int, kernel_size: int, in_channels: int, out_channels: int) -> int:
    return 2 * out_positions * kernel_size**2 * in_channels * out_channels


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return (-(-size[0] // stride), -(-size[1] // stride))


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
