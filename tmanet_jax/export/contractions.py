"""Convolutions, products and pooling of a jaxpr as ONNX nodes."""

import math
from typing import Any

import numpy as np
from jax import lax

from tmanet_jax.export.elementwise import Writer, as_value, cast, pointwise
from tmanet_jax.export.graph import Graph
from tmanet_jax.export.layout import Operand, Value, arranged, expanded, transposed


def _convolution(graph: Graph, params: dict[str, Any], x: Operand, kernel: Operand) -> Operand:
    dimensions = params["dimension_numbers"]
    assert set(params["lhs_dilation"]) == {1} and params["batch_group_count"] == 1
    value = expanded(graph, arranged(graph, as_value(graph, x), dimensions.lhs_spec))
    if isinstance(kernel, np.ndarray):
        weights = graph.constant(kernel.transpose(dimensions.rhs_spec))
    else:
        weights = expanded(graph, arranged(graph, kernel, dimensions.rhs_spec)).name
    low, high = zip(*params["padding"], strict=True)
    sizes = graph.shapes[weights][2:]
    spatial = [
        (size + before + after - dilation * (taps - 1) - 1) // stride + 1
        for size, before, after, dilation, taps, stride in zip(
            value.stored[2:],
            low,
            high,
            params["rhs_dilation"],
            sizes,
            params["window_strides"],
            strict=True,
        )
    ]
    stored = (value.stored[0], graph.shapes[weights][0], *spatial)
    name = graph.add(
        "Conv",
        [value.name, weights],
        stored,
        kernel_shape=list(sizes),
        strides=list(params["window_strides"]),
        pads=[*low, *high],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    return _of_stored(name, stored, value.dtype, dimensions.out_spec)


def _of_stored(
    name: str, stored: tuple[int, ...], dtype: np.dtype, layout: tuple[int, ...]
) -> Value:
    shape = tuple(stored[layout.index(axis)] for axis in range(len(layout)))
    return Value(name, shape, dtype, tuple(layout))


def _product(graph: Graph, params: dict[str, Any], a: Operand, b: Operand) -> Operand:
    (axes_a, axes_b), (batch_a, batch_b) = params["dimension_numbers"]
    assert len(axes_a) == 1, "a product over several axes"
    dtype = np.dtype(params["preferred_element_type"] or a.dtype)
    if isinstance(b, np.ndarray) and b.ndim == 2 and isinstance(a, Value):
        matrix_IxO = b if axes_b[0] == 0 else b.T
        result = _along_axis(graph, a, axes_a[0], matrix_IxO)
        order = [*(axis for axis in range(len(a.shape)) if axis != axes_a[0]), axes_a[0]]
        return cast(graph, transposed(result, order), dtype)
    if isinstance(a, np.ndarray) and a.ndim == 2 and isinstance(b, Value):
        matrix_IxO = a if axes_a[0] == 0 else a.T
        result = _along_axis(graph, b, axes_b[0], matrix_IxO)
        order = [axes_b[0], *(axis for axis in range(len(b.shape)) if axis != axes_b[0])]
        return cast(graph, transposed(result, order), dtype)
    left, right = as_value(graph, a), as_value(graph, b)
    free_a = [i for i in range(len(left.shape)) if i not in (*axes_a, *batch_a)]
    free_b = [i for i in range(len(right.shape)) if i not in (*axes_b, *batch_b)]
    assert len(free_a) == len(free_b) == 1, "a product of more than rows and columns"
    left = expanded(graph, arranged(graph, left, [*batch_a, *free_a, *axes_a]))
    right = expanded(graph, arranged(graph, right, [*batch_b, *axes_b, *free_b]))
    shape = (*left.stored[:-1], right.stored[-1])
    name = graph.add("MatMul", [left.name, right.name], shape)
    return cast(graph, Value(name, shape, left.dtype, tuple(range(len(shape)))), dtype)


def _along_axis(graph: Graph, x: Value, axis: int, matrix_IxO: np.ndarray) -> Value:
    """Rows along an axis times a matrix; the axis stays where it is.

    Along the channels of pictures that is a 1x1 convolution.
    """
    x = expanded(graph, x)
    place, rank = x.place(axis), len(x.shape)
    if rank == 4 and place == 1:
        return _pointwise_convolution(graph, x, axis, matrix_IxO)
    if place not in (rank - 2, rank - 1):
        x = arranged(graph, x, [*(a for a in x.layout if a != axis), axis])
        place = rank - 1
    stored = tuple(matrix_IxO.shape[1] if i == place else n for i, n in enumerate(x.stored))
    if place == rank - 1:
        name = graph.add("MatMul", [x.name, graph.constant(matrix_IxO)], stored)
    else:
        name = graph.add("MatMul", [graph.constant(matrix_IxO.T), x.name], stored)
    return _of_stored(name, stored, x.dtype, x.layout)


def _pointwise_convolution(graph: Graph, x: Value, axis: int, matrix_IxO: np.ndarray) -> Value:
    name, strides = x.name, [1, 1]
    producer = graph.producer(name)
    if producer is not None and producer.operator == "Slice":
        starts, _, axes, steps = (graph.constants[i].tolist() for i in producer.inputs[1:])
        if not any(starts) and axes == [2, 3]:
            name, strides = producer.inputs[0], steps
    stored = (x.stored[0], matrix_IxO.shape[1], *x.stored[2:])
    weights = graph.constant(matrix_IxO.T[:, :, None, None])
    name = graph.add(
        "Conv",
        [name, weights],
        stored,
        kernel_shape=[1, 1],
        strides=strides,
        pads=[0, 0, 0, 0],
        dilations=[1, 1],
        group=1,
    )
    return _of_stored(name, stored, x.dtype, x.layout)


def _max_pool(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    return _pooled(graph, params, x, "MaxPool")


def _sum_pool(graph: Graph, params: dict[str, Any], x: Operand) -> Operand:
    """The mean over a window, padding counted, times its positions."""
    mean = _pooled(graph, params, x, "AveragePool", count_include_pad=1)
    positions = np.asarray(math.prod(params["window_dimensions"]), mean.dtype)
    return pointwise(graph, "Mul", [mean, positions], mean.dtype)


def _pooled(
    graph: Graph, params: dict[str, Any], x: Operand, operator: str, **attributes: Any
) -> Value:
    assert {*params["base_dilation"], *params["window_dilation"]} == {1}
    window, strides = params["window_dimensions"], params["window_strides"]
    value = as_value(graph, x)
    pooled = [axis for axis in value.layout if window[axis] > 1]
    others = [axis for axis in value.layout if window[axis] == 1]
    value = expanded(graph, arranged(graph, value, [*others, *pooled]))
    assert len(others) == 2 and all(strides[axis] == 1 for axis in others)
    padding = [params["padding"][axis] for axis in pooled]
    spatial = [
        (value.shape[axis] + sum(pads) - window[axis]) // strides[axis] + 1
        for axis, pads in zip(pooled, padding, strict=True)
    ]
    stored = (*value.stored[:2], *spatial)
    name = graph.add(
        operator,
        [value.name],
        stored,
        kernel_shape=[window[axis] for axis in pooled],
        strides=[strides[axis] for axis in pooled],
        pads=[pads[0] for pads in padding] + [pads[1] for pads in padding],
        **attributes,
    )
    return _of_stored(name, stored, value.dtype, value.layout)


WRITERS: dict[Any, Writer] = {
    lax.conv_general_dilated_p: _convolution,
    lax.dot_general_p: _product,
    lax.reduce_window_max_p: _max_pool,
    lax.reduce_window_sum_p: _sum_pool,
}
