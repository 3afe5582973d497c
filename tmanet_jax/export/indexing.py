"""Slices, gathers and scatters of a jaxpr as ONNX nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from tmanet_jax.export.elementwise import (
    Writer,
    as_value,
    concatenate,
    squeeze,
    stack,
)
from tmanet_jax.export.graph import Graph
from tmanet_jax.export.layout import Operand, Value, arranged, expanded


def sliced(
    graph: Graph,
    value: Value,
    starts: Sequence[int],
    limits: Sequence[int],
    strides: Sequence[int] | None = None,
) -> Value:
    """`lax.slice`."""
    strides = strides or [1] * len(value.shape)
    shape = tuple(
        -(-(limit - start) // step)
        for start, limit, step in zip(starts, limits, strides, strict=True)
    )
    stored = list(graph.shapes[value.name])
    cut = [
        (place, starts[axis], limits[axis], strides[axis])
        for place, axis in enumerate(value.layout)
        if shape[axis] != value.shape[axis] and stored[place] > 1
    ]
    name = value.name
    if cut:
        places, begin, end, steps = zip(*cut, strict=True)
        for place in places:
            stored[place] = shape[value.layout[place]]
        numbers = [graph.constant(np.array(x, np.int64)) for x in (begin, end, places, steps)]
        name = graph.add("Slice", [name, *numbers], stored)
    return Value(name, shape, value.dtype, value.layout)


def _slice(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    return sliced(
        graph,
        as_value(graph, x),
        params["start_indices"],
        params["limit_indices"],
        params["strides"],
    )


def row(graph: Graph, x: Operand, index: int) -> Operand:
    """One item along the first axis."""
    if isinstance(x, np.ndarray):
        return np.asarray(x[index])
    starts = [index] + [0] * (len(x.shape) - 1)
    part = sliced(graph, x, starts, [index + 1, *x.shape[1:]])
    return squeeze(graph, {"dimensions": (0,)}, part)


def _known(starts: Sequence[Operand], what: str) -> list[int]:
    assert all(isinstance(start, np.ndarray) for start in starts), f"{what} at a place computed"
    return [int(start) for start in starts]  # type: ignore[arg-type]


def _inside(starts: Sequence[int], sizes: Sequence[int], shape: Sequence[int]) -> list[int]:
    return [
        min(max(start, 0), length - size)
        for start, size, length in zip(starts, sizes, shape, strict=True)
    ]


def _dynamic_slice(graph: Graph, params: dict[str, Any], x: Operand, *starts: Operand) -> Operand:
    value, sizes = as_value(graph, x), params["slice_sizes"]
    begin = _inside(_known(starts, "a slice"), sizes, value.shape)
    return sliced(graph, value, begin, [a + n for a, n in zip(begin, sizes, strict=True)])


def _dynamic_update_slice(
    graph: Graph, params: dict[str, Any], x: Operand, update: Operand, *starts: Operand
) -> Operand:
    value, part = as_value(graph, x), as_value(graph, update)
    return _updated(graph, value, part, _inside(_known(starts, "a part"), part.shape, value.shape))


def _updated(graph: Graph, value: Value, part: Value, starts: Sequence[int]) -> Value:
    """The value with a part of it replaced: what is before, the part, what is after."""
    if part.shape == value.shape:
        return part
    axis = next(i for i, n in enumerate(part.shape) if n != value.shape[i])

    def between(start: int, limit: int) -> Value:
        begin, end = [0] * len(value.shape), list(value.shape)
        begin[axis], end[axis] = start, limit
        return sliced(graph, value, begin, end)

    start, limit = starts[axis], starts[axis] + part.shape[axis]
    inner_starts = [0 if i == axis else s for i, s in enumerate(starts)]
    middle = _updated(graph, between(start, limit), part, inner_starts)
    before = [between(0, start)] if start else []
    after = [between(limit, value.shape[axis])] if limit < value.shape[axis] else []
    result = concatenate(graph, {"dimension": axis}, *before, middle, *after)
    assert isinstance(result, Value)
    return result


def _gather(graph: Graph, params: dict[str, Any], x: Operand, indices: Operand) -> Operand:
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    value = as_value(graph, x)
    assert not numbers.operand_batching_dims, "a gather in batches"
    if isinstance(indices, np.ndarray):
        return _slices(graph, value, indices, numbers, sizes)
    first = list(numbers.start_index_map)
    rank = len(value.shape)
    assert list(numbers.collapsed_slice_dims) == sorted(first) and all(
        size == (1 if axis in first else value.shape[axis]) for axis, size in enumerate(sizes)
    ), "a gather of parts"
    batch_rank = len(indices.shape) - 1
    assert list(numbers.offset_dims) == list(range(batch_rank, batch_rank + rank - len(first)))
    value = expanded(graph, arranged(graph, value, _indexed_first(value, first)))
    rest = value.layout[len(first) :]
    name = _indices(graph, indices)
    stored = (*indices.shape[:-1], *value.stored[len(first) :])
    name = graph.add("GatherND", [value.name, name], stored)
    kept = sorted(rest)
    layout = (*range(batch_rank), *(batch_rank + kept.index(axis) for axis in rest))
    shape = (*indices.shape[:-1], *(value.shape[axis] for axis in kept))
    return Value(name, shape, value.dtype, layout)


def _indexed_first(value: Value, first: list[int]) -> list[int]:
    return [*first, *(axis for axis in value.layout if axis not in first)]


def _indices(graph: Graph, indices: Value) -> str:
    from onnx import TensorProto

    name = expanded(graph, arranged(graph, indices, range(len(indices.shape)))).name
    return graph.add("Cast", [name], indices.shape, to=TensorProto.INT64)


def _slices(
    graph: Graph, value: Value, indices: np.ndarray, numbers: Any, sizes: Sequence[int]
) -> Operand:
    """A gather whose places are known: slices, one beside the other."""
    assert indices.ndim == 2, "a gather of more than a row of parts"
    batch_axis = next(
        axis for axis in range(len(numbers.offset_dims) + 1) if axis not in numbers.offset_dims
    )
    parts = []
    for some in indices:
        starts = [0] * len(value.shape)
        for axis, start in zip(numbers.start_index_map, some, strict=True):
            starts[axis] = int(start)
        begin = _inside(starts, sizes, value.shape)
        part = sliced(graph, value, begin, [a + n for a, n in zip(begin, sizes, strict=True)])
        parts.append(squeeze(graph, {"dimensions": numbers.collapsed_slice_dims}, part))
    return stack(graph, {"axis": batch_axis}, *parts)


def _scatter(
    graph: Graph, params: dict[str, Any], x: Operand, indices: Operand, updates: Operand
) -> Operand:
    numbers = params["dimension_numbers"]
    assert not numbers.operand_batching_dims, "a scatter in batches"
    value, index, new = (as_value(graph, operand) for operand in (x, indices, updates))
    first = list(numbers.scatter_dims_to_operand_dims)
    batch_rank, rank = len(index.shape) - 1, len(value.shape)
    assert list(numbers.inserted_window_dims) == sorted(first), "a scatter of parts"
    assert list(numbers.update_window_dims) == list(
        range(batch_rank, batch_rank + rank - len(first))
    )
    value = expanded(graph, arranged(graph, value, _indexed_first(value, first)))
    rest = value.layout[len(first) :]
    kept = sorted(rest)
    layout = (*range(batch_rank), *(batch_rank + kept.index(axis) for axis in rest))
    new = expanded(graph, arranged(graph, new, layout))
    inputs = [value.name, _indices(graph, index), new.name]
    name = graph.add("ScatterND", inputs, value.stored)
    return Value(name, value.shape, value.dtype, value.layout)


def _pad(graph: Graph, params: dict[str, Any], x: Operand, filling: Operand) -> Operand:
    value = expanded(graph, as_value(graph, x))
    low, high, inside = zip(*params["padding_config"], strict=True)
    assert min(*low, *high) >= 0 and not any(inside), "a padding that cuts or spreads"
    if not any((*low, *high)):
        return value
    shape = tuple(a + n + b for a, n, b in zip(low, value.shape, high, strict=True))
    pads = [low[axis] for axis in value.layout] + [high[axis] for axis in value.layout]
    inputs = [value.name, graph.constant(np.array(pads, np.int64)), as_value(graph, filling).name]
    name = graph.add("Pad", inputs, [shape[axis] for axis in value.layout])
    return Value(name, shape, value.dtype, value.layout)


WRITERS: dict[Any, Writer] = {
    lax.pad_p: _pad,
    lax.slice_p: _slice,
    lax.dynamic_slice_p: _dynamic_slice,
    lax.dynamic_update_slice_p: _dynamic_update_slice,
    lax.gather_p: _gather,
    lax.scatter_p: _scatter,
}
