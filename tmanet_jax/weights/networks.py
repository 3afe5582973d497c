"""The network in a file of weights: what the file says, what its tensors show, what is assumed."""

import dataclasses
import os
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from tmanet_jax.errors import UserError, abridged
from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.resnet import BLOCKS_OF_DEPTH, DEEPEST_BASIC, ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.protocol import Protocol
from tmanet_jax.weights import original_config
from tmanet_jax.weights.names import UPDATE_COUNT, Tensors, expected_dtype
from tmanet_jax.weights.weight_file import WeightFile

T = TypeVar("T")

BACKBONE = "backbone."
AUXILIARY = "auxiliary_head."
TORCHVISION_CLASSIFIER = ("fc.weight", "fc.bias")

ALIGN_CORNERS = "align_corners"
SCALE_SCORES = "scale_scores"
ALIGN_CORNERS_OF_CLASSES = {19: True, 12: False}
"""The published configurations of Cityscapes and CamVid, by their number of classes."""

PUBLISHED_BACKBONE = "style 'pytorch', contracted dilation, no multi-grid, output stride 8"


class FoundNetwork(NamedTuple):
    """The network of a file.

    Attributes:
        config: of the whole network or of the backbone alone.
        assumed: its fields that nobody stated.
        protocol: how it segments frames, if the file says so.
        notes: what was assumed, to be told.
    """

    config: ModelConfig | BackboneConfig
    assumed: tuple[str, ...] = ()
    protocol: Protocol | None = None
    notes: tuple[str, ...] = ()


def network_of(
    file: WeightFile,
    *,
    align_corners: bool | None = None,
    assume_align_corners: bool | None = None,
) -> FoundNetwork:
    """The network of a file.

    Args:
        file: as it was read.
        align_corners: how logits are up-sampled, whatever the file says.
        assume_align_corners: the same where the file does not say; None: as published.

    Raises:
        UserError: it is none that this project can build, contradicts itself, or leaves
            `align_corners` open.
    """
    try:
        network = _network_of(file)
        if not isinstance(network.config, ModelConfig):
            return network
        if align_corners is not None:
            return _with_align_corners(network, network.config, align_corners)
        if ALIGN_CORNERS not in network.assumed:
            return network
        return _assuming_align_corners(network, network.config, file, assume_align_corners)
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from error


def shown_config(tensors: Mapping[str, np.ndarray]) -> ModelConfig | ResNetConfig:
    """What the tensors' names and shapes show of their network; the rest is at its defaults.

    Raises:
        UserError: they are of no network that this project can build.
    """
    try:
        if not WeightFile(dict(tensors)).is_whole_model:
            return _shown_backbone(tensors)
        head = TMAHeadConfig(
            num_classes=_channels(tensors, "decode_head.conv_seg"),
            num_memory=_count(tensors, "decode_head.memory_key_conv.0.{}.conv.weight"),
            key_channels=_channels(tensors, "decode_head.query_key_conv.0.conv"),
            value_channels=_channels(tensors, "decode_head.query_value_conv.0.conv"),
            channels=_channels(tensors, "decode_head.bottleneck.conv"),
            aux_channels=_channels(tensors, "auxiliary_head.convs.0.conv")
            if has_auxiliary(tensors)
            else TMAHeadConfig().aux_channels,
        )
        return ModelConfig(_shown_backbone(of_backbone(tensors)), head)
    except ValueError as error:
        raise UserError(f"This is no network of this project: {error}.") from error


def has_auxiliary(tensors: Mapping[str, object]) -> bool:
    """Whether the auxiliary head, which only training needs, is among the tensors."""
    return any(name.startswith(AUXILIARY) for name in tensors)


