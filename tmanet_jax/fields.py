"""Fields of settings: each is declared once, beside the code that uses it.

    @dataclasses.dataclass(frozen=True)
    class MeshConfig(Checked):
        space: int = field(1, "devices that share each image, by rows", low=1)

The declaration is all there is: the check of a value, the name on the command line, and what
`run.py config` prints of the field are made of it.
"""

import dataclasses
import difflib
import functools
import math
import reprlib
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from tmanet_jax.errors import UserError

PUBLISHED = "the original's Cityscapes configuration"
"""Source of a value: `configs/video/cityscapes/tmanet_r50-d8_769x769_80k_cityscapes_video.py`."""

_MOST = 2**31 - 1
"""Of whole numbers: counts of steps have 32 bits."""
MOST_AT_ONCE = 2**16
"""Clips, windows or devices; a mistyped number ends here instead of filling the memory."""
_DECLARED = "declared"
_NUMBERS = {2: "two", 4: "four", 7: "seven"}


@dataclasses.dataclass(frozen=True)
class Declared:
    """What a declaration says besides name, type and default.

    Attributes:
        meaning: for people, without a capital.
        unit: of the number or numbers.
        source: of the default, if it is a published one.
        low: the least number, of each where there are several.
        high: the greatest one; of whole numbers 2**31 - 1 if it is not said.
        above: a bound that is no such number itself.
        below: another.
        choices: all that the value can be, or each of several; a function where users add some.
        name: in a configuration, if it is another than the attribute's.
        is_part: the field is itself a dataclass of such fields.
        is_flat: those stand beside this one's neighbours in a configuration.
        kinds: the dataclasses that a part can be of, by the names that its field in a
            configuration chooses from.
        prefix: of a flat part: in a configuration its fields are called so, then as here.
        but: of such a part: fields that are in no configuration.
    """

    meaning: str = ""
    unit: str = ""
    source: str = ""
    low: float = -math.inf
    high: float | None = None
    above: float = -math.inf
    below: float = math.inf
    choices: Collection[Any] | Callable[[], Collection[Any]] = ()
    name: str = ""
    is_part: bool = False
    is_flat: bool = False
    kinds: Mapping[str, type] = dataclasses.field(default_factory=dict)
    prefix: str = ""
    but: Collection[str] = ()

    @property
    def all_choices(self) -> tuple[Any, ...]:
        """As they are now."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    def allows(self, number: float, kind: type) -> bool:
        """Whether a number lies within the bounds."""
        return (
            abs(number) < math.inf  # a nan is not
            and self.low <= number <= self._high(kind)
            and self.above < number < self.below
        )

    def bounds(self, kind: type) -> str:
        """In words, with a blank before them."""
        low, high = self.low, self._high(kind)
        words = [f"from {low:.12g} to {high:.12g}"] if low > -math.inf and high < math.inf else []
        if low > -math.inf and high == math.inf:
            words.append(f"of at least {low:.12g}")
        words += [f"above {self.above:.12g}"] if self.above > -math.inf else []
        words += [f"below {self.below:.12g}"] if self.below < math.inf else []
        return "".join(f" {word}" for word in words)

    def _high(self, kind: type) -> float:
        if self.high is not None:
            return self.high
        return _MOST if kind is int else math.inf


def field(default: Any, meaning: str, **declared: Any) -> Any:
    """A field of settings.

    Args:
        default: its value if nobody says another.
        meaning: for people.
        **declared: what else there is to say, see `Declared`.
    """
    metadata = {_DECLARED: Declared(meaning, **declared)}
    return dataclasses.field(default=default, metadata=metadata)


def part(default: Any, meaning: str = "", *, flat: bool = False, **declared: Any) -> Any:
    """A field that is itself a frozen dataclass of such fields.

    Args:
        default: one of it.
        meaning: for people, of the choice between kinds.
        flat: its fields stand beside this one's neighbours in a configuration, not in a group.
        **declared: what else there is to say, see `Declared`.
    """
    metadata = {_DECLARED: Declared(meaning, is_part=True, is_flat=flat, **declared)}
    return dataclasses.field(default=default, metadata=metadata)


def named_factors(texts: Sequence[str], name: str) -> dict[str, float]:
    """The factors of a field such as ("dice=0.5", "lovasz=1"), by the names before them.

    Raises:
        UserError: a text is no such pair, beginning with the name of the field.
    """
    factors = {}
    for text in texts:
        key, _, factor = text.rpartition("=")
        try:
            factors[key] = float(factor)
        except ValueError:
            factors[key] = math.nan
        if not (key and 0 <= factors[key] < math.inf):
            raise UserError(f"{name} must be NAME=FACTOR each, FACTOR from 0, not {text!r}.")
    return factors


class Checked:
    """Of a frozen dataclass: its declared fields are checked when it is made.

    Raises:
        UserError: one has a value that it cannot have; the message begins with its name.
    """

    def __post_init__(self) -> None:
        for item in declared_fields(self):
            item.check(getattr(self, item.attribute), item.name)


class Field(NamedTuple):
    """A declared field of a dataclass."""

    attribute: str
    name: str
    """In a configuration."""
    annotation: Any
    declared: Declared

    def expected(self) -> str:
        """What it can be, in words."""
        unit = f" ({self.declared.unit})" if self.declared.unit else ""
        return f"{_words(self.annotation, self.declared)}{unit}"

    def fits(self, value: object) -> bool:
        """Whether it can have the value."""
        return _fits(self.annotation, value, self.declared)

    def check(self, value: object, name: str) -> None:
        """Raises UserError, beginning with the name, if it cannot have the value."""
        if not self.fits(value):
            raise UserError(f"{name} must be {self.expected()}, not {reprlib.repr(value)}.")


class Leaf(NamedTuple):
    """A field of a dataclass, or of its parts."""

    path: str
    """On the command line, behind `--config.`"""
    value: Any
    field: Field
    attributes: tuple[str, ...]
    """From the dataclass through its parts to the value; none of the choice of a part's kind."""


