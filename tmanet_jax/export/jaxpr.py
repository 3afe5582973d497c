"""A jaxpr as an ONNX graph: calls are inlined, loops unrolled, what can be known is computed.

It is the program of no platform in particular: where a network chooses by platform, its default is
taken, so that engines see the plain convolutions and products for which they are fast.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from tmanet_jax.errors import UserError
from tmanet_jax.export import contractions, elementwise, indexing
from tmanet_jax.export.graph import Graph
from tmanet_jax.export.layout import Operand

_WRITERS = elementwise.WRITERS | contractions.WRITERS | indexing.WRITERS


def write_jaxpr(graph: Graph, closed: ClosedJaxpr, operands: Sequence[Operand]) -> list[Operand]:
    """Writes a function.

    Args:
        graph: what is written to.
        closed: the function.
        operands: its arguments, of which some may be known.

    Returns:
        what it returns, of which some may be known too.

    Raises:
        UserError: it has an operation that cannot be written.
    """
    return _write(graph, closed.jaxpr, [np.asarray(x) for x in closed.consts], operands)


def _write(
    graph: Graph, jaxpr: Jaxpr, constants: Sequence[Operand], operands: Sequence[Operand]
) -> list[Operand]:
    known: dict[Any, Operand] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *operands], strict=True)
    )

    def read(variable: Any) -> Operand:
        if isinstance(variable, Literal):
            aval: Any = variable.aval
            return np.asarray(variable.val, aval.dtype)
        return known[variable]

    for equation in jaxpr.eqns:
        results = _write_equation(graph, equation, [read(x) for x in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _write_equation(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":
        return [np.asarray(len(params["platforms"]) - 1, np.int32)]
    if name == "cond":
        index, *arguments = operands
        if isinstance(index, np.ndarray):
            return write_jaxpr(graph, params["branches"][int(index)], arguments)
    if name == "scan":
        return _unrolled(graph, params, operands)
    for inner in ("jaxpr", "call_jaxpr"):
        if inner in params:
            called = params[inner]
            if isinstance(called, ClosedJaxpr):
                return write_jaxpr(graph, called, operands)
            return _write(graph, called, [], operands)
    if all(isinstance(x, np.ndarray) for x in operands):
        return _computed(equation, operands)
    writer = _WRITERS.get(equation.primitive)
    if writer is None:
        raise UserError(
            f"The network computes {name!r}, which export to ONNX and OpenVINO cannot write: "
            "choose the format stablehlo."
        )
    return [writer(graph, params, *operands)]


_NUMPY: dict[Any, Callable[..., Any]] = {
    lax.add_p: np.add,
    lax.sub_p: np.subtract,
    lax.mul_p: np.multiply,
    lax.rsqrt_p: lambda x: np.reciprocal(np.sqrt(x)),
    lax.convert_element_type_p: lambda x: x,
    lax.reshape_p: lambda x: x,
    lax.squeeze_p: lambda x: x,
}
"""What each layer has: jax would compile it for each of their shapes."""


def _computed(equation: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    if equation.primitive in _NUMPY:
        result = _NUMPY[equation.primitive](*operands)
        expected: Any = equation.outvars[0].aval
        return [np.asarray(result, expected.dtype).reshape(expected.shape)]
    results = equation.primitive.bind(*operands, **equation.params)
    return [np.asarray(x) for x in (results if equation.primitive.multiple_results else [results])]


def _unrolled(graph: Graph, params: dict[str, Any], operands: list[Operand]) -> list[Operand]:
    """`lax.scan`, one round after the other."""
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    constants = operands[:num_consts]
    carry = operands[num_consts : num_consts + num_carry]
    items = operands[num_consts + num_carry :]
    rounds: list[list[Operand]] = []
    for index in _indices(params):
        some = [indexing.row(graph, item, index) for item in items]
        results = write_jaxpr(graph, params["jaxpr"], [*constants, *carry, *some])
        carry = results[:num_carry]
        rounds.append(results[num_carry:])
    if params["reverse"]:
        rounds.reverse()
    return [*carry, *(_stacked(graph, rows) for rows in zip(*rounds, strict=True))]


def _indices(params: dict[str, Any]) -> Iterator[int]:
    indices = range(params["length"])
    return reversed(indices) if params["reverse"] else iter(indices)


def _stacked(graph: Graph, rows: Sequence[Operand]) -> Operand:
    if all(isinstance(row, np.ndarray) for row in rows):
        return np.stack([np.asarray(row) for row in rows])
    return elementwise.stack(graph, {"axis": 0}, *rows)
