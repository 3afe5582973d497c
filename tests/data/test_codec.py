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
        codec.decode_window(encoded, top, left, height, width),
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
    np.testing.assert_array_equal(
        codec.decode_window(bytes(encoded), *window), frame[64:128, 256:512]
    )
    with pytest.raises(zstandard.ZstdError):
        codec.decode_frame(bytes(encoded))


@pytest.mark.parametrize("window", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 71, 5), (60, 0, 11, 5)])
def test_a_window_outside_the_frame_is_refused(window):
    with pytest.raises(ValueError, match="not inside"):
        codec.decode_window(codec.encode_frame(noise(0, 70, 300, 3)), *window)


def test_bytes_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="found b'TMAl'"):
        codec.decode_frame(codec.encode_labels(noise(0, 4, 4)))


def without_checksums(monkeypatch, encode, picture):
    """As records were encoded before there were any."""
    compressor = zstandard.ZstdCompressor
    with monkeypatch.context() as patch:
        patch.setattr(zstandard, "ZstdCompressor", lambda level, **_: compressor(level=level))
        return encode(picture)


@pytest.mark.parametrize(
    ("encode", "decode", "shape"),
    [
        (codec.encode_frame, codec.decode_frame, (70, 300, 3)),
        (codec.encode_labels, codec.decode_labels, (70, 300)),
    ],
)
def test_no_changed_byte_of_the_content_reads_as_another_picture(
    monkeypatch, encode, decode, shape
):
    picture = noise(0, *shape) // 128
    encoded = encode(picture)
    for place in range(codec._HEADER.size, len(encoded), len(encoded) // 300):
        changed = bytearray(encoded)
        changed[place] ^= 0x10
        with pytest.raises(codec.DAMAGE):
            decode(bytes(changed))
    older = without_checksums(monkeypatch, encode, picture)
    assert len(older) < len(encoded)
    np.testing.assert_array_equal(decode(older), picture)


def test_a_few_bytes_that_claim_gigabytes_are_not_decompressed():
    claim = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    small = codec.encode_labels(noise(0, 4, 4))[: codec._HEADER.size]
    with pytest.raises(ValueError, match=f"16 bytes are expected.*claims {1 << 26}"):
        codec.decode_labels(small + claim)
