"""The original's configuration: mmsegmentation's text, as its train.py stores it in checkpoints.

The text is parsed as literals and never run. What decides the network and no tensor shows is taken
where this project has it, and refused by name where it has not.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import CAMVID, CITYSCAPES, ClassSet, numbered_classes
from tmanet_jax.errors import UserError
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
    "type": Choice(None, ("ResNet", "ResNetV1c")),
    "num_stages": Choice(4, (4,)),
    "strides": Choice((1, 2, 2, 2), ((1, 2, 1, 1),)),
    "dilations": Choice((1, 1, 1, 1), ((1, 1, 2, 4),)),
    "contract_dilation": Choice(False, (True,)),
    "out_indices": Choice((0, 1, 2, 3), ((0, 1, 2, 3),)),
    "style": Choice("pytorch", ("pytorch",)),
    "multi_grid": Choice(None, (None,)),
    "avg_down": Choice(False, (False,)),
    "conv_cfg": Choice(None, (None,)),
    "dcn": Choice(None, (None,)),
    "plugins": Choice(None, (None,)),
}
_BACKBONE_ELSEWHERE = """
    depth in_channels stem_channels base_channels deep_stem frozen_stages norm_cfg norm_eval with_cp
    zero_init_residual pretrained init_cfg
"""
"""Fields that the tensors show, or that are of training alone."""

_HEAD = {
    "type": Choice(None, ("TMAHead",)),
    "in_index": Choice(-1, (3, -1)),
    "input_transform": Choice(None, (None,)),
    "conv_cfg": Choice(None, (None,)),
    "act_cfg": Choice({"type": "ReLU"}, ({"type": "ReLU"},)),
    "align_corners": Choice(False, (False, True)),
    "matmul_norm": Choice(False, (False, True)),
}
_HEAD_ELSEWHERE = """
    in_channels channels sequence_num key_channels value_channels num_classes dropout_ratio norm_cfg
    loss_decode sampler ignore_index low_in_index init_cfg
"""
_MODEL = {
    "type": Choice("EncoderDecoder", ("EncoderDecoder",)),
    "neck": Choice(None, (None,)),
}


class OriginalNetwork(NamedTuple):
    """What a configuration says of a network that its tensors do not.

    Attributes:
        align_corners: of the logits' up-sampling.
        scale_scores: the original's `matmul_norm`.
        sizes: what it says of what the tensors show, by the names of `TMAHeadConfig`.
        protocol: how its `test_cfg` segments frames.
    """

    align_corners: bool
    scale_scores: bool
    sizes: dict[str, Any]
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
    model = _part(config, "model")
    return [
        *_problems(_part(model, "backbone"), _BACKBONE, _BACKBONE_ELSEWHERE, "backbone"),
        *_normalisation_problems(config),
    ]


def network_problems(config: Fields) -> list[str]:
    """What the whole network has that this project's has not, one line each."""
    model = _part(config, "model")
    head = _part(model, "decode_head")
    return [
        *_unsupported(model, _MODEL, "model"),
        *backbone_problems(config),
        *_problems(head, _HEAD, _HEAD_ELSEWHERE, "decode_head"),
    ]


def network_of(config: Fields) -> OriginalNetwork:
    """What the configuration says; call `network_problems` before.

    Raises:
        UserError: its `test_cfg` is none.
    """
    model = _part(config, "model")
    head = _part(model, "decode_head")
    names = {"sequence_num": "num_memory"}
    shown = ("num_classes", "sequence_num", "key_channels", "value_channels", "channels")
    return OriginalNetwork(
        align_corners=head.get("align_corners", False),
        scale_scores=head.get("matmul_norm", False),
        sizes={names.get(field, field): head[field] for field in shown if field in head},
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
