"""Reads a compiler's optimised HLO text: which collectives a program runs, and what it moves.

An instruction counts once for each time it runs, so that those in a loop's body count times the
loop's trip count: the constant with which its condition compares, as in all loops that `lax.scan`
and `lax.map` make. The branches of a conditional all count.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\](\{[^}]*\})?")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_NO_TRAFFIC = {
    *("after-all", "bitcast", "call", "conditional", "constant", "get-tuple-element"),
    *("parameter", "partition-id", "tuple", "while"),
}
_SLICES = {"slice", "slice-start", "dynamic-slice", "dynamic-slice-start"}


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind over groups of one size, on one chip.

    Attributes:
        kind: one of `KINDS`.
        group_size: chips that take part in each; 2 for a permutation, a sender and a receiver.
        count: how many run.
        bytes: what they combine: the array that is reduced, the whole of what is gathered or
            scattered, or what is sent; on one chip, all runs together.
        element_types: of those arrays, as "bf16".
        in_unknown_loops: of `count`, those that are in loops of unknown length and counted once.
    """

    kind: str
    group_size: int
    count: int
    bytes: int
    element_types: tuple[str, ...]
    in_unknown_loops: int = 0

    def __add__(self, other: "Collective") -> "Collective":
        return dataclasses.replace(
            self,
            count=self.count + other.count,
            bytes=self.bytes + other.bytes,
            element_types=tuple(sorted({*self.element_types, *other.element_types})),
            in_unknown_loops=self.in_unknown_loops + other.in_unknown_loops,
        )

    def __str__(self) -> str:
        groups = "" if self.kind == "collective-permute" else f" among {self.group_size}"
        unknown = ""
        if self.in_unknown_loops:
            unknown = f"; {self.in_unknown_loops} in loops of unknown length, counted once"
        types = ", ".join(self.element_types)
        return f"{self.count} {self.kind}{groups}, {self.bytes / 2**20:.2f} MiB ({types}){unknown}"


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    operands: str
    attributes: str

    @property
    def called(self) -> list[str]:
        """The computations that it runs."""
        called = _CALLED.findall(self.attributes)
        if self.opcode == "call":  # in others it is what a reduction adds up with
            called += re.findall(r"\bto_apply=%?([\w.\-]+)", self.attributes)
        for names in _BRANCHES.findall(self.attributes):
            called += re.findall(r"[\w.\-]+", names)
        return called


class _Run(NamedTuple):
    """An instruction, how often it runs, and whether that is known; `computation` holds it."""

    instruction: _Instruction
    computation: str
    times: int
    is_known: bool


