"""Operations by formula, against those of the program that jax makes of the network."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.interpreters.partial_eval import dce_jaxpr

from benchmarks.flops import clip_flops, stream_flops, training_flops
from tests.made.small_networks import untrained
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.models.head import HeadConfig
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig, abstract_model
from tmanet_jax.protocol import Protocol

SIZE = (72, 104)
"""Divisible by the strides, so that the gradient of a strided convolution is counted exactly."""
HEAD = TMAHeadConfig(num_classes=5, num_memory=2, key_channels=6, value_channels=10, channels=14)
NETWORKS = [
    ModelConfig(ResNetConfig(depth=50, width=4, blocks=(1, 1, 2, 1)), HEAD),
    ModelConfig(ResNetConfig(depth=18, width=6, blocks=(2, 1, 1, 1), deep_stem=False), HEAD),
    ModelConfig(ResNetConfig(depth=18, width=4, blocks=(1, 1, 1, 1)), HEAD, memory_gradient=False),
    ModelConfig(ResNetConfig(depth=18, width=4, blocks=(1, 1, 1, 1)), replace(HEAD, num_memory=0)),
]


def traced_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Twice the multiply-adds of the convolutions and products that a function's result needs."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    needed, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _flops_of(needed)


def _flops_of(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        parameters, out = equation.params, math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            total += 2 * out * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_channels = kernel[parameters["dimension_numbers"].rhs_spec[0]]
            zeros = math.prod(parameters["lhs_dilation"])  # put between the input's rows
            total += 2 * out * math.prod(kernel) // out_channels // zeros
        elif equation.primitive.name == "cond":  # ways to compute the same, by platform
            (cost,) = {_flops_of(branch.jaxpr) for branch in parameters["branches"]}
            total += cost
        else:
            inner = (value for value in parameters.values() if hasattr(value, "jaxpr"))
            total += sum(_flops_of(value.jaxpr) for value in inner)
    return total


def abstract(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    network = abstract_model(config)
    graphdef, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, batch_stats = states
    return graphdef, params, batch_stats


def clips(config: ModelConfig, batch_size: int) -> jax.ShapeDtypeStruct:
    shape = (batch_size, config.head.num_memory + 1, *SIZE, 3)
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize("config", NETWORKS)
def test_a_clip_costs_what_its_program_does(config: ModelConfig) -> None:
    graphdef, params, batch_stats = abstract(config)

    def forward(params: nnx.State, batch_stats: nnx.State, frames: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params, batch_stats)(frames).main

    traced = traced_flops(forward, params, batch_stats, clips(config, 1))
    assert clip_flops(config, SIZE) == traced


@pytest.mark.parametrize("config", NETWORKS)
def test_a_step_of_training_costs_what_its_program_does(config: ModelConfig) -> None:
    graphdef, params, batch_stats = abstract(config)

    def loss(params: nnx.State, batch_stats: nnx.State, frames: jax.Array) -> jax.Array:
        logits = nnx.merge(graphdef, params, batch_stats, copy=True)(frames, train=True)
        return logits.main.sum() + logits.aux.sum()

    traced = traced_flops(jax.value_and_grad(loss), params, batch_stats, clips(config, 3))
    assert training_flops(config, SIZE, batch_size=3) == traced - 3 * read_overhead(config.head)


def read_overhead(head: HeadConfig) -> int:
    """What the read's backward pass adds: the scores again, and gradient . read of each query."""
    assert isinstance(head, TMAHeadConfig)
    positions = math.prod(ModelConfig().feature_size(SIZE))
    keys = head.num_memory * positions
    return 2 * positions * (keys * head.key_channels + head.value_channels) if keys else 0


def test_a_frame_of_a_stream_costs_what_its_program_does() -> None:
    stream = StreamingNetwork(untrained(NETWORKS[0]), Protocol())
    state, frame = stream.start(1, SIZE), np.zeros((1, *SIZE, 3), np.uint8)
    traced = traced_flops(stream.step, state, frame, np.zeros(1, bool))
    logits = jnp.zeros((1, *ModelConfig().feature_size(SIZE), HEAD.num_classes))
    traced -= traced_flops(lambda x: resize_bilinear(x, SIZE, align_corners=True), logits)
    assert stream_flops(NETWORKS[0], SIZE) == traced


def test_the_published_runs_cost_what_is_known_of_them() -> None:
    camvid = ModelConfig(head=TMAHeadConfig(num_classes=12, num_memory=4))
    assert training_flops(ModelConfig(), (769, 769), 8) / 1e12 == pytest.approx(39.95, abs=0.01)
    assert training_flops(camvid, (640, 640), 8) / 1e12 == pytest.approx(43.78, abs=0.01)
