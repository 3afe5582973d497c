"""Networks from files of weights, and back into them."""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Literal, NamedTuple

from flax import nnx

from tmanet_jax.data.classes import ClassSet, name_differences
from tmanet_jax.errors import UserError, abridged
from tmanet_jax.fields import Checked, field
from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.layers import MatmulPrecision
from tmanet_jax.models.memory_kernels import Attention
from tmanet_jax.models.tmanet import ModelConfig, TMANet, blank_model
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weights import files
from tmanet_jax.weights.names import (
    UPDATE_COUNT,
    Tensors,
    expected_shapes,
    to_tensors,
    with_tensors,
)
from tmanet_jax.weights.networks import (
    ALIGN_CORNERS,
    BACKBONE,
    SCALE_SCORES,
    FoundNetwork,
    backbone_with_said,
    check_fit,
    check_original,
    network_of,
    of_backbone,
    shown_config,
    without_torchvision_classifier,
)
from tmanet_jax.weights.weight_file import WeightFile

OF_WORKDIR = "tmanet.safetensors"
"""The file that training leaves in a run's workdir: the weights of its best step."""
LAST = "last.safetensors"
"""Beside it: those of its last step."""


def weights_of_run(workdir: Path) -> Path:
    """The file that a finished run left; of one that is not, the workdir: its best checkpoint."""
    path = workdir / OF_WORKDIR
    return workdir if (workdir / "checkpoints").is_dir() and not path.is_file() else path


CLASSIFIERS = ("decode_head.conv_seg.", "auxiliary_head.conv_seg.")


@dataclasses.dataclass(frozen=True)
class InitConfig(Checked):
    """Files of weights that a run begins with; empty means random weights.

    Attributes:
        align_corners: of a network that is scored or used, if the command line sets it; None: as
            its file says.
    """

    pretrained: str = field("", "weights of the backbone alone, .safetensors or .pth")
    checkpoint: str = field(
        "",
        "weights of a whole network, to fine-tune or to evaluate; training makes new classifiers "
        "for other classes",
    )
    published: str = field("", "backbone that the published score begins from, if there is one")
    classes: Literal["compare", "keep"] = field(
        "compare",
        '"compare" the checkpoint\'s names of classes with the records\', or "keep" its '
        "classifiers whatever the names are",
    )
    align_corners: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and self.checkpoint:
            raise UserError(
                "pretrained and config.init.checkpoint both set the backbone: choose one."
            )

    def compared(self, classes: ClassSet) -> ClassSet | None:
        """The records' classes, if the weights' names of theirs are compared with them."""
        return classes if self.classes == "compare" else None


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What loading a file did, by the original's names.

    Attributes:
        path: the file.
        loaded: tensors that are now the model's.
        kept: the model's tensors that the file did not set, at their initial value.
        ignored: the file's tensors that the model has no use for.
        notes: what was converted, assumed or is different, to be told.
    """

    path: str
    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors of {self.path}"]
        if self.ignored:
            parts.append(f"ignored {abridged(_parts_of_network(self.ignored))}")
        if self.kept:
            parts.append(f"left at initial values: {abridged(_parts_of_network(self.kept))}")
        if any(name.startswith(CLASSIFIERS[0]) for name in self.kept):
            parts.append("the classifiers are new")
        return "; ".join([*parts, *self.notes])


def load_pretrained_backbone(path: str | os.PathLike[str], model: TMANet) -> LoadReport:
    """Sets the backbone from a file of a backbone, or of a whole network, whose heads are ignored.

    Raises:
        UserError: the file cannot be read, or its backbone is not the model's.
    """
    file = files.read(path)
    if file.original is not None:
        check_original(path, file.original, backbone_alone=True)
    if file.is_whole_model:
        backbone = of_backbone(file.tensors)
        ignored = tuple(name for name in file.tensors if not name.startswith(BACKBONE))
    else:
        backbone = without_torchvision_classifier(file.tensors)
        ignored = tuple(name for name in file.tensors if name not in backbone)
    tensors = {f"{BACKBONE}{name}": tensor for name, tensor in backbone.items()}
    if (theirs := _stated_backbone(file, backbone)) is not None:
        _check_same_backbone(path, theirs, model.config.backbone)
    shapes = of_backbone(expected_shapes(model.config))
    check_fit(path, tensors, {f"{BACKBONE}{name}": shape for name, shape in shapes.items()})
    return _load(path, model, tensors, ignored, file.notes)


def _stated_backbone(file: WeightFile, tensors: Tensors) -> BackboneConfig | None:
    """The backbone of a file that says what no tensor shows of it."""
    if file.original is not None:
        shown = shown_config(tensors)
        assert isinstance(shown, BackboneConfig)
        return backbone_with_said(shown, file.original)
    return file.config.backbone if isinstance(file.config, ModelConfig) else file.config


def _check_same_backbone(
    path: str | os.PathLike[str], theirs: BackboneConfig, ours: BackboneConfig
) -> None:
    """Raises UserError where a model would compute otherwise than the file's backbone."""
    for name in ours.unshown:
        value = getattr(theirs, name, None)
        if value != getattr(ours, name):
            raise UserError(
                f'The backbone of {path} has {name}={value!r}: set "--config.model.{name}={value}".'
            )


