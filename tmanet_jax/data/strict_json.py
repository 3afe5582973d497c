"""Dataclasses out of JSON that anybody may have written.

Types come from the dataclass's annotations, ranges from its `__post_init__`, and a missing field
takes its default. Everything else is refused with one message that names the field.
"""

import dataclasses
import json
import math
import re
import reprlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tmanet_jax.errors import UserError

T = TypeVar("T")

_LARGEST_INT = 2**63 - 1


class _UnfitError(Exception):
    """A value that its field cannot have."""


def parse(text: str | bytes, where: str) -> Any:
    """What JSON says.

    Args:
        text: the JSON; bytes are UTF-8.
        where: what the message calls it.

    Raises:
        UserError: it is no JSON, or nested deeper than any description.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{where} is no description: its JSON is nested too deep.") from error
    except ValueError as error:
        raise UserError(f"{where} is damaged: it is no JSON ({error}).") from error


def decode(kind: type[T], values: object, where: str) -> T:
    """A dataclass out of parsed JSON; the inverse of `dataclasses.asdict` and `json`.

    Fields may be of bool, int, float, str, None, Literal, tuples, mappings with names or whole
    numbers as keys, other dataclasses, and unions of these. A missing field takes its default.
    Where the values hold a dataclass already, it stays.

    Args:
        kind: the dataclass.
        values: what `parse` returned.
        where: what the message calls it, such as the file and its part.

    Raises:
        UserError: a field is unknown, missing without a default, of another type, or has a value
            that the dataclass refuses with a ValueError or a UserError.
    """
    try:
        return _value(kind, values, "")
    except _UnfitError as error:
        raise UserError(
            f"{where}: {error}. It is damaged, or of another version of this project."
        ) from error


def _value(kind: Any, value: Any, field: str) -> Any:
    if isinstance(kind, type) and isinstance(value, kind) and dataclasses.is_dataclass(value):
        return value  # decoded before
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, field)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, field)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            raise _unfit(field, value, f"one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, field)
    if origin in (dict, Mapping):
        items = _mapping(value, field)
        return {
            _key(arguments[0], name, field): _value(arguments[1], item, _inside(field, name))
            for name, item in items.items()
        }
    return _scalar(kind, value, field)


def _union(kinds: tuple[Any, ...], value: Any, field: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    problems = []
    for kind in kinds:
        if kind is not types.NoneType:
            try:
                return _value(kind, value, field)
            except _UnfitError as error:
                problems.append(str(error))
    raise _UnfitError(", or ".join(problems))


def _dataclass(kind: Any, value: Any, field: str) -> Any:
    items = _mapping(value, field)
    hints = get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}
    unknown = [name for name in items if name not in known]
    if unknown:
        raise _UnfitError(
            f"{_inside(field, unknown[0])} is unknown; known are {', '.join(sorted(known))}"
        )
    for name, item in known.items():
        if name not in items and item.default is item.default_factory is dataclasses.MISSING:
            raise _UnfitError(f"{_inside(field, name)} is missing")
    decoded = {
        name: _value(hints[name], item, _inside(field, name)) for name, item in items.items()
    }
    try:
        return kind(**decoded)
    except (ValueError, UserError) as error:
        raise _UnfitError(f"{field}: {error}" if field else str(error)) from error


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _unfit(field, value, "an object with names and values")
    return value


def _key(kind: Any, name: Any, field: str) -> Any:
    """A key of a mapping: JSON writes whole numbers as text, in one way."""
    if kind is str:
        return _value(str, name, field)
    if not (isinstance(name, str) and re.fullmatch(r"0|-?[1-9][0-9]{0,18}", name)):
        raise _unfit(f"a name in {field}", name, _EXPECTED[int])
    return _scalar(int, int(name), f"a name in {field}")


def _tuple(kinds: tuple[Any, ...], value: Any, field: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _unfit(field, value, "a list")
    if kinds[-1] is Ellipsis and _all_are(kinds[0], value):
        return tuple(value)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise _unfit(field, value, f"a list of {len(kinds)}")
    return tuple(
        _value(kind, item, f"{field}[{index}]")
        for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _all_are(kind: Any, values: Sequence[Any]) -> bool:
    """Whether all are whole numbers or all are text, told without looking at each: of a long list.

    False is no answer.
    """
    if kind not in (int, str) or not set(map(type, values)) <= {kind}:
        return False
    if kind is str:
        return _is_text("".join(values))
    return max(map(abs, values), default=0) <= _LARGEST_INT


def _scalar(kind: Any, value: Any, field: str) -> Any:
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str) and _is_text(value):
        return value
    if kind in (int, float) and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) <= _LARGEST_INT:
            return kind(value)
    elif kind is float and isinstance(value, float) and math.isfinite(value):
        return value
    raise _unfit(field, value, _EXPECTED[kind])


_EXPECTED = {
    bool: "true or false",
    int: "a whole number of 64 bits",
    float: "a finite number",
    str: "text",
}


def _is_text(value: str) -> bool:
    """Whether it can be written anywhere: no NUL, no halves of surrogate pairs."""
    return re.search("[\0\ud800-\udfff]", value) is None


def _unfit(field: str, value: Any, expected: str) -> _UnfitError:
    return _UnfitError(f"{field or 'it'} is {reprlib.repr(value)}, not {expected}")


def _inside(field: str, name: Any) -> str:
    return f"{field}.{reprlib.repr(name)[1:-1]}" if field else reprlib.repr(name)[1:-1]
