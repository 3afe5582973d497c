"""Which of the frames that exist serve as memory."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from data_prep.clips import memory_numbers


@st.composite
def videos(draw):
    """A query, the offsets of its memory, the numbers that exist, and the largest gap."""
    query = draw(st.integers(0, 60))
    stride = draw(st.integers(1, 4))
    offsets = range(draw(st.integers(0, 6)) * stride, 0, -stride)
    existing = sorted(draw(st.sets(st.integers(0, 70), max_size=40)))
    return query, offsets, existing, draw(st.none() | st.integers(1, 20))


@given(videos())
def test_memory_is_of_frames_that_exist_in_the_order_of_time(video):
    query, offsets, existing, largest_gap = video
    numbers = memory_numbers(query, offsets, existing, largest_gap)
    assert len(numbers) == len(offsets)
    assert set(numbers) <= {*existing, query}
    assert numbers == sorted(numbers)
    assert all(number <= query for number in numbers)


@given(videos())
def test_a_frame_that_exists_is_taken_and_else_the_nearest_earlier_or_the_first(video):
    query, offsets, existing, _ = video
    seen = [number for number in existing if number < query] + [query]
    for offset, taken in zip(offsets, memory_numbers(query, offsets, existing), strict=True):
        earlier = [number for number in seen if number <= query - offset]
        assert taken == (max(earlier) if earlier else min(seen))


@given(videos())
def test_memory_is_what_a_stream_holds_that_repeats_the_frame_it_has(video):
    """Walk through time; at each tick the newest frame so far, before the first the first."""
    query, offsets, existing, _ = video
    present = {number for number in existing if number < query} | {query}
    newest = min(present)
    shown = {}
    for tick in range(-30, query + 1):
        newest = tick if tick in present else newest
        shown[tick] = newest
    expected = [shown[query - offset] for offset in offsets]
    assert memory_numbers(query, offsets, existing) == expected


@given(videos())
def test_no_frame_is_taken_from_beyond_a_gap(video):
    query, offsets, existing, largest_gap = video
    numbers = memory_numbers(query, offsets, existing, largest_gap)
    chain = [number for number in existing if number < query] + [query]
    for before, after in itertools.pairwise(chain):
        if largest_gap is not None and after - before > largest_gap:
            assert all(number >= after for number in numbers)
