"""The original's configuration: mmsegmentation's text, as its train.py stores it in checkpoints.

The text is parsed as literals and never run. What decides the network and no tensor shows is taken
where this project has it, and refused by name where it has not.
"""

import ast
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import CAMVID, CITYSCAPES, ClassSet, numbered_classes
from tmanet_jax.errors import UserError
from tmanet_jax.fields import Field, declared_fields
from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.backbones import BACKBONES
from tmanet_jax.models.heads import HEADS
from tmanet_jax.models.normalize import MEAN_RGB, STD_RGB
from tmanet_jax.protocol import Protocol

Fields = Mapping[str, Any]


class Unknown(NamedTuple):
    """An expression that is no literal, such as `range(0, 1)`; equal to no value."""

    source: str

    def __repr__(self) -> str:
        return self.source


class Choice(NamedTuple):
    """A field of the framework: what it is where it is not set, and what this project has."""

    default: Any
    supported: tuple[Any, ...]


_MISSPELT = {"sing_symbol": "sign_symbol"}
"""A class of CamVid, as the original writes it."""

_BATCH_NORM = Choice("BN", ("BN", "SyncBN"))
_BACKBONE = {
    "num_stages": Choice(4, (4,)),
    "act_cfg": Choice({"type": "ReLU6"}, ({"type": "ReLU6"},)),
    "conv_cfg": Choice(None, (None,)),
    "dcn": Choice(None, (None,)),
    "plugins": Choice(None, (None,)),
}
_BACKBONE_ELSEWHERE = """
    in_channels base_channels frozen_stages norm_cfg norm_eval with_cp zero_init_residual pretrained
    init_cfg
"""
"""Fields that the tensors show, or that are of training alone."""

_HEAD = {
    "type": Choice(None, tuple(kind.mmseg for kind in HEADS.values() if kind.mmseg)),
    "input_transform": Choice(None, (None, "resize_concat")),
    "conv_cfg": Choice(None, (None,)),
    "act_cfg": Choice({"type": "ReLU"}, ({"type": "ReLU"},)),
    "align_corners": Choice(False, (False, True)),
}
_LAST_STAGE = {
    "in_index": Choice(-1, (3, -1)),
    "input_transform": Choice(None, (None,)),
}
"""Of heads that read no other."""
_HEAD_ELSEWHERE = """
    in_channels norm_cfg loss_decode sampler ignore_index low_in_index init_cfg
"""
_RENAMED = {
    "num_memory": "sequence_num",
    "scale_scores": "matmul_norm",
    "dropout": "dropout_ratio",
    "stages": "in_index",
}
"""Fields of heads that the framework calls otherwise; the others have its names."""
_MODEL = {
    "type": Choice("EncoderDecoder", ("EncoderDecoder",)),
    "neck": Choice(None, (None,)),
}


class OriginalNetwork(NamedTuple):
    """What a configuration says of a network that its tensors do not.

    Attributes:
        align_corners: of the logits' up-sampling.
        head: what it says of the head, its `type` and fields by this project's names.
        aux: the same of the auxiliary head.
        protocol: how its `test_cfg` segments frames.
    """

    align_corners: bool
    head: dict[str, Any]
    aux: dict[str, Any]
    protocol: Protocol


def parse(text: object) -> Fields:
    """The assignments of a configuration; expressions that are no literals become `Unknown`.

    Raises:
        UserError: it is no text in Python, or sets no `model`.
    """
    values: dict[str, Any] = {}
    try:
        if not isinstance(text, str):
            raise ValueError(f"a {type(text).__name__}")
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                values[statement.targets[0].id] = _value(statement.value, values)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"its meta['config'] is no configuration in Python ({error})") from error
    if not isinstance(values.get("model"), Mapping):
        raise UserError("its meta['config'] sets no model")
    return values


def classes_of(meta: Mapping[Any, Any]) -> ClassSet | None:
    """CLASSES and PALETTE of a checkpoint's meta; None if they name no classes."""
    names, palette = meta.get("CLASSES"), meta.get("PALETTE")
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        return None
    names = tuple(_MISSPELT.get(name, name) for name in names)
    published = next((known for known in (CITYSCAPES, CAMVID) if known.names == names), None)
    try:
        if palette is None:
            palette = (published or numbered_classes(len(names))).palette_Cx3
        palette_Cx3 = tuple((int(red), int(green), int(blue)) for red, green, blue in palette)
        return ClassSet(published.name if published else "original", names, palette_Cx3)
    except (TypeError, ValueError):
        return None


