"""Streaming says of every frame what the whole clip says of it."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.made.small_networks import untrained
from tests.made.tiny_weights import write_weights
from tests.models.test_tmanet import small_config, trained
from tests.whole_frames import segment_whole, segment_windows
from tmanet_jax.inference import stream
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.inference.windows import resized_frames
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig, TMANet, reading
from tmanet_jax.protocol import Protocol
from tmanet_jax.weights import load

FLOAT32_ABSOLUTE = 1e-5
FLOAT64_ABSOLUTE = 1e-12

SLIDE = Protocol(mode="slide", crop_size=(24, 32), stride=(16, 24))


def video(batch: int, length: int, size: tuple[int, int]) -> np.ndarray:
    """BxLxHxWx3, every frame of noise of its own."""
    return np.random.default_rng(length).integers(0, 256, (batch, length, *size, 3), np.uint8)


def no_resets(batch: int, length: int) -> np.ndarray:
    return np.zeros((batch, length), bool)


def whole_clip_logits(
    model: TMANet, config: Protocol, frames_BxLxHxWx3: np.ndarray, starts_BxL: np.ndarray
) -> jax.Array:
    """Each frame segmented with its memory as one clip, a stream's first frame repeated: BxLxH.."""
    num_memory = model.config.head.num_memory
    b, length, *size, _ = frames_BxLxHxWx3.shape
    resized = config.size_of((size[0], size[1]))
    frames_BxLxHxWx3 = np.stack([resized_frames(video, resized) for video in frames_BxLxHxWx3])
    back_S = config.memory_stride * np.arange(num_memory, -1, -1)
    index_BxLxS = np.maximum(np.arange(length)[:, None] - back_S, starts_BxL[:, :, None])
    clips = frames_BxLxHxWx3[np.arange(b)[:, None, None], index_BxLxS]

    @nnx.jit
    def segment(model: TMANet, frames_BxSxHxWx3: jax.Array) -> jax.Array:
        model = reading(model, config.neighbourhood)
        clip = normalize(frames_BxSxHxWx3)
        if config.mode == "whole":
            return segment_whole(model, clip)
        return segment_windows(model, clip, config)

    corners = model.config.align_corners
    logits = [segment(model, clips[:, step]) for step in range(length)]
    own_size = [resize_bilinear(x, (size[0], size[1]), align_corners=corners) for x in logits]
    return jnp.stack(own_size, axis=1)


def assert_stream_is_clip(
    model: TMANet,
    config: Protocol,
    frames_BxLxHxWx3: np.ndarray,
    resets_BxL: np.ndarray,
    absolute: float = FLOAT32_ABSOLUTE,
) -> None:
    batch, length, height, width, _ = frames_BxLxHxWx3.shape
    starts_BxL = np.maximum.accumulate(np.where(resets_BxL, np.arange(length), 0), axis=1)
    logits = whole_clip_logits(model, config, frames_BxLxHxWx3, starts_BxL)
    expected = np.asarray(jax.nn.softmax(logits, axis=-1))
    frame_stream = StreamingNetwork(model, config)
    state = frame_stream.start(batch, (height, width))
    shapes = jax.tree.map(jnp.shape, state)
    for step in range(length):
        state, output = frame_stream.step(state, frames_BxLxHxWx3[:, step], resets_BxL[:, step])
        probabilities = np.asarray(frame_stream.probabilities(output))
        np.testing.assert_allclose(probabilities, expected[:, step], rtol=0, atol=absolute)
        np.testing.assert_array_equal(output.labels_BxHxW, expected[:, step].argmax(-1))
    assert jax.tree.map(jnp.shape, state) == shapes


@pytest.mark.parametrize(("num_memory", "memory_stride"), [(0, 1), (1, 3), (2, 1), (4, 3)])
def test_every_frame_is_that_of_the_whole_clip(num_memory: int, memory_stride: int) -> None:
    length = num_memory * memory_stride + 4
    config = Protocol(memory_stride=memory_stride)
    frames = video(1, length, (33, 49))
    assert_stream_is_clip(trained(small_config(num_memory)), config, frames, no_resets(1, length))