def declared_fields(settings: object) -> tuple[Field, ...]:
    """Of a dataclass; fields that nobody declared are no settings."""
    kind: type = type(settings)
    return _declared_fields(kind)


@functools.cache
def _declared_fields(kind: type) -> tuple[Field, ...]:
    hints = get_type_hints(kind)
    assert dataclasses.is_dataclass(kind)
    return tuple(
        Field(item.name, declared.name or item.name, hints[item.name], declared)
        for item in dataclasses.fields(kind)
        if (declared := item.metadata.get(_DECLARED)) is not None
    )


def leaves(settings: object) -> list[Leaf]:
    """All fields of a dataclass and of its parts, in their order."""
    found = []
    for item in declared_fields(settings):
        value = getattr(settings, item.attribute)
        declared = item.declared
        if not declared.is_part:
            found.append(Leaf(item.name, value, item, (item.attribute,)))
            continue
        if declared.kinds:
            found.append(Leaf(item.name, _kind_name(value, item), _choice(item), ()))
        group = "" if declared.is_flat else f"{item.name}."
        for leaf in leaves(value):
            name = leaf.field.attribute
            if name in declared.but:
                continue
            path = group + (declared.prefix + name if declared.prefix else leaf.path)
            attributes = leaf.attributes and (item.attribute, *leaf.attributes)
            found.append(leaf._replace(path=path, attributes=attributes))
    return found


def with_kinds(settings: Any, kinds: Mapping[str, object], where: str = "") -> Any:
    """A dataclass whose parts are of these kinds; what a part's default says besides stays.

    Args:
        settings: the dataclass, a default one.
        kinds: names of kinds by their paths; other entries are left alone.
        where: the path of the dataclass itself, with a dot behind it.

    Raises:
        UserError: there is no such kind; the message begins with the path.
    """
    parts = {}
    for item in declared_fields(settings):
        if item.declared.is_part:
            path, value = where + item.name, getattr(settings, item.attribute)
            if item.declared.kinds and path in kinds:
                value = _part_of_kind(value, kinds[path], item, path)
            parts[item.attribute] = with_kinds(
                value, kinds, where if item.declared.is_flat else f"{path}."
            )
    return dataclasses.replace(settings, **parts)


def _part_of_kind(value: Any, name: object, item: Field, path: str) -> Any:
    kinds = item.declared.kinds
    if name == _kind_name(value, item):
        return value
    if not isinstance(name, str) or name not in kinds:
        near = difflib.get_close_matches(str(name), kinds, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{path} must be {_choice(item).expected()}, not {name!r}.{hint}")
    new, usual = kinds[name], type(value)()
    said = {
        each.attribute: now
        for each in declared_fields(value)
        if (now := getattr(value, each.attribute)) != getattr(usual, each.attribute)
    }
    both = {each.attribute for each in _declared_fields(new)} & said.keys()
    return new(**{name: said[name] for name in both})


def _kind_name(value: object, item: Field) -> str:
    names = [name for name, kind in item.declared.kinds.items() if type(value) is kind]
    return names[0] if names else type(value).__name__


def _choice(item: Field) -> Field:
    """Of the kind of a part."""
    declared = dataclasses.replace(item.declared, choices=item.declared.kinds)
    return item._replace(annotation=str, declared=declared)


def _fits(kind: Any, value: Any, declared: Declared) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(argument, value, declared) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1:] == (...,) else arguments
        return len(value) == len(kinds) and all(
            _fits(*of_each, declared) for of_each in zip(kinds, value, strict=True)
        )
    if not isinstance(value, (int, float) if kind is float else kind):
        return False
    if kind in (int, float):
        return (
            not isinstance(value, bool)
            and declared.allows(value, kind)
            and _is_chosen(value, declared)
        )
    return value is None or _is_chosen(value, declared)


def _is_chosen(value: object, declared: Declared) -> bool:
    return not declared.all_choices or value in declared.all_choices


def _words(kind: Any, declared: Declared) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(argument, declared) for argument in arguments)
    if kind is types.NoneType:
        return "None"
    if origin is tuple:
        return _several(arguments, declared)
    choices = arguments or declared.all_choices
    if choices:
        return f"one of {', '.join(map(repr, choices))}"
    if kind in (int, float):
        return f"a {_NOUNS[kind]}{declared.bounds(kind)}"
    return {bool: "True or False", str: "text"}[kind]


_NOUNS = {int: "whole number", float: "number", str: "name"}


def _several(kinds: tuple[Any, ...], declared: Declared) -> str:
    if not kinds:
        return "()"
    count = f"{_NUMBERS[len(kinds)]} " if kinds[-1] is not Ellipsis else ""
    bounds = declared.bounds(kinds[0])
    among = f" among {', '.join(map(repr, declared.all_choices))}" if declared.all_choices else ""
    return f"{count}{_NOUNS[kinds[0]]}s{bounds}{among}"
