"""Jaxpr operations on single numbers, on rows of them and on shapes, as ONNX nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from tmanet_jax.export.graph import Graph
from tmanet_jax.export.layout import (
    Operand,
    Value,
    arranged,
    broadcast,
    compact,
    expanded,
    identity,
    reshaped,
    transposed,
)

Writer = Callable[..., Operand]
"""Writes one operation: (graph, its parameters, *operands) -> what it returns."""


def as_value(graph: Graph, operand: Operand) -> Value:
    """A constant becomes one of the graph."""
    if isinstance(operand, Value):
        return operand
    operand = np.asarray(operand)
    layout = identity(operand.ndim)
    return Value(graph.constant(operand), operand.shape, operand.dtype, layout)


def together(graph: Graph, operands: Sequence[Operand]) -> tuple[list[str], tuple[int, ...]]:
    """Tensors of arrays of one shape, stored in one order, and that order: the largest value's."""
    rank = max(np.ndim(x) if isinstance(x, np.ndarray) else len(x.shape) for x in operands)
    values = [x for x in operands if isinstance(x, Value) and len(x.shape) == rank]
    largest = max(values, key=lambda value: np.prod(graph.shapes[value.name]))

    def tensor(operand: Operand) -> str:
        if isinstance(operand, Value):
            same_rank = len(operand.shape) == rank
            return (arranged(graph, operand, largest.layout) if same_rank else operand).name
        stored = operand.transpose(largest.layout) if operand.ndim == rank else operand
        return graph.constant(compact(stored))

    return [tensor(operand) for operand in operands], largest.layout


def pointwise(
    graph: Graph, operator: str, operands: Sequence[Operand], dtype: np.dtype, **attributes: Any
) -> Value:
    """A node that works on each number by itself."""
    names, layout = together(graph, operands)
    shape = max((x.shape for x in operands), key=len)
    stored = np.broadcast_shapes(*(graph.shapes[name] for name in names))
    return Value(graph.add(operator, names, stored, **attributes), shape, dtype, layout)


def _dtype(operand: Operand) -> np.dtype:
    return np.dtype(operand.dtype)


def _plain(operator: str, **attributes: Any) -> Writer:
    def write(graph: Graph, params: dict[str, Any], *operands: Operand) -> Operand:
        return pointwise(graph, operator, operands, _dtype(operands[0]), **attributes)

    return write


def _comparison(operator: str) -> Writer:
    def write(graph: Graph, params: dict[str, Any], *operands: Operand) -> Operand:
        return pointwise(graph, operator, operands, np.dtype(bool))

    return write


def _logical(operator: str) -> Writer:
    def write(graph: Graph, params: dict[str, Any], *operands: Operand) -> Operand:
        assert _dtype(operands[0]).kind == "b", "bits of numbers"
        return pointwise(graph, operator, operands, np.dtype(bool))

    return write


def _without(neutral: float, otherwise: Writer) -> Writer:
    """Nothing is written where the other operand changes nothing."""

    def write(graph: Graph, params: dict[str, Any], a: Operand, b: Operand) -> Operand:
        for value, other in ((a, b), (b, a)):
            if (
                isinstance(other, np.ndarray)
                and isinstance(value, Value)
                and np.all(other == neutral)
            ):
                return value
        return otherwise(graph, params, a, b)

    return write


def _multiply(graph: Graph, params: dict[str, Any], a: Operand, b: Operand) -> Operand:
    for operand in (a, b):
        if isinstance(operand, np.ndarray) and not operand.any():
            return np.zeros(max(a.shape, b.shape, key=len), operand.dtype)
    return _plain("Mul")(graph, params, a, b)


def _maximum(graph: Graph, params: dict[str, Any], a: Operand, b: Operand) -> Operand:
    for value, other in ((a, b), (b, a)):
        is_floor = isinstance(other, np.ndarray) and not other.any()
        if is_floor and isinstance(value, Value) and value.dtype.kind == "f":
            return pointwise(graph, "Relu", [value], value.dtype)
    return _plain("Max")(graph, params, a, b)


def _not_equal(graph: Graph, params: dict[str, Any], a: Operand, b: Operand) -> Operand:
    return pointwise(graph, "Not", [_comparison("Equal")(graph, params, a, b)], np.dtype(bool))


def _remainder(graph: Graph, params: dict[str, Any], a: Operand, b: Operand) -> Operand:
    if isinstance(b, np.ndarray) and np.all(b == 1):
        return np.zeros(a.shape, _dtype(a))
    return _plain("Mod", fmod=1)(graph, params, a, b)


def _select(graph: Graph, params: dict[str, Any], which: Operand, *cases: Operand) -> Operand:
    if isinstance(which, np.ndarray) and which.size and np.all(which == which.flat[0]):
        return cases[int(which.flat[0])]
    assert _dtype(which).kind == "b" and len(cases) == 2, "a choice of more than two"
    return pointwise(graph, "Where", [which, cases[1], cases[0]], _dtype(cases[0]))


