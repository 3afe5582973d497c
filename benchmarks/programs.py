"""What a run's devices run, made of shapes alone, for a compiler: training, scoring, streaming."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.flops import clip_flops, stream_flops, training_flops
from tmanet_jax.errors import UserError, counted
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.inference.windows import windows_of
from tmanet_jax.models.tmanet import ModelConfig, TMANet, abstract_model, blank_model
from tmanet_jax.parallel.sharding import DATA_AXIS, make_mesh, replicated
from tmanet_jax.scoring.clips import compile_segmenter
from tmanet_jax.settings import Settings
from tmanet_jax.training import summary


@dataclasses.dataclass(frozen=True)
class Program:
    """A program that a compiler can take.

    Attributes:
        lowered: for the devices of a topology; shapes alone, no arrays.
        mesh: size of each axis, by name.
        count: of the clips, or frames of as many streams, that a call takes on all chips.
        each: what they are, as in ("clip", "of 3 frames 769x769").
        flops: operations on all chips.
    """

    lowered: jax.stages.Lowered
    mesh: Mapping[str, int]
    count: int
    each: tuple[str, str]
    flops: int


def training_step(run: Settings, devices: Sequence[jax.Device]) -> Program:
    """One step of training.

    Raises:
        UserError: the devices do not divide the batch.
    """
    mesh, size = make_mesh(devices, run.mesh), run.data.augmentation.crop_size
    return Program(
        lowered=summary.lower_step(run, mesh),
        mesh=dict(mesh.shape),
        count=run.batch_size,
        each=_clip_of(run, size),
        flops=training_flops(run.model, size, run.batch_size),
    )


def scoring_step(run: Settings, devices: Sequence[jax.Device], size: tuple[int, int]) -> Program:
    """One batch of `run.py eval`: `config.eval.batch_size` whole clips a device.

    Args:
        run: its settings.
        devices: of one process, which scores its own clips.
        size: height and width of the frames in pixels.
    """
    mesh, config = make_mesh(devices), run.evaluation
    clips, length = config.batch_size * mesh.shape[DATA_AXIS], run.model.head.num_memory + 1
    graphdef, *weights = nnx.split(abstract_model(run.model), nnx.Param, ...)
    program = compile_segmenter(graphdef, length - 1, config, mesh)
    resized = tuple(_pixels(clips, length, *view, 3) for view in config.view_sizes(size))
    lower: Any = program.predict
    return Program(
        lowered=lower.lower(*weights, resized, _pixels(clips, *size)),
        mesh=dict(mesh.shape),
        count=clips,
        each=_clip_of(run, size),
        flops=clips * sum(_flops_of_view(run, view) for view in config.view_sizes(size)),
    )


def stream_step(
    run: Settings, devices: Sequence[jax.Device], size: tuple[int, int], *, int8: bool = False
) -> Program:
    """The newest frame of one stream, on one chip, with one pass of the backbone.

    Args:
        run: its settings.
        devices: of a topology; the first one computes.
        size: height and width of the frames in pixels, which are not resized.
        int8: whether convolutions are.

    Raises:
        UserError: qwix, which makes them so, is not installed.
    """
    mesh, protocol = make_mesh(devices[:1]), run.evaluation.protocol
    model = _in_int8(run.model) if int8 else abstract_model(run.model)
    network = StreamingNetwork(model, protocol)
    step, weights = network.pure_step(size)
    there = replicated(mesh)
    compiled = jax.jit(step, donate_argnums=1, in_shardings=there, out_shardings=there)
    state, reset_B = network.shapes_of_state(1, size), jax.ShapeDtypeStruct((1,), jnp.bool)
    windows = windows_of(protocol, size)
    return Program(
        lowered=compiled.lower(weights, state, _pixels(1, *size, 3), reset_B),
        mesh=dict(mesh.shape),
        count=1,
        each=("frame", f"{size[0]}x{size[1]}"),
        flops=len(windows) * stream_flops(run.model, windows.crop),
    )


def _in_int8(config: ModelConfig) -> TMANet:
    """The network with int8 kernels and features in each convolution; blank.

    qwix takes over one method of a model at a time, with a class of its own: here one has all.
    """
    try:
        import qwix
    except ImportError as error:
        raise UserError("--int8 needs qwix: pip install -r requirements-tpu.txt.") from error
    model = blank_model(config)
    frame = jnp.zeros((1, 64, 64, 3))
    features = model.encode(frame)
    inputs = {
        "encode": (frame,),
        "remember": (features,),
        "read": (features, model.remember(features)),
    }
    provider = qwix.QtProvider([qwix.QtRule(weight_qtype=jnp.int8, act_qtype=jnp.int8)])
    methods = {}
    for name, given in inputs.items():
        model = qwix.quantize_model(model, provider, *given, methods=(name,))
        methods[name] = vars(type(model))[name]
    model.__class__ = type("Int8TMANet", (TMANet,), methods)
    return model


def _flops_of_view(run: Settings, size: tuple[int, int]) -> int:
    windows = windows_of(run.evaluation.protocol, size)
    mirrored = 2 if run.evaluation.flip else 1
    return mirrored * len(windows) * clip_flops(run.model, windows.crop)


def _clip_of(run: Settings, size: tuple[int, int]) -> tuple[str, str]:
    frames = counted(run.model.head.num_memory + 1, "frame")
    return "clip", f"of {frames} {size[0]}x{size[1]}"


def _pixels(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.uint8)
