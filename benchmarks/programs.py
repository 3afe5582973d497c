"""The programs of a run, lowered for devices that are not at hand: shapes alone, no arrays."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from benchmarks.flops import clip_flops, stream_flops, training_flops
from tmanet_jax.data.codec import Size
from tmanet_jax.data.pipeline import Batch
from tmanet_jax.inference.stream import FrameStream
from tmanet_jax.inference.windows import windows_of
from tmanet_jax.inputs import blank_model
from tmanet_jax.parallel.sharding import DATA_AXIS, check_batch_size, make_mesh
from tmanet_jax.protocol import Protocol
from tmanet_jax.scoring.clips import compile_segmenter
from tmanet_jax.settings import Settings
from tmanet_jax.train.recipe import initial_state
from tmanet_jax.train.step import compile_train_step

Shapes = Any
"""A pytree of `jax.ShapeDtypeStruct`."""


@dataclasses.dataclass(frozen=True)
class LoweredProgram:
    """A program that the compiler can take.

    Attributes:
        lowered: for the devices of a topology.
        arguments: bytes of what goes into one chip, by name.
        mesh: size of each axis, by name.
        batch_size: clips or frames of one call, over all chips.
        frame_size: height and width of what goes in, in pixels.
        flops: operations of one call on all chips, by formula.
    """

    lowered: jax.stages.Lowered
    arguments: Mapping[str, int]
    mesh: Mapping[str, int]
    batch_size: int
    frame_size: tuple[int, int]
    flops: int


def lower_train(
    run: Settings, devices: Sequence[jax.Device], frame_size: tuple[int, int]
) -> LoweredProgram:
    """One step of training. Frames have the size of the crops; `frame_size` is of no concern.

    Raises:
        UserError: the devices do not divide the batch.
    """
    del frame_size
    mesh = make_mesh(devices, run.mesh)
    check_batch_size(run.batch_size, mesh, run.accumulate)
    recipe, arrays = initial_state(run, blank_model(run), None)
    state = _shapes(arrays)
    batch_size, size = run.batch_size, run.data.augmentation.crop_size
    batch = Batch(
        frames=_array((batch_size, run.model.head.num_memory + 1, *size, 3), jnp.uint8),
        labels=_array((batch_size, *size), jnp.uint8),
        sizes=_array((batch_size, 2), jnp.int32),
        indices=_array((batch_size,), jnp.int32),
    )
    return LoweredProgram(
        lowered=_lower(compile_train_step(recipe, mesh), state, batch),
        arguments={
            "parameters": _num_bytes(state.params),
            "statistics": _num_bytes(state.batch_stats),
            "optimiser": _num_bytes(state.opt_state),
            "batch": _num_bytes(batch) // mesh.shape[DATA_AXIS],
        },
        mesh=dict(mesh.shape),
        batch_size=batch_size,
        frame_size=size,
        flops=training_flops(run.model, size, batch_size),
    )


def lower_eval(
    run: Settings, devices: Sequence[jax.Device], frame_size: tuple[int, int]
) -> LoweredProgram:
    """A batch of whole clips, segmented and scored as the run's evaluation does it."""
    mesh = make_mesh(devices, run.mesh)
    config = run.evaluation
    batch_size = config.batch_size * mesh.shape[DATA_AXIS]
    recipe, arrays = initial_state(run, blank_model(run), None)
    state = _shapes(arrays)
    num_memory = run.model.head.num_memory
    sizes = config.view_sizes(frame_size)
    resized = tuple(_array((batch_size, num_memory + 1, *size, 3), jnp.uint8) for size in sizes)
    labels = _array((batch_size, *frame_size), jnp.uint8)
    predict = compile_segmenter(recipe.graphdef, num_memory, config, mesh).predict
    return LoweredProgram(
        lowered=_lower(predict, state.params, state.batch_stats, resized, labels),
        arguments={
            "parameters": _num_bytes(state.params),
            "statistics": _num_bytes(state.batch_stats),
            "batch": _num_bytes((resized, labels)) // mesh.shape[DATA_AXIS],
        },
        mesh=dict(mesh.shape),
        batch_size=batch_size,
        frame_size=frame_size,
        flops=batch_size * _clip_flops(run, sizes),
    )


def lower_stream(
    run: Settings, devices: Sequence[jax.Device], frame_size: tuple[int, int]
) -> LoweredProgram:
    """The newest frame of one video, seen whole, on the first device: streams use one each."""
    model = blank_model(run)
    stream = FrameStream(model, Protocol())
    _, arrays = initial_state(run, model, None)
    state = _shapes(arrays)
    memory = jax.eval_shape(lambda: stream.start(1, frame_size))
    return LoweredProgram(
        lowered=stream.lower(1, frame_size, SingleDeviceSharding(devices[0])),
        arguments={
            "parameters": _num_bytes(state.params),
            "statistics": _num_bytes(state.batch_stats),
            "memory": _num_bytes(memory),
            "batch": _num_bytes(_array((1, *frame_size, 3), jnp.uint8)),
        },
        mesh={},
        batch_size=1,
        frame_size=frame_size,
        flops=stream_flops(run.model, frame_size),
    )


Lower = Callable[[Settings, Sequence[jax.Device], tuple[int, int]], LoweredProgram]

PROGRAMS: Mapping[str, Lower] = {
    "train": lower_train,
    "eval": lower_eval,
    "stream": lower_stream,
}


def _num_bytes(shapes: Shapes) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _clip_flops(run: Settings, frame_sizes: Sequence[Size]) -> int:
    """Of a clip in all its views; the windows of one size all cost the same."""
    config, flops = run.evaluation, 0
    for size in frame_sizes:
        windows = windows_of(config.protocol, size)
        flops += len(windows) * clip_flops(run.model, windows.crop)
    return flops * (2 if config.flip else 1)


def _lower(jitted: Callable[..., object], *arguments: Shapes) -> jax.stages.Lowered:
    return cast(jax.stages.Wrapped, jitted).lower(*arguments)


def _shapes(tree: Any) -> Shapes:
    return jax.tree.map(lambda x: _array(x.shape, x.dtype), tree)


def _array(shape: Sequence[int], dtype: Any) -> Shapes:
    return jax.ShapeDtypeStruct(shape, dtype)