def _network_of(file: WeightFile) -> FoundNetwork:
    if file.config is not None:
        if _is_original(file.config):
            _check_agrees("its header", _sizes(file.config), _sizes(shown_config(file.tensors)))
        return FoundNetwork(file.config, file.assumed, file.protocol)
    shown = shown_config(file.tensors)
    if file.original is not None:
        return _of_original(file.original, shown)
    if isinstance(shown, ResNetConfig):
        return FoundNetwork(
            shown, notes=(f"assumed, as the file does not say: {PUBLISHED_BACKBONE}",)
        )
    note = f"assumed, as the file does not say: {PUBLISHED_BACKBONE}, scores that are not scaled"
    return FoundNetwork(shown, (ALIGN_CORNERS, SCALE_SCORES), notes=(note,))


def _of_original(
    original: original_config.Fields, shown: ModelConfig | ResNetConfig
) -> FoundNetwork:
    is_backbone = isinstance(shown, ResNetConfig)
    _check_original(original, backbone_alone=is_backbone)
    if isinstance(shown, ResNetConfig):
        return FoundNetwork(shown)
    assert isinstance(shown.head, TMAHeadConfig)
    said = original_config.network_of(original)
    _check_agrees("its configuration", said.sizes, dataclasses.asdict(shown.head))
    config = dataclasses.replace(
        shown,
        head=dataclasses.replace(shown.head, scale_scores=said.scale_scores),
        align_corners=said.align_corners,
    )
    return FoundNetwork(config, protocol=said.protocol)


def check_original(
    path: str | os.PathLike[str], original: original_config.Fields, *, backbone_alone: bool
) -> None:
    """Raises UserError unless this project has the network that the original's text configures."""
    try:
        _check_original(original, backbone_alone=backbone_alone)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _check_original(original: original_config.Fields, *, backbone_alone: bool) -> None:
    problems = (
        original_config.backbone_problems(original)
        if backbone_alone
        else original_config.network_problems(original)
    )
    if problems:
        raise UserError(
            f"it was trained with what this project does not have: {'; '.join(problems[:6])}. Its "
            "tensors would load and give wrong labels."
        )


def _with_align_corners(
    network: FoundNetwork, config: ModelConfig, align_corners: bool
) -> FoundNetwork:
    return network._replace(
        config=dataclasses.replace(config, align_corners=align_corners),
        assumed=tuple(name for name in network.assumed if name != ALIGN_CORNERS),
    )


def _assuming_align_corners(
    network: FoundNetwork, config: ModelConfig, file: WeightFile, assume: bool | None
) -> FoundNetwork:
    num_classes = config.head.num_classes
    why = "as this run's configuration says"
    if assume is None:
        why = f"as published for {num_classes} classes"
        assume = (
            ALIGN_CORNERS_OF_CLASSES.get(num_classes)
            if file.config is None
            else config.align_corners
        )
    if assume is None:
        raise UserError(
            f"the network tells {num_classes} classes apart, and the file does not say whether its "
            "logits are up-sampled with aligned corners: say --align-corners or "
            "--no-align-corners to `python -m tmanet_jax.weights`."
        )
    note = f"assumed, as the file does not say: align_corners={assume}, {why}"
    return network._replace(
        config=dataclasses.replace(config, align_corners=assume), notes=(*network.notes, note)
    )


def _is_original(config: ModelConfig | BackboneConfig) -> bool:
    """Whether the original has such a network, so that its tensors show it."""
    if isinstance(config, ModelConfig):
        return isinstance(config.head, TMAHeadConfig) and _is_original(config.backbone)
    return isinstance(config, ResNetConfig)


def _sizes(config: ModelConfig | BackboneConfig) -> dict[str, object]:
    """What tensors show of a configuration that the original has."""
    if isinstance(config, ModelConfig):
        head = dataclasses.asdict(config.head)
        shown = ("num_classes", "num_memory", "key_channels", "value_channels", "channels")
        return {name: head[name] for name in shown} | _sizes(config.backbone)
    assert isinstance(config, ResNetConfig)
    return {
        "blocks": config.blocks or BLOCKS_OF_DEPTH[config.depth],
        "deep_stem": config.deep_stem,
        "width": config.width,
        "expansion": config.expansion,
    }


