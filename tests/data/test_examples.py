"""Examples are read as TFDS reads them; torn ones are errors, never other values."""

import contextlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.made.small_clips import write_noise
from tmanet_jax.data.examples import parse_example, serialize_example
from tmanet_jax.data.frame_records import BUILDER_NAME, SCHEMA_VERSION, features

EXAMPLE = features().serialize_example(
    {"video": "", "number": "7", "frame": b"newest" * 100, "labels": b""}
)


def test_values_are_those_that_tfds_reads(tmp_path):
    write_noise(tmp_path, 2)
    builder = tfds.builder_from_directory(tmp_path / BUILDER_NAME / SCHEMA_VERSION)
    undecoded = tfds.decode.DeserializeMethod.RAW_BYTES
    raw = builder.as_data_source("train", deserialize_method=undecoded)
    for index, expected in enumerate(builder.as_data_source("train")):
        found = parse_example(raw[index])
        assert set(found) == set(expected)
        for name in expected:
            assert [bytes(value) for value in found[name]] == [expected[name]]


def test_empty_values_are_values():
    assert parse_example(EXAMPLE)["labels"] == [b""]
    assert parse_example(EXAMPLE)["video"] == [b""]


@pytest.mark.parametrize("size", [0, 127, 128, 16384])
def test_what_is_written_is_what_tfds_writes(size):
    values = {"video": b"v", "number": b"7", "frame": bytes(size), "labels": b""}
    own, of_tfds = serialize_example(values), features().serialize_example(values)
    assert parse_example(own) == parse_example(of_tfds) and len(own) == len(of_tfds)
    assert list(parse_example(own)) == list(values)


def test_values_are_not_copied():
    frame = parse_example(EXAMPLE)["frame"][0]
    assert np.shares_memory(np.frombuffer(frame, np.uint8), np.frombuffer(EXAMPLE, np.uint8))


def test_a_torn_message_is_an_error():
    for length in range(1, len(EXAMPLE)):
        with pytest.raises(ValueError, match=r"where|ends within|unpack"):
            parse_example(EXAMPLE[:length])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(message):
    with contextlib.suppress(ValueError):  # UnicodeDecodeError is one
        parse_example(message)
