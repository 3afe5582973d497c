"""What is exported: a function of frames and state, with the names of what goes in and out.

The streaming step takes the newest frame of each stream and what was remembered; the whole clip
takes its frames at once and remembers nothing.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp

from tmanet_jax.errors import UserError
from tmanet_jax.inference.stream import StreamingNetwork, StreamOutput
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.protocol import Protocol

Kind = Literal["stream", "clip"]
Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A function to be written in the language of an engine.

    Attributes:
        kind: "stream" or "clip".
        function: weights and named inputs -> named outputs: `labels` uint8 BxHxW, and of a stream
            `logits` at stride 8 and the state's arrays, which have the names of the inputs.
        weights: its first argument, a pytree of arrays.
        inputs: `frames` uint8 RGB, BxHxWx3 or of a clip BxSxHxWx3; of a stream `reset` bool B and
            the state's arrays, which are zeros at the start.
        outputs: their shapes and types.
        probabilities: from the outputs to the class probabilities of the frames, BxHxWxC.
    """

    kind: Kind
    function: Callable[[Any, Arrays], Arrays]
    weights: Any
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: dict[str, jax.ShapeDtypeStruct]
    probabilities: Callable[[Arrays], jax.Array]

    @property
    def state(self) -> list[str]:
        """Names of the state's arrays."""
        return [name for name in self.inputs if name not in ("frames", "reset")]

    def output_name(self, name: str) -> str:
        """What an output is called in a file, where no input may have its name."""
        return f"new_{name}" if name in self.inputs else name


def any_size() -> tuple[Any, Any]:
    """Height and width, multiples of 8, that stay open until a program is called."""
    h, w = jax.export.symbolic_shape("h, w", constraints=["h >= 1", "w >= 1"])
    return 8 * h, 8 * w


def program_of(
    model: TMANet, protocol: Protocol, kind: Kind, streams: int, size: tuple[int, int]
) -> Program:
    """The program of a network for frames of one size, or of `any_size`.

    Args:
        model: with its parameters.
        protocol: how frames are segmented; who has the frames resizes them before.
        kind: the streaming step, or the whole clip.
        streams: B.
        size: height and width of the frames, and of the labels, before they are resized.

    Raises:
        UserError: no frame is so small, or the protocol's scale leaves nothing of it.
    """
    if streams < 1 or any(n < 1 for n in size):
        raise UserError(f"{streams} streams of {size[0]}x{size[1]} pixels: both must be above 0.")
    if kind == "clip":
        return _clip(model, dataclasses.replace(protocol, memory_stride=1), streams, size)
    return _step(StreamingNetwork(model, protocol), streams, size)


def _step(network: StreamingNetwork, streams: int, size: tuple[int, int]) -> Program:
    network.tell_of(size)
    step, weights = network.pure_step(size)
    state = network.shapes_of_state(streams, size)
    paths, tree = jax.tree_util.tree_flatten_with_path(state)
    names = [_name(path) for path, _ in paths]
    assert len(set(names)) == len(names), names
    inputs = {
        "frames": jax.ShapeDtypeStruct((streams, *network.protocol.size_of(size), 3), jnp.uint8),
        "reset": jax.ShapeDtypeStruct((streams,), jnp.bool_),
    } | {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype)
        for name, (_, x) in zip(names, paths, strict=True)
    }

    def function(weights: Any, given: Arrays) -> Arrays:
        state = jax.tree.unflatten(tree, [given[name] for name in names])
        state, output = step(weights, state, given["frames"], given["reset"])
        state_of = dict(zip(names, jax.tree.leaves(state), strict=True))
        return {"labels": output.labels_BxHxW, "logits": output.logits_NxhxwxC} | state_of

    outputs = jax.eval_shape(function, weights, inputs)
    return Program("stream", function, weights, inputs, outputs, _probabilities(network))


def _probabilities(network: StreamingNetwork) -> Callable[[Arrays], jax.Array]:
    return lambda outputs: network.probabilities(StreamOutput(outputs["labels"], outputs["logits"]))


def _name(path: tuple[Any, ...]) -> str:
    """A leaf's path in words: `.rings[0].key` is rings_0_key."""
    return re.sub(r"\W+", "_", jax.tree_util.keystr(path)).strip("_")


def _clip(model: TMANet, protocol: Protocol, clips: int, size: tuple[int, int]) -> Program:
    """The streaming step from a start, once for each frame: equal to the whole clip at once."""
    network = StreamingNetwork(model, protocol)
    network.tell_of(size)
    step, weights = network.pure_step(size)
    length = network.reach + 1
    inputs = {
        "frames": jax.ShapeDtypeStruct((clips, length, *protocol.size_of(size), 3), jnp.uint8)
    }

    def function(weights: Any, given: Arrays) -> Arrays:
        shapes = network.shapes_of_state(clips, size)
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        for index in range(length):
            frames_BxHxWx3 = given["frames"][:, index]
            reset_B = jnp.full(clips, index == 0)
            state, output = step(weights, state, frames_BxHxWx3, reset_B)
        return {"labels": output.labels_BxHxW, "logits": output.logits_NxhxwxC}

    outputs = jax.eval_shape(function, weights, inputs)
    return Program("clip", function, weights, inputs, outputs, _probabilities(network))
