"""The original's weights in and out: names, layouts, loading, conversion.

    python -m tmanet_jax.weights SRC DST

converts `.pth` to `.safetensors` and back, for a whole TMANet, mmseg's backbones (`resnet50_v1c`)
and torchvision's. Files hold the original's names and layouts; `weight_names` leads from them to
this model's parameters and back.
"""

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tmanet_jax import weight_files
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.models.heads import HeadConfig
from tmanet_jax.models.layers import Precision
from tmanet_jax.models.memory_kernels import Attention
from tmanet_jax.models.resnet import BLOCKS_OF_DEPTH, DEEPEST_BASIC, ResNetConfig
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weight_files import WeightFile
from tmanet_jax.weight_names import (
    UPDATE_COUNT,
    Tensors,
    expected_dtype,
    expected_shapes,
    to_tensors,
    with_tensors,
)

T = TypeVar("T")

OF_WORKDIR = "tmanet.safetensors"
"""The file that training leaves in a run's workdir: the weights of its best step."""
LAST = "last.safetensors"
"""Beside it: those of its last step."""

BACKBONE = "backbone."
CLASSIFIERS = ("decode_head.conv_seg.", "auxiliary_head.conv_seg.")
TORCHVISION_CLASSIFIER = ("fc.weight", "fc.bias")

ALIGN_CORNERS_OF_CLASSES = {19: True, 12: False}
"""The published configurations of Cityscapes and CamVid, by their number of classes."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What loading a file did, by the original's names.

    Attributes:
        path: the file.
        loaded: tensors that are now the model's.
        kept: the model's tensors that the file did not set, at their initial value.
        ignored: the file's tensors that the model has no use for.
    """

    path: str
    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors of {self.path}"]
        if self.ignored:
            parts.append(f"ignored {_abridged(_parts_of_network(self.ignored))}")
        if self.kept:
            parts.append(f"left at initial values: {_abridged(_parts_of_network(self.kept))}")
        if any(name.startswith(CLASSIFIERS) for name in self.kept):
            parts.append("the classifiers are new")
        return "; ".join(parts)


def load_pretrained_backbone(path: str | os.PathLike[str], model: TMANet) -> LoadReport:
    """Sets the backbone from a file of a backbone, or of a whole network, whose heads are ignored.

    Raises:
        UserError: the file cannot be read, or its backbone is not the model's.
    """
    file = weight_files.read(path)
    if file.is_whole_model:
        backbone = _of_backbone(file.tensors)
        ignored = tuple(name for name in file.tensors if not name.startswith(BACKBONE))
    else:
        backbone = _without_torchvision_classifier(file.tensors)
        ignored = tuple(name for name in file.tensors if name not in backbone)
    tensors = {f"{BACKBONE}{name}": tensor for name, tensor in backbone.items()}
    shapes = _of_backbone(expected_shapes(model.config))
    _check_fit(path, tensors, {f"{BACKBONE}{name}": shape for name, shape in shapes.items()})
    return _load(path, model, tensors, ignored)


def load_checkpoint(
    path: str | os.PathLike[str], model: TMANet, *, new_classifier_ok: bool = False
) -> LoadReport:
    """Sets the whole model from a file of a whole network.

    Args:
        path: `.safetensors` or `.pth`.
        model: changed in place.
        new_classifier_ok: leave the classifiers at their initial values if the file's have another
            number of classes.

    Raises:
        UserError: the file cannot be read, or is not of a network of the model's shape.
    """
    file = weight_files.read(path)
    if not file.is_whole_model:
        raise UserError(
            f"{path} holds a backbone, not a whole TMANet: set config.init.pretrained to it, "
            "not config.init.checkpoint."
        )
    shapes = expected_shapes(model.config)
    tensors = file.tensors
    ignored: tuple[str, ...] = ()
    classifiers = tuple(name for name in tensors if name.startswith(CLASSIFIERS))
    if new_classifier_ok and any(tensors[name].shape != shapes.get(name) for name in classifiers):
        ignored = classifiers
        tensors = {name: tensors[name] for name in tensors if name not in ignored}
        shapes = {name: shapes[name] for name in shapes if not name.startswith(CLASSIFIERS)}
    _check_fit(path, tensors, shapes)
    return _load(path, model, tensors, ignored)