def load_checkpoint(
    file: WeightFile,
    model: TMANet,
    *,
    classes: ClassSet | None = None,
    new_classifier_ok: bool = False,
) -> LoadReport:
    """Sets the whole model from a file of a whole network.

    Args:
        file: as it was read.
        model: changed in place.
        classes: what the model is to tell apart; names that the file has are compared with them.
        new_classifier_ok: leave the classifiers at their initial values if the file's are of other
            classes.

    Raises:
        UserError: the file is not of a network of the model's shape and scaling of scores, or tells
            other classes apart.
    """
    if not file.is_whole_model:
        raise UserError(
            f"{file.path} holds a backbone, not a whole network: set config.init.pretrained to it, "
            "not config.init.checkpoint."
        )
    notes = list(file.notes)
    shapes = expected_shapes(model.config)
    tensors = file.tensors
    ignored: tuple[str, ...] = ()
    classifiers = tuple(name for name in tensors if name.startswith(CLASSIFIERS))
    others = name_differences(file.classes, classes) if file.classes and classes else ""
    if others and not new_classifier_ok:
        raise other_classes(file.path, others)
    if others or (
        new_classifier_ok and any(tensors[name].shape != shapes.get(name) for name in classifiers)
    ):
        notes += [f"the file's classes are others: {others}"] if others else []
        ignored = classifiers
        tensors = {name: tensors[name] for name in tensors if name not in ignored}
        shapes = {name: shapes[name] for name in shapes if not name.startswith(CLASSIFIERS)}
    check_fit(file.path, tensors, shapes)
    network = network_of(file, assume_align_corners=model.config.align_corners)
    notes += [*network.notes, *_differences(file.path, network, model.config)]
    return _load(file.path, model, tensors, ignored, tuple(notes))


def other_classes(path: str | os.PathLike[str], differences: str) -> UserError:
    """The refusal to score a network on data of other classes."""
    return UserError(
        f"{path} tells other classes apart: {differences}. Choose the data that it was trained "
        "for, or say --config.init.classes=keep if these are other names for the same classes."
    )


def model_config_of(file: WeightFile, *, align_corners: bool | None = None) -> ModelConfig:
    """The configuration of the whole network in a file.

    Files written by this project carry it, and those of the original's training in its own words.
    Of others it is inferred from names and shapes, and what was assumed is logged.

    Args:
        file: as it was read.
        align_corners: how logits are up-sampled, whatever the file says.

    Raises:
        UserError: the file holds no whole network that this project can build, or leaves
            `align_corners` open.
    """
    return _whole(file.path, network_of(file, align_corners=align_corners))


class LoadedModel(NamedTuple):
    """A whole network, what it tells apart, and, if known, how it was scored and what left it."""

    model: TMANet
    classes: ClassSet
    protocol: Protocol | None
    origin: Origin | None