@pytest.mark.parametrize(
    "config",
    [
        Protocol(scale=0.5),
        Protocol(train_height=20, neighbourhood=1),
        dataclasses.replace(SLIDE, scale=(90, 120)),
    ],
    ids=str,
)
def test_at_a_scale_too_every_frame_is_that_of_the_whole_clip(config: Protocol) -> None:
    size = (41, 60)
    assert config.size_of(size) != size
    resets_BxL = no_resets(2, 5)
    resets_BxL[1, 3] = True
    assert_stream_is_clip(trained(small_config()), config, video(2, 5, size), resets_BxL)


@pytest.mark.parametrize("num_windows", [1, 4])
def test_how_many_windows_are_seen_at_a_time_changes_nothing(
    num_windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine windows; four at a time are three groups of three."""
    monkeypatch.setattr(stream, "PIXELS_AT_A_TIME", num_windows * 2 * 24 * 32)
    resets_BxL = no_resets(2, 5)
    resets_BxL[1, 3] = True
    config = dataclasses.replace(SLIDE, memory_stride=2)
    assert_stream_is_clip(trained(small_config()), config, video(2, 5, (50, 70)), resets_BxL)


@pytest.mark.parametrize("config", [Protocol(memory_stride=2), SLIDE], ids=["whole", "slide"])
def test_streams_start_again_one_by_one(config: Protocol) -> None:
    resets_BxL = no_resets(3, 9)
    resets_BxL[0, 4] = resets_BxL[1, [0, 2, 3]] = True
    model = trained(small_config(align_corners=False))
    assert_stream_is_clip(model, config, video(3, 9, (39, 50)), resets_BxL)


def test_what_differs_is_rounding(tmp_path: Path) -> None:
    """Logits of up to 30, on which float32 differs by more than 1e-5: nothing is left of it."""
    path = write_weights(tmp_path / "tmanet.safetensors")
    resets_BxL = no_resets(2, 6)
    resets_BxL[0, 4] = True
    with jax.enable_x64(True):
        model = load.load_model(path, dtype="float64").model
        config = dataclasses.replace(SLIDE, memory_stride=2)
        frames = video(2, 6, (24, 41))
        assert_stream_is_clip(model, config, frames, resets_BxL, FLOAT64_ABSOLUTE)


def test_a_scene_cut_changes_what_follows_and_nothing_else_does() -> None:
    frames = video(1, 3, (33, 49))
    frame_stream = StreamingNetwork(trained(small_config()), Protocol())

    def logits(cut: bool) -> np.ndarray:
        state = frame_stream.start(1, (33, 49))
        for step in range(3):
            state, output = frame_stream.step(state, frames[:, step], np.array([cut and step == 2]))
        return np.asarray(output.logits_NxhxwxC)

    np.testing.assert_array_equal(logits(cut=False), logits(cut=False))
    assert np.abs(logits(cut=True) - logits(cut=False)).max() > 1e-3


def test_bottlenecks_and_the_published_head_stream_as_they_segment_clips() -> None:
    """The published network but for blocks that repeat those before them."""
    backbone = ResNetConfig(blocks=(1, 1, 2, 2))
    model = untrained(ModelConfig(backbone, TMAHeadConfig(num_memory=2)))
    assert_stream_is_clip(model, Protocol(), video(1, 4, (41, 57)), no_resets(1, 4))


def test_the_state_is_given_away_and_holds_no_more_than_it_must() -> None:
    config = small_config(4)
    frame_stream = StreamingNetwork(
        trained(config), dataclasses.replace(Protocol(), memory_stride=3)
    )
    state = frame_stream.start(2, (16, 24))
    assert [len(ring.key) for ring in state.rings] == [12, 9, 6, 3]
    frame_stream.step(state, video(2, 1, (16, 24))[:, 0], np.zeros(2, bool))
    assert all(array.is_deleted() for array in jax.tree.leaves(state))
