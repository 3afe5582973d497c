"""The benchmark of streaming: what it compares is equal, and what is not equal is refused."""

import numpy as np
import pytest

from benchmarks import stream
from benchmarks.harness import Side
from benchmarks.inference import random_model
from tests.made.small_networks import HEAD, SMALL
from tmanet_jax.errors import UserError

SIZE = (40, 56)


class Constant:
    """Another program, which says the same of every frame."""

    def __init__(self, logit):
        self.logits = np.full((5, 7, 5), logit, np.float32)

    def step(self, frame):
        return np.zeros(frame.shape[:2], np.uint8), self.logits

    def state_bytes(self):
        return 1_000_000


def test_the_sides_agree_and_their_states_are_as_large_as_the_design_says():
    model = random_model(SMALL, seed=0)
    streaming, whole = stream.Streaming(model, SIZE), stream.WholeClip(model)
    frames = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8)
    for frame in frames:
        (labels, logits), (expected, expected_logits) = streaming.step(frame), whole.step(frame)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
    encodings = 3 * 5 * 7 * (HEAD.key_channels + HEAD.value_channels)
    assert streaming.state_bytes() == 4 * (encodings + 1)  # and the age of the stream
    assert whole.state_bytes() == frames[:3].nbytes


@pytest.fixture
def peakless(monkeypatch):
    """Peaks are measured after all garbage is collected: seconds in a process of many tests."""
    monkeypatch.setattr(stream, "Side", lambda call: Side(call, lambda call: 0))


@pytest.mark.usefixtures("peakless")
@pytest.mark.parametrize("other", [1.002, np.nan])
def test_a_side_that_computes_something_else_is_refused(other):
    sides: dict[str, stream.VideoSide] = {
        "one": Constant(1),
        "close": Constant(1.0005),
        "other": Constant(other),
    }
    with pytest.raises(UserError, match="'other' computes something else than 'one'"):
        stream.measure(SMALL, SIZE, sides, turns=1)


@pytest.mark.usefixtures("peakless")
def test_there_is_a_row_and_a_target_of_each_side():
    names = (stream.STREAMING, stream.WHOLE_CLIP, stream.TORCH_WHOLE_CLIP, stream.TORCH_CACHED)
    sides: dict[str, stream.VideoSide] = {name: Constant(1) for name in names}
    findings = stream.measure(SMALL, SIZE, sides, turns=3)
    assert [row[0] for row in findings.rows] == list(names)
    assert [target.target for target in findings.targets] == [2.5, 2.5, 1.0]
    assert f"{stream.STREAMING} 1.0; {stream.WHOLE_CLIP} 1.0" in " ".join(findings.notes)


@pytest.mark.torch
def test_torch_says_the_same_with_kept_keys_and_with_the_whole_clip():
    model = random_model(SMALL, seed=4)
    sides = {stream.STREAMING: stream.Streaming(model, SIZE), **stream.torch_sides(model, SIZE)}
    findings = stream.measure(SMALL, SIZE, sides, turns=1)
    assert len(findings.rows) == 3
    assert not [row for row in findings.rows if "FAILED" in row[1]]
    kept = 3 * 5 * 7 * (HEAD.key_channels + HEAD.value_channels) * 4
    assert sides[stream.TORCH_CACHED].state_bytes() == kept
