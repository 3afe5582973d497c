"""What a file of weights holds, and how it says of its tensors what they are.

Beside the tensors stand the configuration of the network, its classes, how it was scored and where
it comes from as JSON: under `tmanet_jax`, `tmanet_jax_classes`, `tmanet_jax_protocol` and
`tmanet_jax_origin` in the header of a safetensors file, and in the `meta` of a `.pth`.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError
from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.backbones import BACKBONES
from tmanet_jax.models.heads import HEADS
from tmanet_jax.models.tmanet import (
    OF_COMPUTATION,
    ModelConfig,
    kind_and_fields,
    with_aux_of_its_own,
)
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weights import original_config
from tmanet_jax.weights.names import Tensors

_CONFIG_KEY = "tmanet_jax"
_CLASSES_KEY = "tmanet_jax_classes"
_PROTOCOL_KEY = "tmanet_jax_protocol"
_ORIGIN_KEY = "tmanet_jax_origin"

OLD_BACKBONE, OLD_HEAD, OLD_AUX_HEAD = "resnet", "tma", "fcn"
"""The kinds of files that say none: there were no others."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        tensors: by the original's names, in its layouts; those of a whole network, or those of a
            backbone alone, which then lack the prefix `backbone.`.
        config: of the whole network or of the backbone; None if the file does not say.
        classes: what the network tells apart; None if the file does not say.
        protocol: how the network was scored; None if the file does not say.
        origin: the training that left the tensors; None if the file does not say.
        assumed: fields of `config` that nobody stated.
        original: the original's configuration in a file of its own training.
        notes: what was converted or left out in reading, to be told.
        path: where it was read, for messages.
    """

    tensors: Tensors
    config: ModelConfig | BackboneConfig | None = None
    classes: ClassSet | None = None
    protocol: Protocol | None = None
    origin: Origin | None = None
    assumed: tuple[str, ...] = ()
    original: original_config.Fields | None = None
    notes: tuple[str, ...] = ()
    path: str = ""

    @property
    def is_whole_model(self) -> bool:
        """Whether the tensors are those of a whole network."""
        return any(name.startswith("backbone.") for name in self.tensors)


@dataclasses.dataclass(frozen=True)
class _Network:
    """What a file says of its network: the one or the other, and which fields are a guess."""

    model: ModelConfig | None = None
    backbone: BackboneConfig | None = None
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.model is None) == (self.backbone is None):
            raise ValueError("a whole model or a backbone alone is described")


def description_of(file: WeightFile) -> dict[str, str]:
    """What a file says of its tensors."""
    description = {}
    if file.config is not None:
        description[_CONFIG_KEY] = json.dumps(_network_description(file.config, file.assumed))
    for key, part_of_file in (
        (_CLASSES_KEY, file.classes),
        (_PROTOCOL_KEY, file.protocol),
        (_ORIGIN_KEY, file.origin),
    ):
        if part_of_file is not None:
            description[key] = json.dumps(dataclasses.asdict(part_of_file))
    return description


def _network_description(
    config: ModelConfig | BackboneConfig, assumed: tuple[str, ...]
) -> dict[str, object]:
    """The network, without how it was computed; but the compute type is what loading it takes."""
    if not isinstance(config, ModelConfig):
        return {"backbone": kind_and_fields(config)}
    fields = config.fields()
    for name in OF_COMPUTATION:
        if name != "dtype":
            del fields[name]
    return {"model": fields, **({"assumed": assumed} if assumed else {})}


def described(
    tensors: Tensors, description: Mapping[Any, Any], where: str, notes: tuple[str, ...] = ()
) -> WeightFile:
    """The inverse of `description_of`.

    Args:
        tensors: the file's.
        description: what the file says of them; entries of others are left alone.
        where: the file, for messages.
        notes: of how it was read.

    Raises:
        UserError: an entry is damaged or of another version.
    """
    network = _network(description, where)
    return WeightFile(
        tensors,
        (network.model or network.backbone) if network else None,
        decode_entry(description, _CLASSES_KEY, ClassSet, where),
        decode_entry(description, _PROTOCOL_KEY, Protocol, where),
        decode_entry(description, _ORIGIN_KEY, Origin, where),
        network.assumed if network else (),
        notes=notes,
        path=where,
    )


def decode_entry(description: Mapping[Any, Any], key: str, kind: type[T], where: str) -> T | None:
    """One entry of a file's description; None if it has none.

    Raises:
        UserError: it is damaged or of another version.
    """
    values = _parsed(description, key, where)
    return None if values is _ABSENT else strict_json.decode(kind, values, _place(key, where))


def _network(description: Mapping[Any, Any], where: str) -> _Network | None:
    values = _parsed(description, _CONFIG_KEY, where)
    if values is _ABSENT:
        return None
    place = _place(_CONFIG_KEY, where)
    decoders = {"model": decode_model, "backbone": decode_backbone}
    if isinstance(values, Mapping):
        parts = {
            name: decode(values[name], place) for name, decode in decoders.items() if name in values
        }
        values = {**values, **parts}
    return strict_json.decode(_Network, values, place)


_ABSENT = object()


def _parsed(description: Mapping[Any, Any], key: str, where: str) -> Any:
    text = description.get(key)
    if text is None:
        return _ABSENT
    return _without_ignored(strict_json.parse(str(text), _place(key, where)))


def _place(key: str, where: str) -> str:
    return f"{where}, {key} of its header"


def _without_ignored(description: Any) -> Any:
    """Older files say of classes that 255 is ignored."""
    match description:
        case {"names": names, "ignore": 255, **classes}:
            return {"names": names, **classes}
    return description


def _with_attention_of_its_own(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Older files and checkpoints say in the head how the memory is read."""
    match values:
        case {"head": {"attention": attention, **head}, **model} if "attention" not in model:
            return {**model, "head": head, "attention": attention}
    return values


def decode_model(values: object, where: str) -> ModelConfig:
    """The inverse of `ModelConfig.fields`.

    Args:
        values: parsed JSON; a missing field takes its default.
        where: what the message calls it.

    Raises:
        UserError: a field is unknown or has a value that it cannot have.
    """
    if isinstance(values, Mapping):
        values = with_aux_of_its_own(_with_attention_of_its_own(values))
        parts = {
            "backbone": decode_backbone(values.get("backbone", {}), f"{where}, backbone"),
            "head": _decode_kind(HEADS, OLD_HEAD, values.get("head", {}), f"{where}, head"),
        }
        if "aux" in values:
            said = values["aux"]
            parts["aux"] = _decode_kind(HEADS, OLD_AUX_HEAD, said, f"{where}, auxiliary head")
        values = {**values, **parts}
    return strict_json.decode(ModelConfig, values, where)


def decode_backbone(values: object, where: str) -> BackboneConfig:
    """The inverse of `kind_and_fields`; arguments and errors as above."""
    return _decode_kind(BACKBONES, OLD_BACKBONE, values, where)


def _decode_kind(kinds: Mapping[str, type[T]], old: str, values: object, where: str) -> T:
    fields: dict[str, Any] | object = values
    kind: object = old
    if isinstance(values, Mapping):
        fields = dict(values)
        kind = fields.pop("kind", old)
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(
            f"{where}: its kind is {kind!r}, known are {', '.join(kinds)}. It is of another "
            "version of this project, or of a program that adds kinds of its own: import it first."
        )
    return strict_json.decode(kinds[kind], fields, where)
