"""What happens to files: bits flip, ends are lost, parts move, fields hold what nobody expects.

A mutation is a function of healthy bytes and a generator; the same generator gives the same bytes.
"""

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Mutation = Callable[[bytes, np.random.Generator], bytes]

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 255, 256, 300, 2**31, 2**63 - 1, 2**63, 10**30, -(10**30)),
    *(0.5, -0.0, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "64", "null", "../..", "/", "\0", "\ud800", "\u202e", "é" * 300, "x" * 100_000),
    *([], {}, [[]], [None], [0] * 1000, {"": ""}, {"x": {"x": {"x": []}}}),
)
"""Values that a field of JSON or an option may be given."""

FOREIGN = (
    b"",
    b"\n",
    b"\0" * 4096,
    b"\xff" * 4096,
    b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    b"\x89PNG\r\n\x1a\n" + bytes(64),
    b"PK\x05\x06" + bytes(18),
)
"""Whole files of another kind."""


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    """One to eight bits anywhere."""
    flipped = bytearray(content)
    for position in rng.integers(0, max(len(content), 1), rng.integers(1, 9)):
        if position < len(content):
            flipped[position] ^= 1 << rng.integers(0, 8)
    return bytes(flipped)


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    """A download that was cut short."""
    return content[: _position(content, rng)]


def zero_stretch(content: bytes, rng: np.random.Generator) -> bytes:
    """A block that was never written."""
    start, end = _stretch(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def cut_out(content: bytes, rng: np.random.Generator) -> bytes:
    """A stretch is gone, and the rest moves up."""
    start, end = _stretch(content, rng)
    return content[:start] + content[end:]


def splice(content: bytes, rng: np.random.Generator) -> bytes:
    """A stretch stands in another place, too."""
    start, end = _stretch(content, rng)
    place = _position(content, rng)
    return content[:place] + content[start:end] + content[place:]


def overwrite_number(content: bytes, rng: np.random.Generator) -> bytes:
    """A length, an offset or a size becomes one that cannot be."""
    place = _position(content, rng)
    value = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
    number = struct.pack(rng.choice(["<I", ">I"]), value)
    return content[:place] + number + content[place + len(number) :]


def replace_whole(content: bytes, rng: np.random.Generator) -> bytes:
    """Something else was saved under the name."""
    return one_of(FOREIGN, rng)


BYTES: tuple[Mutation, ...] = (
    *(flip_bits, flip_bits, flip_bits, truncate, zero_stretch, cut_out, splice),
    *(overwrite_number, overwrite_number, replace_whole),
)
"""For any file; what happens more often stands there more often."""


def json_field(content: bytes, rng: np.random.Generator) -> bytes:
    """A field of a JSON text is replaced, dropped, renamed or added, or nests ever deeper."""
    mutated = with_field_changed(json.loads(content), rng)
    if rng.random() < 0.05:
        return b"[" * 5000 + content
    return json.dumps(mutated).encode()


def with_field_changed(value: Any, rng: np.random.Generator) -> Any:
    """JSON in which one place differs; text that holds JSON is changed inside."""
    nested = _parsed(value) if isinstance(value, str) else None
    if nested is not None:
        return json.dumps(with_field_changed(nested, rng))
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return one_of(HOSTILE, rng)
    if isinstance(value, list):
        index = rng.integers(len(value))
        changed = with_field_changed(value[index], rng)
        kept = rng.random() < 0.9
        return [*value[:index], *([changed] if kept else []), *value[index + 1 :]]
    name = one_of(list(value), rng)
    rest = {key: item for key, item in value.items() if key != name}
    match rng.integers(10):
        case 0:
            return rest
        case 1:
            return {**rest, f"{name}x": value[name]}
        case 2:
            return {**value, "tentacles": one_of(HOSTILE, rng)}
    return {**value, name: with_field_changed(value[name], rng)}


def safetensors_header(content: bytes, rng: np.random.Generator) -> bytes:
    """A field of the header, whose length is put right: names, shapes, offsets or metadata."""
    length = int.from_bytes(content[:8], "little")
    header = json_field(content[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def csv_field(content: bytes, rng: np.random.Generator) -> bytes:
    """A cell of a table is replaced."""
    lines = [line.split(b",") for line in content.split(b"\n")]
    cells = one_of(lines, rng)
    value = str(one_of(HOSTILE, rng))
    cells[rng.integers(len(cells))] = value.encode(errors="surrogatepass")
    return b"\n".join(map(b",".join, lines))


def mutations_of(suffix: str, content: bytes) -> tuple[Mutation, ...]:
    """Those that can happen to a file of this name's ending and content."""
    if suffix == ".safetensors":
        return (*BYTES, *[safetensors_header] * len(BYTES))
    if suffix == ".csv":
        return (*BYTES, *[csv_field] * len(BYTES))
    is_json = content[:1] in (b"{", b"[") and _parsed(content.decode(errors="replace")) is not None
    return (*BYTES, *[json_field] * 2 * len(BYTES)) if is_json else BYTES


def mutated(content: bytes, mutations: Sequence[Mutation], rng: np.random.Generator) -> bytes:
    """The content after one of the mutations."""
    return one_of(mutations, rng)(content, rng)


def one_of(items: Sequence[T], rng: np.random.Generator) -> T:
    """Any of them."""
    return items[int(rng.integers(len(items)))]


def _parsed(text: str) -> dict[str, Any] | list[Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def _position(content: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(0, len(content) + 1))


def _stretch(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = _position(content, rng)
    return start, min(len(content), start + int(rng.integers(1, 257)))
