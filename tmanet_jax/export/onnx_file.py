"""A program as an ONNX file."""

import jax
import numpy as np

from tmanet_jax.export.elementwise import as_value
from tmanet_jax.export.fuse import fuse
from tmanet_jax.export.graph import Graph, Port, serialised
from tmanet_jax.export.jaxpr import write_jaxpr
from tmanet_jax.export.layout import Value, arranged, expanded, identity
from tmanet_jax.export.program import Program


def onnx_of(program: Program) -> bytes:
    """Writes the file, opset 17: state with channels before height and width, the rest as it is.

    Args:
        program: with its weights, which become constants.

    Raises:
        UserError: the network computes something that cannot be written.
    """
    closed, shapes = jax.make_jaxpr(program.function, return_shape=True)(
        program.weights, program.inputs
    )
    weights = [np.asarray(x) for x in jax.tree.leaves(program.weights)]
    graph = Graph()
    names = sorted(program.inputs)  # as jax flattens dictionaries
    inputs = {name: _given(graph, program, name) for name in names}
    results = write_jaxpr(graph, closed, [*weights, *inputs.values()])
    outputs = {}
    for name, result in zip(sorted(shapes), results, strict=True):
        value = as_value(graph, result)
        value = expanded(graph, arranged(graph, value, stored_layout(program, name)))
        port = program.output_name(name)
        graph.add("Identity", [value.name], value.stored)
        graph.nodes[-1].output = port
        outputs[name] = Port(port, value.stored, value.dtype)
    fuse(graph, [port.name for port in outputs.values()])
    return serialised(
        graph,
        [Port(name, inputs[name].stored, inputs[name].dtype) for name in program.inputs],
        [outputs[name] for name in program.outputs],
    )


def stored_layout(program: Program, name: str) -> tuple[int, ...]:
    """How an input or output is stored: the state as engines keep it, so that nothing is turned."""
    rank = len((program.inputs.get(name) or program.outputs[name]).shape)
    if name not in program.state or rank < 4:
        return identity(rank)
    return (*range(rank - 3), rank - 1, rank - 3, rank - 2)


def stored_shape(program: Program, name: str) -> tuple[int, ...]:
    """Its shape in the file."""
    shape = (program.inputs.get(name) or program.outputs[name]).shape
    return tuple(shape[axis] for axis in stored_layout(program, name))


def _given(graph: Graph, program: Program, name: str) -> Value:
    spec, layout = program.inputs[name], stored_layout(program, name)
    port = Port(name, stored_shape(program, name), np.dtype(spec.dtype))
    return Value(graph.input(port), spec.shape, port.dtype, layout)