class Hlo:
    """The computations of a program.

    Args:
        text: HLO after optimisation, as `jax.stages.Compiled.as_text` gives it.

    Raises:
        ValueError: the text has no entry computation.
    """

    def __init__(self, text: str):
        self._computations, entry = _parse(text)
        partitions = re.search(r"\b(?:num_partitions|replica_count)=(\d+)", text)
        self._num_devices = int(partitions[1]) if partitions else 1
        self._runs = list(self._runs_of(entry, 1, True))
        self._shapes: dict[tuple[str, str], str] = {}
        self._shape_when_done: dict[tuple[str, str], str] = {}
        for computation, instructions in self._computations.items():
            for one in instructions:
                self._shapes[computation, one.name] = one.shape
                if one.opcode.endswith("-done"):
                    for operand in _OPERAND.findall(one.operands):
                        self._shape_when_done[computation, operand] = one.shape

    def collectives(self) -> tuple[Collective, ...]:
        """All collectives by kind and group size, in the order of `KINDS`."""
        found: dict[tuple[str, int], Collective] = {}
        for run in self._runs:
            kind = run.instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                one = self._collective(kind, run)
                key = (one.kind, one.group_size)
                found[key] = found[key] + one if key in found else one
        return tuple(sorted(found.values(), key=lambda c: (KINDS.index(c.kind), c.group_size)))

    def memory_traffic(self) -> int:
        """Bytes read from and written to the chip's main memory, arrays in on-chip memory left out.

        What each instruction outside of fusions takes and gives. An array that a fusion reads in
        part counts in full.
        """
        fused = {
            name
            for instructions in self._computations.values()
            for one in instructions
            if one.opcode in ("fusion", "async-start")
            for name in one.called
        }
        return sum(
            run.times * self._traffic(run)
            for run in self._runs
            if run.computation not in fused
            and run.instruction.opcode not in _NO_TRAFFIC
            and not run.instruction.opcode.endswith("-done")
        )

    def _traffic(self, run: _Run) -> int:
        result = self._result(run)
        read = sum(
            _num_bytes(self._shapes.get((run.computation, name), ""), main_memory=True)
            for name in _OPERAND.findall(run.instruction.operands)
        )
        if run.instruction.opcode in _SLICES:
            read = min(read, _num_bytes(result))
        return read + _num_bytes(result, main_memory=True)

    def _runs_of(self, computation: str, times: int, is_known: bool) -> Iterator[_Run]:
        for instruction in self._computations.get(computation, ()):
            yield _Run(instruction, computation, times, is_known)
            inner_times, inner_known = times, is_known
            if instruction.opcode == "while":
                trips = self._trip_count(instruction)
                inner_times, inner_known = times * (trips or 1), is_known and trips is not None
            elif instruction.opcode.endswith(("-done", "-update")):
                continue  # they name what their start has run
            for called in instruction.called:
                yield from self._runs_of(called, inner_times, inner_known)

    def _trip_count(self, loop: _Instruction) -> int | None:
        known = re.search(r"known_trip_count\W+n\W+(\d+)", loop.attributes)
        if known:
            return int(known[1])
        condition = re.search(r"\bcondition=%?([\w.\-]+)", loop.attributes)
        instructions = self._computations.get(condition[1], ()) if condition else ()
        compared = [one for one in instructions if one.opcode == "compare"]
        if len(compared) != 1 or "direction=LT" not in compared[0].attributes:
            return None
        limits = [
            int(one.operands)
            for one in instructions
            if one.opcode == "constant"
            and one.operands.isdigit()
            and one.name in compared[0].operands
        ]
        return limits[0] if len(limits) == 1 else None

    def _collective(self, kind: str, run: _Run) -> Collective:
        group_size = self._group_size(kind, run.instruction.attributes)
        shape = self._result(run)
        num_bytes = _num_bytes(shape) * (group_size if kind == "reduce-scatter" else 1)
        if run.computation.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"  # the TPU's fusion of an all-reduce and each chip's slice of it
        return Collective(
            kind=kind,
            group_size=group_size,
            count=run.times,
            bytes=run.times * num_bytes,
            element_types=tuple(sorted({element for element, _, _ in _SHAPE.findall(shape)})),
            in_unknown_loops=0 if run.is_known else run.times,
        )

    def _result(self, run: _Run) -> str:
        """Shape of what a collective gives; the start of an asynchronous one has its input too."""
        place = (run.computation, run.instruction.name)
        return self._shape_when_done.get(place, run.instruction.shape)

    def _group_size(self, kind: str, attributes: str) -> int:
        if kind == "collective-permute":
            return 2
        if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", attributes):
            # along axes of a mesh: mesh['data'=8,'space'=2] {'space'}, or part of an axis
            sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
            parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
            return math.prod(int(part) if part else sizes[name] for name, part in parts)
        if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
            return int(match[2])
        if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
            return len(match[1].split(","))
        return self._num_devices


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = match[2]
            entry = current if match[1] else entry
            computations[current] = []
        elif current and (match := _INSTRUCTION.match(line)):
            computations[current].append(_instruction(*match.groups()))
    if not entry:
        raise ValueError("this is no HLO text: it has no ENTRY computation")
    return computations, entry


def _instruction(name: str, rest: str) -> _Instruction:
    """`rest` is SHAPE OPCODE(OPERANDS), ATTRIBUTES; shapes of tuples are in parentheses."""
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opcode, _, _ = rest[end:].strip().partition("(")
    start = rest.index("(", end)
    close = _closing(rest, start)
    return _Instruction(name, rest[:end], opcode, rest[start + 1 : close], rest[close + 1 :])


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match.group() == "(" else -1
        if depth == 0:
            return start + match.start()
    return len(text)


def _num_bytes(shape: str, *, main_memory: bool = False) -> int:
    """Of all arrays, or of those whose layout names no other memory space, as S(1) does."""
    total = 0
    for element, sizes, layout in _SHAPE.findall(shape):
        if main_memory and "S(" in layout:
            continue
        digits = re.search(r"\d+", element)
        bits = _BITS.get(element, int(digits.group()) if digits else 0)
        count = math.prod(int(size.removeprefix("<=")) for size in sizes.split(",") if size)
        total += -(-count * bits // 8)
    return total