def backbone_problems(config: Fields) -> list[str]:
    """What the backbone has that this project's has not, one line each."""
    fields = _part(_part(config, "model"), "backbone")
    kinds = [kind for kind in BACKBONES.values() if fields.get("type") in kind.mmseg]
    if not kinds:
        types = tuple(name for kind in BACKBONES.values() for name in kind.mmseg)
        problems = _unsupported(fields, {"type": Choice(None, types)}, "backbone")
    else:
        (kind,) = kinds
        items = {item.attribute: item for item in declared_fields(kind())}
        indices = Choice(kind.out_indices, (kind.out_indices,))
        choices = {**_BACKBONE, "out_indices": indices}
        known = " ".join([_BACKBONE_ELSEWHERE, "type", *items])
        problems = [
            *_problems(fields, choices, known, "backbone"),
            *_unfit(fields, {name: items[name] for name in kind.unshown}, fields, "backbone"),
        ]
    return [*problems, *_normalisation_problems(config)]


def said_of_backbone(config: Fields, shown: BackboneConfig) -> dict[str, Any]:
    """What is said of a backbone: its fields that no tensor shows, and others that it names.

    Raises:
        UserError: it is said to be of another type than its tensors.
    """
    fields = _part(_part(config, "model"), "backbone")
    if fields["type"] not in shown.mmseg:
        raise UserError(
            "its configuration is of another network than its tensors: backbone.type="
            f"{fields['type']!r} instead of {' or '.join(map(repr, shown.mmseg))}."
        )
    of_both = dataclasses.asdict(shown).keys() & fields.keys()
    said = {name: fields[name] for name in of_both if name not in _OF_BACKBONES_TRAINING}
    return {**shown.unshown, **said}


_OF_BACKBONES_TRAINING = ("stem_channels", "frozen_stages", "norm_eval")
"""Fields of backbones that training alone needs, or that the framework has a default for."""


def network_problems(config: Fields) -> list[str]:
    """What the whole network has that this project's has not, one line each."""
    model = _part(config, "model")
    heads = [name for name in ("decode_head", "auxiliary_head") if name in model]
    return [
        *_unsupported(model, _MODEL, "model"),
        *backbone_problems(config),
        *(line for name in heads or ["decode_head"] for line in head_problems(model, name)),
    ]


def head_problems(model: Fields, name: str) -> list[str]:
    """What a head has that this project's has not, one line each."""
    fields = _part(model, name)
    kind = next((kind for kind in HEADS.values() if kind.mmseg == fields.get("type")), None)
    if kind is None:
        return _problems(fields, _HEAD, " ".join(fields), name)
    items = {_RENAMED.get(item.attribute, item.attribute): item for item in declared_fields(kind())}
    choices = _HEAD if "in_index" in items else {**_HEAD, **_LAST_STAGE}
    said = said_of_head(fields)
    return [
        *_problems(fields, choices, " ".join([_HEAD_ELSEWHERE, *items]), name),
        *_unfit(fields, items, said, name),
    ]


def _unfit(
    fields: Fields, items: Mapping[str, Field], said: Mapping[str, Any], part: str
) -> list[str]:
    """Fields whose values, as this project has them, cannot be."""
    return [
        f"{part}.{theirs}={fields[theirs]!r} (supported: {item.expected()})"
        for theirs, item in items.items()
        if theirs in fields and not item.fits(said[item.attribute])
    ]


def said_of_head(fields: Fields) -> dict[str, Any]:
    """What is said of a head: its `type` and fields by this project's names."""
    ours = {theirs: name for name, theirs in _RENAMED.items()}
    said = {ours.get(name, name): value for name, value in fields.items()}
    if "stages" in said:
        indices = said["stages"] if isinstance(said["stages"], tuple | list) else (said["stages"],)
        is_whole = all(isinstance(index, int) for index in indices)
        said["stages"] = tuple(index % 4 + 1 for index in indices) if is_whole else ()
    return said


