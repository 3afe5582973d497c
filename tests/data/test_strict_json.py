"""Dataclasses out of JSON that anybody may have written."""

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Literal

import pytest

from tmanet_jax.data import strict_json
from tmanet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Lens:
    """A part with a range of its own."""

    focal_length: float
    name: str = "unknown"

    def __post_init__(self) -> None:
        if not 0 < self.focal_length < 1000:
            raise ValueError(f"focal_length is above 0 and below 1000, not {self.focal_length}")


@dataclasses.dataclass(frozen=True)
class Camera:
    """Every kind of field."""

    size: tuple[int, int]
    lens: Lens
    mode: Literal["slow", "fast"] = "slow"
    is_on: bool = True
    rates: tuple[float, ...] = ()
    spare: Lens | None = None
    zoom: float | tuple[int, int] | None = None
    lenses: Mapping[str, Lens] = dataclasses.field(default_factory=dict)
    scratches: Mapping[int, str] = dataclasses.field(default_factory=dict)


CAMERA = Camera(
    (3, 4),
    Lens(50.0, "Größe"),
    "fast",
    False,
    (1.0, 2.5),
    Lens(2.0),
    (2, 3),
    {"a": Lens(1.0)},
    {-3: "left"},
)
SMALLEST = {"size": [3, 4], "lens": {"focal_length": 50}}


def decode(values: object) -> Camera:
    return strict_json.decode(Camera, values, "camera.json")


def test_what_was_written_comes_back() -> None:
    text = json.dumps(dataclasses.asdict(CAMERA))
    assert decode(strict_json.parse(text, "camera.json")) == CAMERA


def test_a_missing_field_takes_its_default_and_a_whole_number_is_a_number() -> None:
    assert decode(SMALLEST) == Camera((3, 4), Lens(50.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "it is [], not an object"),
        ({"lens": {"focal_length": 50}}, "size is missing"),
        (SMALLEST | {"tentacles": 8}, "tentacles is unknown; known are is_on, lens"),
        (SMALLEST | {"size": [3, 4, 5]}, "size is [3, 4, 5], not a list of 2"),
        (SMALLEST | {"size": {"0": 3}}, "size is {'0': 3}, not a list"),
        (SMALLEST | {"size": [3, "4"]}, "size[1] is '4', not a whole number"),
        (SMALLEST | {"size": [3, True]}, "size[1] is True, not a whole number"),
        (SMALLEST | {"size": [3, 4.0]}, "size[1] is 4.0, not a whole number"),
        (SMALLEST | {"size": [3, 10**30]}, "size[1] is 1000"),
        (SMALLEST | {"size": [3, None]}, "size[1] is None, not a whole number"),
        (SMALLEST | {"is_on": 1}, "is_on is 1, not true or false"),
        (SMALLEST | {"mode": "warp"}, "mode is 'warp', not one of 'slow', 'fast'"),
        (SMALLEST | {"rates": [float("nan")]}, "rates[0] is nan, not a finite number"),
        (SMALLEST | {"zoom": "2"}, "zoom is '2', not a finite number, or zoom is '2', not a list"),
        (SMALLEST | {"lens": 7}, "lens is 7, not an object"),
        (SMALLEST | {"lens": {"focal_length": -1}}, "lens: focal_length is above 0"),
        (SMALLEST | {"spare": {"focal_length": 1, "name": "\ud800"}}, "spare.name is '\\ud800'"),
        (SMALLEST | {"spare": {"focal_length": 1, "name": "a\0"}}, "spare.name is 'a\\x00'"),
        (SMALLEST | {"lenses": {"a": {}}}, "lenses.a.focal_length is missing"),
        (SMALLEST | {"scratches": {"01": "a"}}, "a name in scratches is '01', not a whole number"),
        (SMALLEST | {"scratches": {"9" * 19: "a"}}, "a name in scratches is 99999"),
        (SMALLEST | {"lenses": {"\udfff": {"focal_length": 1}}}, "lenses is '\\udfff', not text"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        decode(values)
    assert str(error.value).startswith(f"camera.json: {message}")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", "[" * 100_000, '{"a":' * 5_000])
def test_what_is_no_json_is_told_at_once(text: str | bytes) -> None:
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"^camera\.json is "):
        strict_json.parse(text, "camera.json")
    assert time.monotonic() - begin < 1


def test_the_message_is_short_whatever_the_value() -> None:
    deep: object = 1
    for _ in range(900):
        deep = [deep]
    for value in (deep, "x" * 10**6, list(range(10**5)), {str(n): n for n in range(10**5)}):
        with pytest.raises(UserError) as error:
            decode(SMALLEST | {"mode": value})
        assert len(str(error.value)) < 300
