"""The programs of a run, lowered for devices that are not at hand: shapes alone, no arrays."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from benchmarks.flops import clip_flops, stream_flops, training_flops
from tmanet_jax.data.samples import Batch
from tmanet_jax.inference.stream import FrameStream
from tmanet_jax.inference.windows import windows_of
from tmanet_jax.models.tmanet import TMANet, blank_model
from tmanet_jax.parallel.sharding import DATA_AXIS, check_batch_size, make_mesh
from tmanet_jax.protocol import Protocol
from tmanet_jax.scoring.clips import compile_segmenter
from tmanet_jax.settings import Settings
from tmanet_jax.training.recipe import initial_state
from tmanet_jax.training.step import Recipe, TrainState, compile_train_step

Frame = tuple[int, int]
"""Height and width of whole frames."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A program of a run that the compiler can take.

    Attributes:
        lowered: for the devices of a topology; shapes alone, no arrays.
        arguments: bytes of what goes into one chip, by name.
        mesh: size of each axis, by name.
        frames: what goes in at each call, over all chips: clips, frames of each, height, width.
        flops: operations of one call on all chips, by formula.
    """

    lowered: jax.stages.Lowered
    arguments: Mapping[str, int]
    mesh: Mapping[str, int]
    frames: tuple[int, int, int, int]
    flops: int


def lower_train(
    run: Settings, devices: Sequence[jax.Device], frame_size: tuple[int, int]
) -> Program:
    """One step of training. Frames have the size of the crops; `frame_size` is of no concern.

    Raises:
        UserError: the devices do not divide the batch.
    """
    del frame_size
    mesh = make_mesh(devices, run.mesh)
    check_batch_size(run.batch_size, mesh, run.accumulate)
    recipe, _, state = _blank(run)
    batch_size, size = run.batch_size, run.data.augmentation.crop_size
    frames = (batch_size, run.model.head.num_memory + 1, *size)
    batch = Batch(
        frames=_array((*frames, 3), jnp.uint8),
        labels=_array((batch_size, *size), jnp.uint8),
        sizes=_array((batch_size, 2), jnp.int32),
        indices=_array((batch_size,), jnp.int32),
    )
    return Program(
        lowered=_lower(compile_train_step(recipe, mesh), state, batch),
        arguments={
            **_weights(state),
            "optimiser": _num_bytes(state.opt_state),
            "batch": _num_bytes(batch) // mesh.shape[DATA_AXIS],
        },
        mesh=dict(mesh.shape),
        frames=frames,
        flops=training_flops(run.model, size, batch_size),
    )


def lower_eval(
    run: Settings, devices: Sequence[jax.Device], frame_size: tuple[int, int]
) -> Program:
    """A batch of whole clips, segmented and scored as the run's evaluation does it."""
    mesh, config = make_mesh(devices, run.mesh), run.evaluation
    recipe, _, state = _blank(run)
    batch_size, num_memory = config.batch_size * mesh.shape[DATA_AXIS], run.model.head.num_memory
    views = config.view_sizes(frame_size)
    resized = tuple(_array((batch_size, num_memory + 1, *view, 3), jnp.uint8) for view in views)
    labels = _array((batch_size, *frame_size), jnp.uint8)
    predict = compile_segmenter(recipe.graphdef, num_memory, config, mesh).predict
    windows = [
        windows_of(config.protocol, view) for view in views
    ]  # of one view: all cost the same
    flops = sum(len(each) * clip_flops(run.model, each.crop) for each in windows)
    return Program(
        lowered=_lower(predict, state.params, state.batch_stats, resized, labels),
        arguments={
            **_weights(state),
            "batch": _num_bytes((resized, labels)) // mesh.shape[DATA_AXIS],
        },
        mesh=dict(mesh.shape),
        frames=(batch_size, num_memory + 1, *frame_size),
        flops=batch_size * flops * (2 if config.flip else 1),
    )


def lower_stream(
    run: Settings, devices: Sequence[jax.Device], frame_size: tuple[int, int]
) -> Program:
    """The newest frame of one video, seen whole, on the first device: streams use one each."""
    _, model, state = _blank(run)
    stream = FrameStream(model, Protocol())
    return Program(
        lowered=stream.lower(1, frame_size, SingleDeviceSharding(devices[0])),
        arguments={
            **_weights(state),
            "memory": _num_bytes(jax.eval_shape(lambda: stream.start(1, frame_size))),
            "batch": _num_bytes(_array((1, *frame_size, 3), jnp.uint8)),
        },
        mesh={},
        frames=(1, 1, *frame_size),
        flops=stream_flops(run.model, frame_size),
    )


LOWER: Mapping[str, Callable[[Settings, Sequence[jax.Device], Frame], Program]] = {
    "train": lower_train,
    "eval": lower_eval,
    "stream": lower_stream,
}
"""By `--program`."""


def _blank(run: Settings) -> tuple[Recipe, TMANet, TrainState]:
    """A run's recipe, network and state; of arrays the shapes alone."""
    model = blank_model(run.model)
    recipe, state = initial_state(run, model, None)
    return recipe, model, jax.tree.map(lambda x: _array(x.shape, x.dtype), state)


def _weights(state: TrainState) -> dict[str, int]:
    return {
        "parameters": _num_bytes(state.params),
        "statistics": _num_bytes(state.batch_stats),
    }


def _num_bytes(shapes: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _lower(jitted: Callable[..., object], *shapes: Any) -> jax.stages.Lowered:
    return cast(jax.stages.Wrapped, jitted).lower(*shapes)


def _array(shape: Sequence[int], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)