def _check_agrees(who: str, said: Mapping[str, object], shown: Mapping[str, object]) -> None:
    different = [
        f"{name}={value!r} instead of {shown.get(name)!r}"
        for name, value in said.items()
        if value != shown.get(name)
    ]
    if different:
        raise UserError(f"{who} is of another network than its tensors: {', '.join(different)}.")


def _shown_backbone(tensors: Mapping[str, np.ndarray]) -> ResNetConfig:
    deep_stem = "conv1.weight" not in tensors
    width = _channels(tensors, "stem.6" if deep_stem else "conv1")
    is_basic = "layer1.0.conv3.weight" not in tensors
    first, second, third, fourth = (
        _count(tensors, f"layer{stage}.{{}}.conv1.weight") for stage in (1, 2, 3, 4)
    )
    blocks = (first, second, third, fourth)
    if not all(blocks) or width % 2:
        raise UserError(
            f"This is no ResNet of four stages: blocks {blocks}, first stage {width} channels wide."
        )
    for depth, blocks_of_depth in BLOCKS_OF_DEPTH.items():
        if blocks == blocks_of_depth and is_basic == (depth <= DEEPEST_BASIC):
            return ResNetConfig(depth, deep_stem, width)
    return ResNetConfig(DEEPEST_BASIC if is_basic else 50, deep_stem, width, blocks)


def of_backbone(named: Mapping[str, T]) -> dict[str, T]:
    """What belongs to the backbone of a whole network, named as in a file of a backbone alone."""
    return {
        name.removeprefix(BACKBONE): value
        for name, value in named.items()
        if name.startswith(BACKBONE)
    }


def without_torchvision_classifier(tensors: Tensors) -> Tensors:
    """A backbone without the classifier that torchvision's files have."""
    return {name: tensor for name, tensor in tensors.items() if name not in TORCHVISION_CLASSIFIER}


def _channels(tensors: Mapping[str, np.ndarray], layer: str) -> int:
    """Output channels of a convolution."""
    weight = tensors.get(f"{layer}.weight")
    if weight is None or weight.ndim != 4:
        raise UserError(f"This is no TMANet and no ResNet: the tensor {layer}.weight is missing.")
    return weight.shape[0]


def _count(tensors: Mapping[str, np.ndarray], template: str) -> int:
    number = 0
    while template.format(number) in tensors:
        number += 1
    return number


def check_fit(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises UserError, with names, unless the tensors are those that the shapes describe.

    Update counts may be missing: PyTorch before 0.4.1 did not write them, and evaluation and
    training do not depend on them. So may the auxiliary head, which only training needs. Every
    value must be finite.
    """
    needed = [name for name in shapes if not name.endswith(UPDATE_COUNT)]
    if not has_auxiliary(tensors):
        needed = [name for name in needed if not name.startswith(AUXILIARY)]
    missing = [name for name in needed if name not in tensors]
    unexpected = [name for name in tensors if name not in shapes]
    misshapen = [
        f"{name} {tensors[name].shape} instead of {shapes[name]}"
        for name in shapes
        if name in tensors and tensors[name].shape != shapes[name]
    ]
    mistyped = [
        f"{name} {tensors[name].dtype} instead of {expected_dtype(name)}"
        for name in shapes
        if name in tensors and tensors[name].dtype != expected_dtype(name)
    ]
    problems = [
        f"{what}: {abridged(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of the wrong shape", misshapen),
            ("of the wrong type", mistyped),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{path} does not fit the network. Tensors {'; '.join(problems)}. Is it of another "
            "depth, stem, memory length or number of classes? Change the configuration or the file."
        )
    not_finite = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if not_finite:
        raise UserError(
            f"{path} holds NaN or infinity in {abridged(not_finite)}: did its training diverge? "
            "Take weights of an earlier step."
        )