def _power(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    exponent = np.asarray(params["y"], _dtype(x))
    return pointwise(graph, "Pow", [x, exponent], _dtype(x))


def _square(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    return pointwise(graph, "Mul", [x, x], _dtype(x))


def _rsqrt(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    root = pointwise(graph, "Sqrt", [x], _dtype(x))
    return pointwise(graph, "Reciprocal", [root], root.dtype)


def _clamp(
    graph: Graph, params: dict[str, Any], low: Operand, x: Operand, high: Operand
) -> Operand:
    return pointwise(graph, "Min", [pointwise(graph, "Max", [x, low], _dtype(x)), high], _dtype(x))


def cast(graph: Graph, value: Operand, dtype: np.dtype) -> Operand:
    """In another type."""
    from onnx import helper

    if isinstance(value, np.ndarray):
        return value.astype(dtype)
    if value.dtype == dtype:
        return value
    return pointwise(
        graph, "Cast", [value], np.dtype(dtype), to=helper.np_dtype_to_tensor_dtype(dtype)
    )


def _convert(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    return cast(graph, x, np.dtype(params["new_dtype"]))


def _reduce(operator: str) -> Writer:
    def write(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
        return _reduced(graph, operator, as_value(graph, x), params["axes"])

    return write


def _reduced(graph: Graph, operator: str, x: Value, axes: Sequence[int]) -> Value:
    x = expanded(graph, x)
    places = sorted(x.place(axis) for axis in axes)
    stored = tuple(1 if place in places else size for place, size in enumerate(x.stored))
    if operator == "ReduceSum":
        inputs = [x.name, graph.constant(np.array(places, np.int64))]
        name = graph.add(operator, inputs, stored, keepdims=1)
    elif operator == "ArgMax":
        name = graph.add(operator, [x.name], stored, axis=places[0], keepdims=1)
    else:
        name = graph.add(operator, [x.name], stored, axes=places, keepdims=1)
    dtype = np.dtype(np.int64) if operator == "ArgMax" else x.dtype
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    kept = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    return reshaped(graph, Value(name, shape, dtype, x.layout), kept)


def _argmax(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    largest = _reduced(graph, "ArgMax", as_value(graph, x), params["axes"])
    return cast(graph, largest, np.dtype(params["index_dtype"]))


def _broadcast(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    value = as_value(graph, x)
    return broadcast(graph, value, tuple(params["shape"]), params["broadcast_dimensions"])


def _reshape(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    return reshaped(graph, as_value(graph, x), tuple(params["new_sizes"]))


def squeeze(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    """`lax.squeeze`."""
    value = as_value(graph, x)
    axes = [axis % len(value.shape) for axis in params["dimensions"]]
    kept = tuple(size for axis, size in enumerate(value.shape) if axis not in axes)
    return reshaped(graph, value, kept)


def _transpose(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    return transposed(as_value(graph, x), params["permutation"])


def concatenate(graph: Graph, params: dict[str, Any], *operands: Operand) -> Operand:
    """`lax.concatenate`."""
    axis = params["dimension"]
    if len(operands) == 1:
        return operands[0]
    first = next(x for x in operands if isinstance(x, Value))
    values = [expanded(graph, arranged(graph, as_value(graph, x), first.layout)) for x in operands]
    shape = list(first.shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    stored = tuple(shape[a] for a in first.layout)
    names = [value.name for value in values]
    name = graph.add("Concat", names, stored, axis=first.place(axis))
    return Value(name, tuple(shape), first.dtype, first.layout)


def stack(graph: Graph, params: dict[str, Any], *operands: Operand) -> Operand:
    """Arrays along a new axis."""
    axis = params.get("axis", 0)
    rank = len(operands[0].shape)
    shape = list(operands[0].shape)
    shape.insert(axis, 1)
    axes = [a for a in range(rank + 1) if a != axis]
    rows = [broadcast(graph, as_value(graph, x), tuple(shape), axes) for x in operands]
    return concatenate(graph, {"dimension": axis}, *rows)


def _tile(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    value = as_value(graph, x)
    for axis, repeats in enumerate(params["reps"]):
        result = concatenate(graph, {"dimension": axis}, *[value] * repeats)
        assert isinstance(result, Value)
        value = result
    return value


def _same(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    return x


WRITERS: dict[Any, Writer] = {
    lax.add_p: _without(0, _plain("Add")),
    lax.sub_p: _plain("Sub"),
    lax.mul_p: _without(1, _multiply),
    lax.div_p: _plain("Div"),
    lax.rem_p: _remainder,
    lax.max_p: _maximum,
    lax.min_p: _plain("Min"),
    lax.neg_p: _plain("Neg"),
    lax.abs_p: _plain("Abs"),
    lax.exp_p: _plain("Exp"),
    lax.log_p: _plain("Log"),
    lax.tanh_p: _plain("Tanh"),
    lax.erf_p: _plain("Erf"),
    lax.logistic_p: _plain("Sigmoid"),
    lax.sqrt_p: _plain("Sqrt"),
    lax.rsqrt_p: _rsqrt,
    lax.floor_p: _plain("Floor"),
    lax.square_p: _square,
    lax.integer_pow_p: _power,
    lax.clamp_p: _clamp,
    lax.eq_p: _comparison("Equal"),
    lax.ne_p: _not_equal,
    lax.lt_p: _comparison("Less"),
    lax.le_p: _comparison("LessOrEqual"),
    lax.gt_p: _comparison("Greater"),
    lax.ge_p: _comparison("GreaterOrEqual"),
    lax.and_p: _logical("And"),
    lax.or_p: _logical("Or"),
    lax.not_p: _logical("Not"),
    lax.select_n_p: _select,
    lax.convert_element_type_p: _convert,
    lax.reduce_max_p: _reduce("ReduceMax"),
    lax.reduce_sum_p: _reduce("ReduceSum"),
    lax.argmax_p: _argmax,
    lax.broadcast_in_dim_p: _broadcast,
    lax.reshape_p: _reshape,
    lax.squeeze_p: squeeze,
    lax.transpose_p: _transpose,
    lax.concatenate_p: concatenate,
    lax.stack_p: stack,
    lax.tile_p: _tile,
    lax.copy_p: _same,
    lax.stop_gradient_p: _same,
}
