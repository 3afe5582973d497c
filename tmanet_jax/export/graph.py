"""An ONNX graph while it is written: nodes, constants, and the shape of every tensor."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

OPSET = 17
IR_VERSION = 8


@dataclasses.dataclass
class Node:
    """An operation with one output."""

    operator: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output of the whole graph."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


class Graph:
    """Nodes in the order in which they are computed."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._producers: dict[str, Node] = {}
        self._shared: dict[tuple[Any, ...] | None, str] = {}
        self._numbers = itertools.count()

    def input(self, port: Port) -> str:
        """Names a tensor that is given."""
        self.shapes[port.name] = port.shape
        return port.name

    def constant(self, array: np.ndarray) -> str:
        """The name of a constant; small ones that are equal share it."""
        array = np.ascontiguousarray(array)
        key = (array.dtype, array.shape, array.tobytes()) if array.size <= 64 else None
        if key in self._shared:
            return self._shared[key]
        name = f"constant_{next(self._numbers)}"
        self.constants[name] = array
        self.shapes[name] = array.shape
        if key is not None:
            self._shared[key] = name
        return name

    def add(
        self, operator: str, inputs: Iterable[str], shape: Iterable[int], **attributes: Any
    ) -> str:
        """Writes a node, and names its output of that shape."""
        output = f"{operator.lower()}_{next(self._numbers)}"
        node = Node(operator, list(inputs), output, attributes)
        self.nodes.append(node)
        self._producers[output] = node
        self.shapes[output] = tuple(shape)
        return output

    def reshape(self, name: str, shape: tuple[int, ...]) -> str:
        """The same numbers in another shape; of reshapes in a row the last one is left."""
        producer = self._producers.get(name)
        if producer is not None and producer.operator == "Reshape":
            name = producer.inputs[0]
        if self.shapes[name] == shape:
            return name
        return self.add("Reshape", [name, self.constant(np.array(shape, np.int64))], shape)

    def producer(self, name: str) -> Node | None:
        """What computes a tensor; None if it is given."""
        return self._producers.get(name)

    def uses(self, outputs: Iterable[str]) -> Counter[str]:
        """How often each tensor is read, by nodes or as an output of the graph."""
        uses = Counter(outputs)
        for node in self.nodes:
            uses.update(node.inputs)
        return uses

    def without_unused(self, outputs: Iterable[str]) -> None:
        """Drops what no output depends on."""
        needed = set(outputs)
        kept = []
        for node in reversed(self.nodes):
            if node.output in needed:
                kept.append(node)
                needed.update(node.inputs)
        self.nodes = kept[::-1]
        self.constants = {name: array for name, array in self.constants.items() if name in needed}
        self._shared = {key: name for key, name in self._shared.items() if name in needed}


def serialised(graph: Graph, inputs: list[Port], outputs: list[Port]) -> bytes:
    """The graph as an ONNX file.

    Args:
        graph: its tensors that are outputs have the names of `outputs`.
        inputs: in the order in which the file names them.
        outputs: as well.
    """
    import onnx
    from onnx import helper, numpy_helper

    def info(port: Port) -> onnx.ValueInfoProto:
        dtype = helper.np_dtype_to_tensor_dtype(port.dtype)
        return helper.make_tensor_value_info(port.name, dtype, port.shape)

    nodes = [
        helper.make_node(node.operator, node.inputs, [node.output], **node.attributes)
        for node in graph.nodes
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in graph.constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "tmanet", [*map(info, inputs)], [*map(info, outputs)], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tmanet-jax",
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()
