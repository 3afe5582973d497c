"""The benchmark of streaming: what it compares is equal, and what is not equal is refused."""

import json

import numpy as np
import pytest

from tests.small_networks import SMALL
from tmanet_jax.deploy import benchmark_stream
from tmanet_jax.deploy.benchmark_stream import Segmented
from tmanet_jax.errors import UserError

SIZE = (40, 56)


@pytest.fixture(scope="module")
def model():
    return benchmark_stream.random_model(SMALL, seed=0)


class Shifted:
    """Another program, whose logits differ by a constant."""

    def __init__(self, side, shift):
        self.side, self.shift = side, shift

    def step(self, frame):
        labels, logits = self.side.step(frame)
        return Segmented(labels, logits + self.shift * np.abs(logits).max())

    def state_bytes(self):
        return self.side.state_bytes()


def random_frames(count):
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8)


def test_the_sides_agree_and_their_states_are_as_large_as_the_design_says(model):
    streaming = benchmark_stream.Streaming(model, SIZE)
    whole = benchmark_stream.WholeClip(model)
    frames = random_frames(4)
    sides = {"streaming": streaming, "whole": whole}
    assert benchmark_stream.check_agreement(sides, frames) < 1e-5
    encodings = 3 * 5 * 7 * (SMALL.head.key_channels + SMALL.head.value_channels)
    assert streaming.state_bytes() == 4 * (encodings + 1)  # and the age of the stream
    assert whole.state_bytes() == frames[:3].nbytes
    for frame in frames:
        np.testing.assert_array_equal(
            streaming.step(frame).labels_HxW, whole.step(frame).labels_HxW
        )


def test_a_side_that_computes_something_else_is_refused(model):
    whole = benchmark_stream.WholeClip(model)
    for shift in (2e-3, np.nan):
        sides = {"whole": whole, "other": Shifted(whole, shift)}
        with pytest.raises(UserError, match="'other' computes something else than 'whole'"):
            benchmark_stream.check_agreement(sides, random_frames(1))


def test_the_report_holds_a_row_and_the_targets_of_each_side(model):
    whole = benchmark_stream.WholeClip(model)
    report = benchmark_stream.measure_sides(
        SMALL,
        SIZE,
        {
            name: Shifted(whole, 0)
            for name in (
                benchmark_stream.STREAMING,
                benchmark_stream.WHOLE_CLIP,
                benchmark_stream.PEER_WHOLE_CLIP,
                benchmark_stream.PEER_CACHED,
            )
        },
        turns=2,
    )
    values = json.loads(report.to_json())
    assert len(values["rows"]) == 4
    assert [target["target"] for target in values["targets"]] == [2.5, 2.5, 1.0]
    assert values["targets"][0]["value"] == pytest.approx(1, abs=0.9)


@pytest.mark.parametrize(("text", "size"), [("256x512", (256, 512)), ("8x9", (8, 9))])
def test_sizes_are_height_x_width(text, size):
    assert benchmark_stream.parse_size(text) == size


@pytest.mark.parametrize("text", ["256", "256x", "-8x16", "4x512", "256,512", "axb"])
def test_other_sizes_are_refused(text):
    with pytest.raises(UserError, match="height x width"):
        benchmark_stream.parse_size(text)
