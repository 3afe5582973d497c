"""Rewrites an ONNX graph into the operations that engines have kernels for."""

from collections.abc import Sequence

import numpy as np

from tmanet_jax.export.graph import Graph, Node


def fuse(graph: Graph, outputs: Sequence[str]) -> None:
    """Batch norm enters its convolution, and exponentials over their sum become a softmax."""
    graph.without_unused(outputs)
    _softmax(graph, outputs)
    graph.without_unused(outputs)
    _fold_into_convolutions(graph, outputs)
    graph.without_unused(outputs)


def _softmax(graph: Graph, outputs: Sequence[str]) -> None:
    """exp(x - max x) @ v / sum exp(x - max x) -> softmax(x) @ v, along the last axis."""
    for node in list(graph.nodes):
        if node.operator != "Div":
            continue
        product, total = (graph.producer(name) for name in node.inputs)
        if product is None or total is None or product.operator != "MatMul":
            continue
        exponential = graph.producer(product.inputs[0])
        if not _is_sum_of(graph, total, exponential):
            continue
        assert exponential is not None
        scores = _scores_of(graph, exponential)
        if scores is None:
            continue
        softmax = Node("Softmax", [scores], f"{exponential.output}_weights", {"axis": -1})
        read = Node("MatMul", [softmax.output, product.inputs[1]], node.output, {})
        for added in (softmax, read):
            graph.shapes[added.output] = graph.shapes[exponential.output]
        place = graph.nodes.index(node)
        graph.nodes[place : place + 1] = [softmax, read]


def _is_sum_of(graph: Graph, total: Node, exponential: Node | None) -> bool:
    return (
        exponential is not None
        and exponential.operator == "Exp"
        and total.operator == "ReduceSum"
        and total.inputs[0] == exponential.output
        and graph.constants[total.inputs[1]].tolist() == [_last_axis(graph, exponential)]
    )


def _scores_of(graph: Graph, exponential: Node) -> str | None:
    """x, if the exponential is that of x - max x."""
    difference = graph.producer(exponential.inputs[0])
    if difference is None or difference.operator != "Sub":
        return None
    scores, largest = difference.inputs[0], graph.producer(difference.inputs[1])
    is_largest = (
        largest is not None
        and largest.operator == "ReduceMax"
        and largest.inputs[0] == scores
        and largest.attributes["axes"] == [_last_axis(graph, exponential)]
    )
    return scores if is_largest else None


def _last_axis(graph: Graph, node: Node) -> int:
    return len(graph.shapes[node.output]) - 1


def _fold_into_convolutions(graph: Graph, outputs: Sequence[str]) -> None:
    """Gains and shifts of channels become those of the convolution before them."""
    uses = graph.uses(outputs)
    names: dict[str, str] = {}
    convolutions: dict[str, Node] = {}
    kept = []
    for node in graph.nodes:
        node.inputs = [names.get(name, name) for name in node.inputs]
        convolution, of_channels = _after_convolution(graph, node, convolutions)
        if convolution is None or of_channels is None or uses[convolution.output] > 1:
            kept.append(node)
            if node.operator == "Conv" and node.inputs[1] in graph.constants:
                convolutions[node.output] = node
            continue
        if node.operator == "Mul":
            _scale(graph, convolution, of_channels)
        else:
            _shift(graph, convolution, of_channels)
        uses[convolution.output] = uses[node.output]
        if node.output in outputs:
            names[node.output] = node.output
            del convolutions[convolution.output]
            convolution.output = node.output
            convolutions[node.output] = convolution
        else:
            names[node.output] = convolution.output
    graph.nodes = kept


def _after_convolution(
    graph: Graph, node: Node, convolutions: dict[str, Node]
) -> tuple[Node | None, np.ndarray | None]:
    """The convolution whose result a node scales or shifts by constants, one for each channel."""
    if node.operator not in ("Mul", "Add"):
        return None, None
    for name, other in (node.inputs, node.inputs[::-1]):
        convolution = convolutions.get(name)
        if convolution is not None and other in graph.constants:
            return convolution, _of_channels(graph.constants[other], graph.shapes[name])
    return None, None


def _of_channels(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The constant by channel, C; None if it is not the same at every position."""
    channels = shape[1]
    if array.size == 1:
        return np.full(channels, array.reshape(()), array.dtype)
    by_axis = (1,) * (len(shape) - array.ndim) + array.shape
    if by_axis == (1, channels) + (1,) * (len(shape) - 2):
        return array.reshape(channels)
    return None


def _scale(graph: Graph, convolution: Node, gain_C: np.ndarray) -> None:
    weights, *bias = (graph.constants[name] for name in convolution.inputs[1:])
    weights = weights * gain_C.reshape(-1, *[1] * (weights.ndim - 1))
    convolution.inputs[1:] = [graph.constant(x) for x in (weights, *(b * gain_C for b in bias))]


def _shift(graph: Graph, convolution: Node, shift_C: np.ndarray) -> None:
    bias = convolution.inputs[2:]
    shifted = graph.constants[bias[0]] + shift_C if bias else shift_C
    convolution.inputs[2:] = [graph.constant(shifted)]
