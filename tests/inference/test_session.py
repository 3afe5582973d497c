"""Frames given one by one: streams beside each other are streams by themselves."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.made.small_videos import numbered
from tests.made.tiny_weights import CLASSES
from tests.models.test_tmanet import small_config, trained
from tmanet_jax.errors import UserError
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.protocol import Protocol

SIZE = (36, 48)
NUM_STREAMS = 3
FLOAT32_ABSOLUTE = 1e-5


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(trained(small_config()), CLASSES, Protocol("whole"))


def assert_same(result: FrameResult, expected: FrameResult) -> None:
    """Batches of other sizes round differently: labels are equal but for ties."""
    assert (result.index, result.pts, result.seconds) == (
        expected.index,
        expected.pts,
        expected.seconds,
    )
    np.testing.assert_array_equal(result.frame, expected.frame)
    np.testing.assert_allclose(
        result.probabilities, expected.probabilities, rtol=0, atol=FLOAT32_ABSOLUTE
    )
    second, first = np.sort(expected.probabilities, axis=-1)[..., -2:].transpose(2, 0, 1)
    is_tie_HxW = first - second < 2 * FLOAT32_ABSOLUTE
    assert is_tie_HxW.mean() < 0.01
    assert ((result.labels == expected.labels) | is_tie_HxW).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(0, NUM_STREAMS - 1)), min_size=1, max_size=7), st.data())
def test_streams_are_as_if_alone_and_a_reset_one_as_if_new(
    segmenter: Segmenter, resets: list[set[int]], data: st.DataObject
) -> None:
    seeds = st.lists(st.integers(0, 4000), min_size=NUM_STREAMS, max_size=NUM_STREAMS)
    alone = [segmenter.session() for _ in range(NUM_STREAMS)]
    with segmenter.session(streams=NUM_STREAMS) as together:
        for reset in resets:
            for stream in reset:
                together.reset(stream)
                alone[stream] = segmenter.session()
            frames = [numbered(seed, SIZE) for seed in data.draw(seeds)]
            results = together.add(frames)
            for result, session, frame in zip(results, alone, frames, strict=True):
                assert_same(result, session.add([frame])[0])


def test_a_session_is_a_stream_and_keeps_no_array_that_is_filled_again(
    segmenter: Segmenter,
) -> None:
    frames_LxHxWx3 = np.stack([numbered(number, SIZE) for number in range(8)])
    given_1xHxWx3 = np.empty((1, *SIZE, 3), np.uint8)
    results = []
    with segmenter.session() as session:
        for frame in frames_LxHxWx3:
            given_1xHxWx3[0] = frame
            results += session.add(given_1xHxWx3)
    for result, expected in zip(results, segmenter.stream(frames_LxHxWx3), strict=True):
        assert_same(result, expected)


def test_threads_may_share_a_session(segmenter: Segmenter) -> None:
    frames = [numbered(7, SIZE)]
    indices: list[int] = []
    with segmenter.session() as session:

        def add_some() -> None:
            for _ in range(10):
                indices.append(session.add(frames)[0].index)

        threads = [threading.Thread(target=add_some) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(indices) == list(range(40))


def test_what_a_session_cannot_take_is_told_and_changes_nothing(segmenter: Segmenter) -> None:
    frames = [numbered(number, SIZE) for number in range(3)]
    with pytest.raises(UserError, match="streams is 0: a session has 1 or more"):
        segmenter.session(streams=0)
    session = segmenter.session(streams=2)
    with pytest.raises(UserError, match=r"here 36x48 .*; that of stream 1 has 48x36"):
        session.add([frames[0], frames[1].transpose(1, 0, 2)])
    first = session.add(frames[:2])
    for wrong, message in (
        (frames, "has 2 streams and gets as many frames .*; found 3"),
        (frames[0], "found 36"),
        ([numbered(0, (40, 48)), numbered(1, (40, 48))], "here 36x48 .*; that of stream 0 has 40"),
        ([frames[0], frames[1].astype(float)], "HxWx3 of uint8, RGB, .*; found float64"),
    ):
        with pytest.raises(UserError, match=message):
            session.add(wrong)
    with pytest.raises(UserError, match="no stream 2: this session has 2 streams"):
        session.reset(2)
    second = session.add(frames[:2])
    assert [result.index for result in first + second] == [0, 0, 1, 1]
    for result in segmenter.stream([frames[1], frames[1]]):
        assert_same((first, second)[result.index][1], result)
    session.close()
    for call in (lambda: session.add(frames[:2]), lambda: session.reset(0)):
        with pytest.raises(UserError, match="This session is closed"):
            call()
