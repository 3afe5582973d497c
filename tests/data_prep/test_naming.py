"""Names of frames, and which of those that exist serve as memory."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.naming import frame_numbers, memory_numbers, parse_frame_name
from tmanet_jax.errors import UserError


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("aachen_000000_000019", ["aachen_000000_000017", "aachen_000000_000018"]),
        (
            "aachen/aachen_000000_000019_leftImg8bit.png",
            [f"aachen/aachen_000000_00001{digit}_leftImg8bit.png" for digit in (7, 8)],
        ),
        ("Seq05VD_f00030.png", ["Seq05VD_f00028.png", "Seq05VD_f00029.png"]),
        ("0016E5_07959", ["0016E5_07957", "0016E5_07958"]),
        ("0001TP_006690", ["0001TP_006688", "0001TP_006689"]),
    ],
)
def test_the_frames_of_a_video_are_named_by_number(query, expected):
    name = parse_frame_name(query)
    assert [name.at(name.number - offset) for offset in (2, 1, 0)] == [*expected, query]


def test_a_name_without_a_number_is_refused():
    with pytest.raises(UserError, match=r"'frame\.png'"):
        parse_frame_name("frame.png")


@pytest.mark.parametrize(
    "times",
    [
        ["20211201_120000_033", "20211201_120000_066", "20211201_120000_100"],
        ["20211201_235959_966", "20211202_000000_000"],
        ["cam1_2021-12-01_12-00-00-033333", "cam1_2021-12-01_12-00-01-000000"],
        ["20211201T120059-000", "20211201T120100-000", "20211201T120101-000"],
        ["20211201_235959", "20211202_000000"],
        ["1638316800_966", "1638316801_000", "1638316801_033"],
        ["20211201120000_966", "20211201120001_000"],
        ["1638316800.5", "1638316800.75"],
        ["1638316800500", "1638316800750"],
    ],
)
def test_times_are_in_their_order(times):
    numbers = frame_numbers(times)
    assert [numbers[time] for time in times] == sorted({*numbers.values()})
    assert min(numbers.values()) >= 10**9


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["a_000001", "a_000005"], [1, 5]),
        (["20211201_120000_000001", "20211201_120000_000002"], [1, 2]),
        (["1638316800_001", "1638316800_002", "1638316800_010"], [1, 2, 10]),
        (["20211201_120000", "20211201_120001"], [120000, 120001]),
        (["20211201_000000", "20211201_000099"], [0, 99]),
        (["20211201_120000_33", "20211201_120001_34"], [33, 34]),
        (["20211201_120000_033", "5"], [33, 5]),
    ],
)
def test_numbers_behind_the_time_that_a_video_begins_are_numbers(names, numbers):
    assert [frame_numbers(names)[name] for name in names] == numbers


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