def load_model(
    path: str | os.PathLike[str],
    *,
    align_corners: bool | None = None,
    dtype: str | None = None,
    precision: MatmulPrecision = "default",
    attention: Attention = "auto",
) -> LoadedModel:
    """The whole network in a file.

    Files written by this project's training name their classes, and so do the original's. Of others
    they are the published ones of 19 (Cityscapes) and 12 classes (CamVid), and numbered ones
    elsewhere. What was converted or assumed is logged.

    Args:
        path: as `files.read` takes it.
        align_corners: how logits are up-sampled; None: as the file says.
        dtype: compute type, "float32" or "bfloat16"; None: the file's own.
        precision: of float32 products.
        attention: which way reads the memory.

    Raises:
        UserError: the file cannot be read, holds no whole network that this project can build, or
            weights that are not finite.
    """
    file = files.read(path)
    network = network_of(file, align_corners=align_corners)
    config = _whole(path, network)
    check_fit(path, file.tensors, expected_shapes(config))
    for note in file.notes:
        logging.getLogger(__name__).warning("%s: %s", path, note)
    config = dataclasses.replace(
        config, dtype=dtype or config.dtype, precision=precision, attention=attention
    )
    classes = file.classes or files.classes_of_number(config.head.num_classes)
    model = blank_model(config)
    nnx.update(model, with_tensors(nnx.state(model), file.tensors))
    return LoadedModel(model, classes, network.protocol, file.origin)


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
    files.write(path, WeightFile(tensors, model.config, classes, protocol, origin))


def _whole(path: str | os.PathLike[str], network: FoundNetwork) -> ModelConfig:
    """The configuration of a whole network; what was assumed of it is logged."""
    if not isinstance(network.config, ModelConfig):
        raise UserError(f"{path} holds a backbone, not a whole network.")
    for note in network.notes:
        logging.getLogger(__name__).warning("%s: %s", path, note)
    return network.config


def _differences(
    path: str | os.PathLike[str], network: FoundNetwork, config: ModelConfig
) -> list[str]:
    """What a model computes otherwise than the file's network, by fields that no tensor shows.

    Raises:
        UserError: its scores have another scale, and so its keys another meaning; or its backbone
            computes otherwise.
    """
    theirs = network.config
    assert isinstance(theirs, ModelConfig)
    notes = []
    if not network.assumed:
        _check_same_backbone(path, theirs.backbone, config.backbone)
        if theirs.backbone.stride != config.backbone.stride:
            notes.append(
                f"it was trained at stride {theirs.backbone.stride}, this run's is "
                f"{config.backbone.stride}"
            )
    scales, wanted = (getattr(head, SCALE_SCORES, None) for head in (theirs.head, config.head))
    if SCALE_SCORES not in network.assumed and scales != wanted:
        raise UserError(
            f"The network of {path} has scale_scores={scales}: set "
            f"--config.model.scale_scores={scales}."
        )
    near, wanted = (getattr(head, "neighbourhood", None) for head in (theirs.head, config.head))
    if near != wanted:
        notes.append(
            f"it was trained with neighbourhood={near}, this run has {wanted} "
            "(config.model.neighbourhood)"
        )
    if ALIGN_CORNERS not in network.assumed and theirs.align_corners != config.align_corners:
        notes.append(
            f"it was trained with align_corners={theirs.align_corners}, this run has "
            f"{config.align_corners} (config.model.align_corners)"
        )
    return notes


def _load(
    path: str | os.PathLike[str],
    model: TMANet,
    tensors: Tensors,
    ignored: tuple[str, ...],
    notes: tuple[str, ...],
) -> LoadReport:
    nnx.update(model, with_tensors(nnx.state(model), tensors))
    kept = tuple(name for name in expected_shapes(model.config) if name not in tensors)
    return LoadReport(str(path), tuple(tensors), kept, ignored, notes)


def _parts_of_network(names: tuple[str, ...]) -> list[str]:
    """The parts that the tensors belong to, each once, such as `decode_head.conv_seg`."""
    parts = []
    for name in names:
        layer, _, parameter = name.rpartition(".")
        is_count_alone = parameter == UPDATE_COUNT and f"{layer}.running_mean" not in names
        parts.append(UPDATE_COUNT if is_count_alone else ".".join(name.split(".")[:2]))
    return list(dict.fromkeys(parts))
