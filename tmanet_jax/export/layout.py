"""Arrays of a jaxpr as tensors whose axes are stored in the order that engines like.

An engine wants pictures as NxCxHxW, where this project has NxHxWxC. A `Value` therefore says how
its axes are stored, and to transpose it changes nothing but that: between convolutions, batch norm
and resizing no data moves. Axes along which an array only repeats are stored with size 1.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from tmanet_jax.export.graph import Graph


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of the jaxpr that is known when the program runs.

    Attributes:
        name: of the tensor that stores it.
        shape: of the array.
        dtype: of both.
        layout: which axis of the array each axis of the tensor is.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    layout: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of the tensor if the array repeats nowhere."""
        return tuple(self.shape[axis] for axis in self.layout)

    def place(self, axis: int) -> int:
        """Where an axis of the array is stored."""
        return self.layout.index(axis)


Operand = Value | np.ndarray
"""An array, known when the program runs or when it is written."""


def identity(rank: int) -> tuple[int, ...]:
    """Stored as the array is."""
    return tuple(range(rank))


def arranged(graph: Graph, value: Value, layout: Sequence[int]) -> Value:
    """Stored in another order."""
    layout = tuple(layout)
    if layout == value.layout:
        return value
    order = [value.place(axis) for axis in layout]
    stored = graph.shapes[value.name]
    shape = tuple(stored[place] for place in order)
    moved = [place for place in order if stored[place] > 1]
    if moved == sorted(moved):
        name = graph.reshape(value.name, shape)
    else:
        name = graph.add("Transpose", [value.name], shape, perm=order)
    return dataclasses.replace(value, name=name, layout=layout)


def expanded(graph: Graph, value: Value) -> Value:
    """With what it repeats stored."""
    if graph.shapes[value.name] == value.stored:
        return value
    shape = graph.constant(np.array(value.stored, np.int64))
    return dataclasses.replace(value, name=graph.add("Expand", [value.name, shape], value.stored))


def transposed(value: Value, order: Sequence[int]) -> Value:
    """`lax.transpose`."""
    return dataclasses.replace(
        value,
        shape=tuple(value.shape[axis] for axis in order),
        layout=tuple(list(order).index(axis) for axis in value.layout),
    )


def broadcast(graph: Graph, value: Value, shape: tuple[int, ...], axes: Sequence[int]) -> Value:
    """`lax.broadcast_in_dim`: axis i becomes axis `axes[i]`; nothing is repeated in store."""
    layout = _with_new_axes([axes[axis] for axis in value.layout], len(shape))
    stored = graph.shapes[value.name]
    size_of = {axes[axis]: stored[place] for place, axis in enumerate(value.layout)}
    name = graph.reshape(value.name, tuple(size_of.get(axis, 1) for axis in layout))
    return Value(name, shape, value.dtype, layout)


def _with_new_axes(layout: list[int], rank: int) -> tuple[int, ...]:
    """Puts the axes that are missing where the axis after each of them is stored."""
    for axis in reversed(range(rank)):
        if axis not in layout:
            layout.insert(layout.index(axis + 1) if axis + 1 < rank else len(layout), axis)
    return tuple(layout)


def reshaped(graph: Graph, value: Value, shape: tuple[int, ...]) -> Value:
    """`lax.reshape`; axes that are split or joined must be stored side by side, others may not."""
    value = expanded(graph, value)
    groups = _groups(value.shape, shape)
    groups.sort(key=lambda group: value.place(group[0][0]))
    ones = [axis for axis, size in enumerate(value.shape) if size == 1]
    value = arranged(graph, value, [axis for group, _ in groups for axis in group] + ones)
    layout = _with_new_axes([axis for _, group in groups for axis in group], len(shape))
    name = graph.reshape(value.name, tuple(shape[axis] for axis in layout))
    return Value(name, shape, value.dtype, layout)


def _groups(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Axes of a shape and those that they become, in the smallest groups; no axes of size 1."""
    left = [axis for axis, size in enumerate(before) if size > 1]
    right = [axis for axis, size in enumerate(after) if size > 1]
    groups = []
    while left:
        some, others = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(before[i] for i in some)) != (
            b := math.prod(after[i] for i in others)
        ):
            if a < b:
                some.append(left.pop(0))
            else:
                others.append(right.pop(0))
        groups.append((some, others))
    return groups


def compact(array: np.ndarray) -> np.ndarray:
    """The array with size 1 along every axis along which it only repeats."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, array.shape), array):
            array = first
    return array
