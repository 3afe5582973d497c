"""The codec of frames and labels: lossless, and windows decode what they touch."""

import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tmanet_jax.data import codec


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def decode_window(encoded, window):
    """The window, cut out of a canvas that reaches no further than it must."""
    top, left, height, width = window
    canvas = np.zeros((top + height, left + width, 3), np.uint8)
    codec.decode_window(encoded, canvas, *window)
    return canvas[top : top + height, left : left + width]


@st.composite
def frames_and_windows(draw):
    height, width = draw(st.integers(1, 200)), draw(st.integers(1, 600))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    window = (top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))
    return noise(draw(st.integers(0, 99)), height, width, 3), window


@settings(max_examples=60, deadline=None)
@given(frames_and_windows())
def test_frames_are_lossless_and_a_window_is_the_frames(frame_and_window):
    frame, (top, left, height, width) = frame_and_window
    encoded = codec.encode_frame(frame)
    assert codec.frame_size(encoded) == frame.shape[:2]
    np.testing.assert_array_equal(codec.decode_frame(encoded), frame)
    np.testing.assert_array_equal(
        decode_window(encoded, (top, left, height, width)),
        frame[top : top + height, left : left + width],
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 300), st.integers(0, 99))
def test_labels_are_lossless(height, width, seed):
    labels = noise(seed, height, width)
    np.testing.assert_array_equal(codec.decode_labels(codec.encode_labels(labels)), labels)


def test_a_frame_that_is_not_contiguous_is_encoded_as_it_looks():
    frame = noise(0, 70, 300, 3)[:, ::-1, ::-1]
    np.testing.assert_array_equal(codec.decode_frame(codec.encode_frame(frame)), frame)


def test_a_window_decodes_only_the_tiles_it_touches():
    frame = noise(0, 3 * codec.TILE_HEIGHT, 3 * codec.TILE_WIDTH, 3)
    encoded = bytearray(codec.encode_frame(frame))
    tiles_start = codec._HEADER.size + 9 * 4
    ends = struct.unpack_from("<9I", encoded, codec._HEADER.size)
    encoded[tiles_start : tiles_start + ends[3]] = bytes(ends[3])  # all tiles before the middle one
    encoded[tiles_start + ends[4] :] = bytes(len(encoded) - tiles_start - ends[4])  # all after
    window = (codec.TILE_HEIGHT, codec.TILE_WIDTH, codec.TILE_HEIGHT, codec.TILE_WIDTH)
    np.testing.assert_array_equal(decode_window(bytes(encoded), window), frame[64:128, 256:512])
    with pytest.raises(zstandard.ZstdError):
        codec.decode_frame(bytes(encoded))


@pytest.mark.parametrize("window", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 71, 5), (60, 0, 11, 5)])
def test_a_window_outside_the_frame_is_refused(window):
    with pytest.raises(ValueError, match="not inside"):
        codec.decode_window(
            codec.encode_frame(noise(0, 70, 300, 3)), np.empty((99, 99, 3)), *window
        )


def test_bytes_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="found b'TMAl'"):
        codec.decode_frame(codec.encode_labels(noise(0, 4, 4)))
