"""Operations that the network needs, against formulas of its parts and a program that runs."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.flops import backbone_flops, clip_flops, stream_flops, training_flops
from tests.made.small_networks import untrained
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.summary import work_of
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import AUX_HEAD, ModelConfig
from tmanet_jax.protocol import Protocol

SIZE = (72, 104)
"""Divisible by the strides, so that the gradient of a strided convolution is counted exactly."""
HEAD = TMAHeadConfig(num_classes=5, num_memory=1, key_channels=6, value_channels=10, channels=14)
BACKBONE = ResNetConfig(depth=18, width=6, blocks=(1, 1, 1, 1), deep_stem=False)
CONFIG = ModelConfig(BACKBONE, HEAD, remat=True)
POSITIONS = math.prod(CONFIG.feature_size(SIZE))


def of_convolution(positions: int, kernel: int, inputs: int, outputs: int) -> int:
    return 2 * positions * kernel**2 * inputs * outputs


@pytest.mark.parametrize("memory_gradient", [True, False])
def test_a_step_costs_three_passes_but_for_what_has_no_gradient(memory_gradient: bool) -> None:
    stage3, stage4 = BACKBONE.stage_channels[2:]
    aux = of_convolution(POSITIONS, 3, stage3, AUX_HEAD.channels)
    aux += of_convolution(POSITIONS, 1, AUX_HEAD.channels, HEAD.num_classes)
    first = of_convolution(math.prod(SIZE) // 4, 7, 3, BACKBONE.width)
    expected = 3 * (clip_flops(CONFIG, SIZE) + aux) - 2 * first
    if not memory_gradient:
        expected -= 2 * backbone_flops(CONFIG, SIZE) - first
        channels = HEAD.key_channels + HEAD.value_channels
        expected -= of_convolution(POSITIONS, 1, stage4, channels)
    config = replace(CONFIG, memory_gradient=memory_gradient)
    assert training_flops(config, SIZE, batch_size=3) == 3 * expected


def test_a_frame_of_a_stream_costs_what_its_program_does() -> None:
    stream = StreamingNetwork(untrained(CONFIG), Protocol())
    state, frame = stream.start(1, SIZE), np.zeros((1, *SIZE, 3), np.uint8)
    traced = work_of(stream.step, state, frame, np.zeros(1, bool)).operations
    logits = jnp.zeros((1, *CONFIG.feature_size(SIZE), HEAD.num_classes))

    def resize(logits: jax.Array) -> jax.Array:
        return resize_bilinear(logits, SIZE, align_corners=True)

    assert stream_flops(CONFIG, SIZE) == traced - work_of(resize, logits).operations
    saved = clip_flops(CONFIG, SIZE) - stream_flops(CONFIG, SIZE)
    assert saved == HEAD.num_memory * backbone_flops(CONFIG, SIZE)


def test_a_published_clip_costs_what_is_known_of_it() -> None:
    assert clip_flops(ModelConfig(), (769, 769)) / 1e12 == pytest.approx(1.621, abs=0.001)