def read_model_config(
    path: str | os.PathLike[str], *, align_corners: bool | None = None
) -> ModelConfig:
    """The configuration of the whole network in a file.

    Files written by this project carry it. Of others it is inferred from names and shapes, and
    `align_corners`, unless it is given, from the number of classes, which is then logged.

    Raises:
        UserError: the file cannot be read, holds no whole TMANet, or leaves `align_corners` open.
    """
    config = _config_of(path, weight_files.read(path), align_corners)
    if not isinstance(config, ModelConfig):
        raise UserError(f"{path} holds a backbone, not a whole TMANet.")
    return config


class LoadedModel(NamedTuple):
    """A whole network, what it tells apart, and how it was scored, if its file says so."""

    model: TMANet
    classes: ClassSet
    protocol: Protocol | None


def load_model(
    path: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    precision: Precision = "default",
    attention: Attention = "auto",
) -> LoadedModel:
    """The whole network in a file.

    Files written by this project's training name their classes. Of others they are the published
    ones of 19 (Cityscapes) and 12 classes (CamVid), and numbered ones elsewhere.

    Args:
        path: `.safetensors` or `.pth`.
        dtype: compute type, "float32" or "bfloat16"; None: the file's own.
        precision: of float32 products.
        attention: which way reads the memory.

    Raises:
        UserError: the file cannot be read, or holds no whole TMANet.
    """
    file = weight_files.read(path)
    config = _config_of(path, file, align_corners=None)
    if not isinstance(config, ModelConfig):
        raise UserError(f"{path} holds a backbone, not a whole TMANet.")
    _check_fit(path, file.tensors, expected_shapes(config))
    config = dataclasses.replace(
        config, dtype=dtype or config.dtype, precision=precision, attention=attention
    )
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: TMANet(config, rngs=nnx.Rngs(0))))
    zeros = jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), shapes)
    classes = file.classes or weight_files.classes_of_number(config.head.num_classes)
    model = nnx.merge(graphdef, with_tensors(zeros, file.tensors))
    return LoadedModel(model, classes, file.protocol)


def save(
    path: str | os.PathLike[str],
    model: TMANet,
    classes: ClassSet | None = None,
    *,
    protocol: Protocol | None = None,
    origin: Origin | None = None,
) -> None:
    """Writes the whole model, with its configuration, as `.safetensors` or `.pth`.

    Args:
        path: where to.
        model: what to write.
        classes: what it tells apart, if that is known.
        protocol: how it was scored, if it was.
        origin: the training that left it, if that is known.

    Raises:
        UserError: the file cannot be written, or is a `.pth` and torch is not installed.
    """
    tensors = to_tensors(nnx.state(model))
    weight_files.write(path, WeightFile(tensors, model.config, classes, protocol, origin))


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    align_corners: bool | None = None,
) -> str:
    """Converts a file of weights, bit by bit the same; returns what it was in one line.

    Raises:
        UserError: the source cannot be read or is no network that this project can build, or the
            destination cannot be written.
    """
    file = weight_files.read(source)
    config = _config_of(source, file, align_corners)
    if isinstance(config, ModelConfig):
        _check_fit(source, file.tensors, expected_shapes(config))
    else:
        tensors = _without_torchvision_classifier(file.tensors)
        _check_fit(source, tensors, _of_backbone(expected_shapes(ModelConfig(backbone=config))))
    weight_files.write(destination, dataclasses.replace(file, config=config))
    return f"{destination}: {len(file.tensors)} tensors, {_described(config)}"