def network_of(config: Fields) -> OriginalNetwork:
    """What the configuration says; call `network_problems` before.

    Raises:
        UserError: its `test_cfg` is none.
    """
    model = _part(config, "model")
    head = _part(model, "decode_head")
    return OriginalNetwork(
        align_corners=head.get("align_corners", False),
        head=said_of_head(head),
        aux=said_of_head(_part(model, "auxiliary_head")),
        protocol=_protocol(config, model),
    )


def _value(node: ast.expr, names: Fields) -> Any:
    """A literal, `dict(...)`, or a name that was assigned before."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Tuple() | ast.List():
            return tuple(_value(item, names) for item in node.elts)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name() if node.id in names:
            return names[node.id]
        case ast.Dict():
            keys = [None if key is None else _value(key, names) for key in node.keys]
            return _joined(zip(keys, node.values, strict=True), node, names)
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return _joined(((word.arg, word.value) for word in node.keywords), node, names)
    return Unknown(ast.unparse(node)[:80])


def _joined(items: Iterator[tuple[Any, ast.expr]], node: ast.expr, names: Fields) -> Any:
    """A dictionary; an item without a key is one whose items are taken over."""
    joined: dict[Any, Any] = {}
    for key, item in items:
        value = _value(item, names)
        if key is not None:
            joined[key] = value
        elif isinstance(value, Mapping):
            joined |= value
        else:
            return Unknown(ast.unparse(node)[:80])
    return joined


def _part(fields: Fields, name: str) -> Fields:
    part = fields.get(name)
    return part if isinstance(part, Mapping) else {}


def _problems(
    fields: Fields, choices: Mapping[str, Choice], elsewhere: str, part: str
) -> list[str]:
    known = {*choices, *elsewhere.split()}
    unknown = [f"{part}.{name}={value!r}" for name, value in fields.items() if name not in known]
    norm = _part(fields, "norm_cfg")
    norm_problems = _unsupported(norm, {"type": _BATCH_NORM}, f"{part}.norm_cfg")
    if norm.get("eps", 1e-5) != 1e-5:
        norm_problems.append(f"{part}.norm_cfg.eps={norm['eps']!r} (supported: 1e-05)")
    return [*_unsupported(fields, choices, part), *norm_problems, *unknown]


def _unsupported(fields: Fields, choices: Mapping[str, Choice], part: str) -> list[str]:
    return [
        f"{part}.{name}={value!r} (supported: {' or '.join(map(repr, choice.supported))})"
        for name, choice in choices.items()
        if (value := fields.get(name, choice.default)) not in choice.supported
        or type(value) not in {type(one) for one in choice.supported}
    ]


def _normalisation_problems(config: Fields) -> list[str]:
    """Pixels enter every network here in RGB, with ImageNet's mean and deviation."""
    found = [part for part in _dictionaries(config) if part.get("type") == "Normalize"]
    found += [_part(_part(config, "model"), "data_preprocessor")]
    problems = []
    for part in found:
        for name, ours in (("mean", MEAN_RGB), ("std", STD_RGB)):
            theirs = part.get(name)
            if theirs is not None and not _is_close(theirs, ours):
                problems.append(f"Normalize.{name}={theirs!r} (supported: {ours.tolist()})")
        if not part.get("to_rgb", part.get("bgr_to_rgb", True)):
            problems.append("Normalize.to_rgb=False (supported: True)")
    return list(dict.fromkeys(problems))


def _dictionaries(value: Any) -> Iterator[Fields]:
    if isinstance(value, Mapping):
        yield value
        value = tuple(value.values())
    if isinstance(value, tuple):
        for item in value:
            yield from _dictionaries(item)


def _is_close(values: Any, expected: np.ndarray) -> bool:
    numbers = isinstance(values, tuple) and all(isinstance(x, int | float) for x in values)
    return numbers and len(values) == len(expected) and np.allclose(values, expected, rtol=1e-4)


def _protocol(config: Fields, model: Fields) -> Protocol:
    test = _part(model, "test_cfg") or _part(config, "test_cfg")
    fields = {name: test[name] for name in ("mode", "crop_size", "stride") if name in test}
    heights = [
        scale[1]
        for part in _dictionaries(_part(config, "data"))
        if isinstance(scale := part.get("img_scale"), tuple) and len(scale) == 2
    ]
    if heights and isinstance(heights[0], int):
        fields["train_height"] = heights[0]
    return strict_json.decode(Protocol, fields, "test_cfg of its configuration")
