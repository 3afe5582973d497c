"""Reads a compiler's optimised HLO text: which collectives a program runs, and what it moves.

An instruction counts once for each time it runs, so that those in a loop's body count times the
loop's trip count: the constant with which its condition compares, as in all loops that `lax.scan`
and `lax.map` make. The branches of a conditional all count.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "send")
"""A send goes to the chips of other slices, through the hosts and their network."""

_IN_PAIRS = ("collective-permute", "send")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(([^)]*)\)(.*)$")
"""NAME = SHAPE OPCODE(OPERANDS), ATTRIBUTES; shapes of tuples are in parentheses."""
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"\b(?:calls|body|to_apply|\w+_computations?)=(\{[^}]*\}|\S+)")
_NAME = re.compile(r"%([\w.\-]+)")
_CONTROL = {"call", "conditional", "while"}
"""What their computations move is moved; the insides of fusions and reductions stay on the chip."""
_NO_TRAFFIC = {
    *_CONTROL,
    *("after-all", "bitcast", "constant", "get-tuple-element", "parameter", "partition-id"),
    "tuple",
}
_SLICES = {"slice", "slice-start", "dynamic-slice", "dynamic-slice-start"}


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind over groups of one size, on one chip.

    Attributes:
        kind: one of `KINDS`.
        group_size: chips that take part in each; 2 for a permutation or a send, a sender and a
            receiver.
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
        groups = "" if self.kind in _IN_PAIRS else f" among {self.group_size}"
        unknown = ""
        if self.in_unknown_loops:
            unknown = f"; {self.in_unknown_loops} in loops of unknown length, counted once"
        types = ", ".join(self.element_types)
        return f"{self.count} {self.kind}{groups}, {self.bytes / 2**20:.2f} MiB ({types}){unknown}"


class _Instruction(NamedTuple):
    """`shape` is that of what it gives; for an asynchronous start, of what its end gives."""

    shape: str
    opcode: str
    operands: str
    attributes: str


class _Run(NamedTuple):
    """An instruction of a computation, and how often it runs.

    `is_known` is false in loops of unknown length, `is_inside` true within a fusion or a reduction.
    """

    instruction: _Instruction
    computation: str
    times: int
    is_known: bool
    is_inside: bool


class Hlo:
    """The computations of a program.

    Args:
        text: HLO after optimisation, as `jax.stages.Compiled.as_text` gives it.

    Raises:
        ValueError: the text has no entry computation.
    """

    def __init__(self, text: str):
        self._computations, entry = _parse(text)
        self._runs = list(self._runs_of(entry, 1, True, False))

    def collectives(self) -> tuple[Collective, ...]:
        """All collectives by kind and group size, in the order of `KINDS`."""
        found: dict[tuple[str, int], Collective] = {}
        for run in self._runs:
            if run.instruction.opcode.removesuffix("-start") in KINDS:
                one = _collective(run)
                key = (one.kind, one.group_size)
                found[key] = found[key] + one if key in found else one
        return tuple(sorted(found.values(), key=lambda c: (KINDS.index(c.kind), c.group_size)))

    def products(self) -> Mapping[str, int]:
        """Convolutions and matrix products by the element type of their first operand."""
        found: Counter[str] = Counter()
        for run in self._runs:
            if run.instruction.opcode in ("convolution", "dot"):
                around = self._computations[run.computation]
                first = around[_NAME.findall(run.instruction.operands)[0]]
                found[_ARRAY.findall(first.shape)[0][0]] += run.times
        return found

    def memory_traffic(self) -> int:
        """Bytes read from and written to the chip's main memory, arrays in on-chip memory left out.

        What each instruction outside of fusions takes and gives. An array that a fusion reads in
        part counts in full.
        """
        return sum(
            run.times * self._traffic(run)
            for run in self._runs
            if not run.is_inside
            and run.instruction.opcode not in _NO_TRAFFIC
            and not run.instruction.opcode.endswith("-done")
        )

    def _traffic(self, run: _Run) -> int:
        one, around = run.instruction, self._computations[run.computation]
        read = sum(
            _num_bytes(around[name].shape, main_memory=True)
            for name in _NAME.findall(one.operands)
            if name in around
        )
        if one.opcode in _SLICES:
            read = min(read, _num_bytes(one.shape))
        return read + _num_bytes(one.shape, main_memory=True)

    def _runs_of(
        self, computation: str, times: int, is_known: bool, is_inside: bool
    ) -> Iterator[_Run]:
        for one in self._computations.get(computation, {}).values():
            yield _Run(one, computation, times, is_known, is_inside)
            if one.opcode.endswith(("-done", "-update")):
                continue  # they name what their start has run
            trips = self._trip_count(one) if one.opcode == "while" else 1
            how = (times * (trips or 1), is_known and trips is not None)
            for called in re.findall(r"[\w.\-]+", " ".join(_CALLED.findall(one.attributes))):
                yield from self._runs_of(called, *how, is_inside or one.opcode not in _CONTROL)

    def _trip_count(self, loop: _Instruction) -> int | None:
        if known := re.search(r"known_trip_count\W+n\W+(\d+)", loop.attributes):
            return int(known[1])  # of CPUs' programs
        (condition,) = re.findall(r"\bcondition=%?([\w.\-]+)", loop.attributes)
        instructions = self._computations[condition]
        match [one for one in instructions.values() if one.opcode == "compare"]:
            case [compared] if "direction=LT" in compared.attributes:
                compared_to = (instructions[name] for name in _NAME.findall(compared.operands))
                limits = [int(one.operands) for one in compared_to if one.opcode == "constant"]
                return limits[0] if len(limits) == 1 else None
        return None


def _collective(run: _Run) -> Collective:
    one = run.instruction
    kind, group_size = one.opcode.removesuffix("-start"), _group_size(one)
    arrays = one.shape.split(", u32[]")[0] if kind == "send" else one.shape  # and what it waits for
    num_bytes = _num_bytes(arrays) * (group_size if kind == "reduce-scatter" else 1)
    if run.computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # the TPU's fusion of an all-reduce and each chip's slice of it
    return Collective(
        kind=kind,
        group_size=group_size,
        count=run.times,
        bytes=run.times * num_bytes,
        element_types=tuple(sorted({element for element, _, _ in _ARRAY.findall(arrays)})),
        in_unknown_loops=0 if run.is_known else run.times,
    )


def _group_size(collective: _Instruction) -> int:
    if collective.opcode.startswith(_IN_PAIRS):
        return 2
    if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", collective.attributes):
        # along axes of a mesh: mesh['data'=8,'space'=2] {'space'}, or part of an axis
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part) if part else sizes[name] for name, part in parts)
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", collective.attributes):
        return int(match[1])
    groups = re.search(r"replica_groups=\{\{([\d,]+)\}", collective.attributes)
    assert groups, f"these groups are none of a mesh: {collective.attributes}"
    return len(groups[1].split(","))


def _parse(text: str) -> tuple[Mapping[str, Mapping[str, _Instruction]], str]:
    """Instructions by name, by the computation that holds them; the name of the program's."""
    computations: dict[str, dict[str, _Instruction]] = {}
    entry = ""
    here: dict[str, _Instruction] = {}
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            here = computations[match[2]] = {}
            entry = match[2] if match[1] else entry
        elif match := _INSTRUCTION.match(line):
            name, one = match[1], _Instruction(*match.groups()[1:])
            here[name] = one
            if one.opcode.endswith("-done") and one.opcode != "send-done":  # which gives nothing
                for start in _NAME.findall(one.operands):
                    here[start] = here[start]._replace(shape=one.shape)
    if not entry:
        raise ValueError("this is no HLO text: it has no ENTRY computation")
    return computations, entry


def _num_bytes(shape: str, *, main_memory: bool = False) -> int:
    """Of all arrays, or of those whose layout names no other memory space, as S(1) does."""
    total = 0
    for element, sizes, layout in _ARRAY.findall(shape):
        if not (main_memory and "S(" in layout):
            digits = "8" if element == "pred" else re.findall(r"\d+|$", element)[0]
            num_bits = int(digits or 0) * math.prod(int(size) for size in sizes.split(",") if size)
            total += -(-num_bits // 8)
    return total
