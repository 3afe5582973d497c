"""The benchmark of streaming: what it compares is equal, and what is not equal is refused."""

import json

import numpy as np
import pytest

from benchmarks import stream
from benchmarks.stream import Segmented
from tests.made.small_networks import HEAD, SMALL
from tmanet_jax.errors import UserError

SIZE = (40, 56)


class Constant:
    """Another program, which says the same of every frame."""

    def __init__(self, logit):
        self.logits = np.full((5, 7, 5), logit, np.float32)

    def step(self, frame):
        return Segmented(np.zeros(frame.shape[:2], np.uint8), self.logits)

    def state_bytes(self):
        return 1_000_000


def random_frames(count):
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8)


def test_the_sides_agree_and_their_states_are_as_large_as_the_design_says():
    model = stream.random_model(SMALL, seed=0)
    streaming = stream.Streaming(model, SIZE)
    whole = stream.WholeClip(model)
    frames = random_frames(4)
    sides: dict[str, stream.VideoSide] = {"streaming": streaming, "whole": whole}
    assert stream.check_agreement(sides, frames) < 1e-5
    encodings = 3 * 5 * 7 * (HEAD.key_channels + HEAD.value_channels)
    assert streaming.state_bytes() == 4 * (encodings + 1)  # and the age of the stream
    assert whole.state_bytes() == frames[:3].nbytes
    for frame in frames:
        np.testing.assert_array_equal(
            streaming.step(frame).labels_HxW, whole.step(frame).labels_HxW
        )


@pytest.mark.parametrize("other", [1.002, np.nan])
def test_a_side_that_computes_something_else_is_refused(other):
    sides = {"one": Constant(1), "close": Constant(1.0005), "other": Constant(other)}
    with pytest.raises(UserError, match="'other' computes something else than 'one'"):
        stream.measure_sides(SMALL, SIZE, sides, turns=1)


def test_the_report_holds_a_row_and_the_targets_of_each_side():
    names = (
        stream.STREAMING,
        stream.WHOLE_CLIP,
        stream.PEER_WHOLE_CLIP,
        stream.PEER_CACHED,
    )
    sides = {name: Constant(1) for name in names}
    values = json.loads(stream.measure_sides(SMALL, SIZE, sides, turns=3).to_json())
    assert [row[0] for row in values["rows"]] == list(names)
    assert {row[-1] for row in values["rows"]} == {"1.0"}
    assert [target["target"] for target in values["targets"]] == [2.5, 2.5, 1.0]
