"""Names of frames."""

import pytest

from data_prep.naming import frame_numbers, parse_frame_name
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
