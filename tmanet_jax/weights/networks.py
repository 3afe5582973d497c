"""The network in a file of weights: what the file says, what its tensors show, what is assumed."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tmanet_jax.errors import UserError, abridged
from tmanet_jax.fields import declared_fields
from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.backbones import BACKBONES
from tmanet_jax.models.head import HeadConfig
from tmanet_jax.models.heads import HEADS
from tmanet_jax.models.shown import Shapes
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.protocol import Protocol
from tmanet_jax.weights import original_config
from tmanet_jax.weights.names import UPDATE_COUNT, Tensors, expected_dtype
from tmanet_jax.weights.weight_file import WeightFile

T = TypeVar("T")

BACKBONE = "backbone."
HEAD = "decode_head."
AUXILIARY = "auxiliary_head."
TORCHVISION_CLASSIFIER = re.compile(r"(fc|classifier\.[02])\.(weight|bias)")

ALIGN_CORNERS = "align_corners"
SCALE_SCORES = "scale_scores"
SHOWN_BY_NO_TENSOR = (SCALE_SCORES, "neighbourhood", "stages", "dropout", "tied_init")
"""Fields of heads."""
ALIGN_CORNERS_OF_CLASSES = {19: True, 12: False}
"""The published configurations of Cityscapes and CamVid, by their number of classes."""


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


def shown_config(
    tensors: Mapping[str, np.ndarray], said: original_config.OriginalNetwork | None = None
) -> ModelConfig | BackboneConfig:
    """What the tensors' names and shapes show of their network; the rest is at its defaults.

    Args:
        tensors: of a whole network or of a backbone alone.
        said: what the original's configuration says of them.

    Raises:
        UserError: they are of no network that this project can build.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if not WeightFile(dict(tensors)).is_whole_model:
        return _shown_backbone(shapes)
    backbone = _shown_backbone(_within(shapes, BACKBONE))
    head = _shown_head(shapes, HEAD, backbone, said.head if said else {})
    if not has_auxiliary(tensors):
        return ModelConfig(backbone, head)
    return ModelConfig(
        backbone, head, _shown_head(shapes, AUXILIARY, backbone, said.aux if said else {})
    )


def _shown_backbone(shapes: Shapes) -> BackboneConfig:
    found = (kind.shown(shapes) for kind in BACKBONES.values())
    if (backbone := next(filter(None, found), None)) is None:
        raise UserError(
            "This is no network of this project: its tensors are of no backbone of "
            f"{', '.join(BACKBONES)}."
        )
    return backbone


def _shown_head(
    shapes: Shapes, prefix: str, backbone: BackboneConfig, said: Mapping[str, Any]
) -> HeadConfig:
    of_head = _within(shapes, prefix)
    found = (kind.shown(of_head, backbone.stage_channels, said) for kind in HEADS.values())
    if (head := next(filter(None, found), None)) is None:
        raise UserError(
            f"This is no network of this project: the tensors {prefix}* are of no head of "
            f"{', '.join(HEADS)}."
        )
    return head


def has_auxiliary(tensors: Mapping[str, object]) -> bool:
    """Whether the auxiliary head, which only training needs, is among the tensors."""
    return any(name.startswith(AUXILIARY) for name in tensors)


def _network_of(file: WeightFile) -> FoundNetwork:
    if file.config is not None:
        _check_header(file.config, file.tensors)
        return FoundNetwork(file.config, file.assumed, file.protocol)
    if file.original is not None:
        return _of_original(file.original, file.tensors)
    shown = shown_config(file.tensors)
    backbone = shown.backbone if isinstance(shown, ModelConfig) else shown
    told = [f"{name} {getattr(backbone, name)!r}" for name in backbone.unshown]
    assumed: tuple[str, ...] = ()
    if isinstance(shown, ModelConfig):
        assumed = (ALIGN_CORNERS,)
        if hasattr(shown.head, SCALE_SCORES):
            assumed += (SCALE_SCORES,)
            told.append("scores that are not scaled")
    notes = (f"assumed, as the file does not say: {', '.join(told)}",) if told else ()
    return FoundNetwork(shown, assumed, notes=notes)


def _of_original(original: original_config.Fields, tensors: Tensors) -> FoundNetwork:
    is_backbone = not WeightFile(tensors).is_whole_model
    _check_original(original, backbone_alone=is_backbone)
    if is_backbone:
        shown = shown_config(tensors)
        assert isinstance(shown, BackboneConfig)
        return FoundNetwork(backbone_with_said(shown, original))
    said = original_config.network_of(original)
    shown = shown_config(tensors, said)
    assert isinstance(shown, ModelConfig)
    head, aux = _with_said(shown.head, said.head, "decode_head"), shown.aux
    if has_auxiliary(tensors) and said.aux:
        aux = _with_said(aux, said.aux, "auxiliary_head")
    backbone = backbone_with_said(shown.backbone, original)
    config = ModelConfig(backbone, head, aux, align_corners=said.align_corners)
    return FoundNetwork(config, protocol=said.protocol)


def backbone_with_said(shown: BackboneConfig, original: original_config.Fields) -> BackboneConfig:
    """With what the original's configuration says and no tensor shows.

    Raises:
        UserError: it is of another network.
    """
    said = original_config.said_of_backbone(original, shown)
    of_tensors = {name: said[name] for name in said.keys() - shown.unshown.keys()}
    _check_agrees("its configuration", of_tensors, shown)
    return dataclasses.replace(shown, **said)


def _with_said(shown: HeadConfig, said: Mapping[str, Any], part: str) -> HeadConfig:
    """With what the original's configuration says and no tensor shows."""
    if said["type"] != shown.mmseg:
        raise UserError(
            f"its configuration is of another network than its tensors: {part}.type="
            f"{said['type']!r} instead of {shown.mmseg!r}."
        )
    fields = {item.attribute for item in declared_fields(shown)} & said.keys()
    of_kind = {name: said[name] for name in fields}
    _check_agrees("its configuration", of_kind, shown)
    return dataclasses.replace(shown, **of_kind)


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


def _check_header(config: ModelConfig | BackboneConfig, tensors: Tensors) -> None:
    """Raises UserError, at once, if the head that the header says is none of the tensors'."""
    if isinstance(config, ModelConfig) and config.head.mmseg:
        said = dataclasses.asdict(config.head)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        shown = _shown_head(shapes, HEAD, config.backbone, said)
        _check_agrees("its header", said, shown)


def _check_agrees(who: str, said: Mapping[str, Any], shown: BackboneConfig | HeadConfig) -> None:
    fields = dataclasses.asdict(shown)
    different = [
        f"{name}={value!r} instead of {fields.get(name)!r}"
        for name, value in said.items()
        if value != fields.get(name) and name not in SHOWN_BY_NO_TENSOR
    ]
    if different:
        raise UserError(f"{who} is of another network than its tensors: {', '.join(different)}.")


def of_backbone(named: Mapping[str, T]) -> dict[str, T]:
    """What belongs to the backbone of a whole network, named as in a file of a backbone alone."""
    return _within(named, BACKBONE)


def _within(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    return {
        name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)
    }


def without_torchvision_classifier(tensors: Tensors) -> Tensors:
    """A backbone without the classifier that torchvision's files have."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not TORCHVISION_CLASSIFIER.fullmatch(name)
    }


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