def infer_config(
    tensors: Mapping[str, np.ndarray], *, align_corners: bool | None = None
) -> ModelConfig | ResNetConfig:
    """What the tensors' names and shapes say of their network.

    Raises:
        UserError: they are of no network that this project can build, or leave `align_corners`
            open.
    """
    if not WeightFile(dict(tensors)).is_whole_model:
        return _infer_backbone(tensors)
    num_classes = _channels(tensors, "decode_head.conv_seg")
    if align_corners is None:
        if num_classes not in ALIGN_CORNERS_OF_CLASSES:
            raise UserError(
                f"The network tells {num_classes} classes apart, and the file does not say whether "
                "its logits are up-sampled with aligned corners: say --align-corners or "
                "--no-align-corners to `python -m tmanet_jax.weights`."
            )
        align_corners = ALIGN_CORNERS_OF_CLASSES[num_classes]
        logging.getLogger(__name__).warning(
            "%d classes: assuming align_corners=%s, as published", num_classes, align_corners
        )
    head = HeadConfig(
        num_classes=num_classes,
        num_memory=_count(tensors, "decode_head.memory_key_conv.0.{}.conv.weight"),
        key_channels=_channels(tensors, "decode_head.query_key_conv.0.conv"),
        value_channels=_channels(tensors, "decode_head.query_value_conv.0.conv"),
        channels=_channels(tensors, "decode_head.bottleneck.conv"),
        aux_channels=_channels(tensors, "auxiliary_head.convs.0.conv"),
    )
    return ModelConfig(_infer_backbone(_of_backbone(tensors)), head, align_corners)


def _infer_backbone(tensors: Mapping[str, np.ndarray]) -> ResNetConfig:
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


def _of_backbone(named: Mapping[str, T]) -> dict[str, T]:
    """What belongs to the backbone of a whole network, named as in a file of a backbone alone."""
    return {
        name.removeprefix(BACKBONE): value
        for name, value in named.items()
        if name.startswith(BACKBONE)
    }


def _without_torchvision_classifier(tensors: Tensors) -> Tensors:
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


def _config_of(
    path: str | os.PathLike[str], file: WeightFile, align_corners: bool | None
) -> ModelConfig | ResNetConfig:
    if file.config is None:
        try:
            return infer_config(file.tensors, align_corners=align_corners)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    if isinstance(file.config, ModelConfig) and align_corners is not None:
        return dataclasses.replace(file.config, align_corners=align_corners)
    return file.config


def _load(
    path: str | os.PathLike[str], model: TMANet, tensors: Tensors, ignored: tuple[str, ...]
) -> LoadReport:
    not_finite = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if not_finite:
        raise UserError(
            f"{path} holds NaN or infinity in {_abridged(not_finite)}: did its training diverge? "
            "Take weights of an earlier step."
        )
    nnx.update(model, with_tensors(nnx.state(model), tensors))
    kept = tuple(name for name in expected_shapes(model.config) if name not in tensors)
    return LoadReport(str(path), tuple(tensors), kept, ignored)


def _check_fit(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises UserError, with names, unless the tensors are those that the shapes describe.

    Update counts may be missing: PyTorch before 0.4.1 did not write them, and evaluation and
    training do not depend on them.
    """
    missing = [name for name in shapes if name not in tensors and not name.endswith(UPDATE_COUNT)]
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
        f"{what}: {_abridged(names)}"
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


def _parts_of_network(names: tuple[str, ...]) -> list[str]:
    """The parts that the tensors belong to, each once, such as `decode_head.conv_seg`."""
    parts = []
    for name in names:
        layer, _, parameter = name.rpartition(".")
        is_count_alone = parameter == UPDATE_COUNT and f"{layer}.running_mean" not in names
        parts.append(UPDATE_COUNT if is_count_alone else ".".join(name.split(".")[:2]))
    return list(dict.fromkeys(parts))


def _abridged(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _described(config: ModelConfig | ResNetConfig) -> str:
    if isinstance(config, ResNetConfig):
        return f"ResNet-{config.depth}, {'deep' if config.deep_stem else 'plain'} stem"
    return (
        f"TMANet with {_described(config.backbone)}, T={config.head.num_memory}, "
        f"{config.head.num_classes} classes, align_corners={config.align_corners}"
    )


@ends_with_message
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tmanet_jax.weights",
        description="Converts weights between .pth and .safetensors, bit by bit the same.",
    )
    parser.add_argument("source", metavar="SRC", help="a .pth or .safetensors file")
    parser.add_argument("destination", metavar="DST", help="the file to write, of either kind")
    parser.add_argument(
        "--align-corners",
        action=argparse.BooleanOptionalAction,
        help="how the network's logits are up-sampled, where SRC does not say "
        "(unless given: 19 classes yes, 12 classes no)",
    )
    options = parser.parse_args(arguments)
    print(convert(options.source, options.destination, align_corners=options.align_corners))
    return 0


if __name__ == "__main__":
    sys.exit(main())
