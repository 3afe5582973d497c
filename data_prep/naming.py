"""How video data sets name the frames of a video."""

import itertools
import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import NamedTuple

from tmanet_jax.errors import UserError

_FRAME_NAME = re.compile(
    r"""(?P<before>.*_f?)             # city and snippet, or video
        (?P<number>\d+)               # of the frame in it
        (?P<after>(_leftImg8bit)?(\.\w+)?)""",
    re.VERBOSE,
)

_TIME = re.compile(
    r"""(?<!\d)
        ((?:19|20)\d\d-?(?:0[1-9]|1[0-2])-?(?:[0-2]\d|3[01])[T_-]   # a date
         (?:[01]\d|2[0-3])-?[0-5]\d-?[0-6]\d                       # and a time of day,
         |\d{10,})                                                 # or seconds since 1970
        (?:[_-](\d{3}|\d{6}|\d{9}))?$                             # and parts of a second""",
    re.VERBOSE,
)
_SECOND = 10**9
"""In nanoseconds."""
_SHORTEST = _SECOND // 250
"""From frame to frame; where names would have less, they end with numbers of frames."""


class FrameName(NamedTuple):
    """The parts of a frame's name.

    The frame's number is the last in the name and keeps its width: 'aachen_000000_000019' follows
    'aachen_000000_000018', 'Seq05VD_f00030.png' follows 'Seq05VD_f00029.png'.

    Attributes:
        before: what stands before the number: all frames of a video have it in common.
        number: of the frame in its video.
        width: number of digits.
        after: what stands after the number.
    """

    before: str
    number: int
    width: int
    after: str

    def at(self, number: int) -> str:
        """The name of another frame of the same video.

        Frames before the first have negative numbers, which no file has.
        """
        return f"{self.before}{number:0{self.width}d}{self.after}"


def parse_frame_name(name: str) -> FrameName:
    """The parts of a path or name, with or without '_leftImg8bit' and extension.

    Raises:
        UserError: the name has no frame number.
    """
    match = _FRAME_NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"No frame number in {name!r}: expected a name such as "
            "'aachen_000000_000019_leftImg8bit.png' or 'Seq05VD_f00030.png'."
        )
    digits = match["number"]
    return FrameName(match["before"], int(digits), len(digits), match["after"])


def frame_numbers(stems: Collection[str]) -> Mapping[str, int]:
    """The number that each frame's name ends with, or its time in nanoseconds.

    Both 20211201_120000_033 and 1638316800_033 may end with parts of a second or with the number of
    a frame since then: numbers rise throughout and lie closer together than frames ever follow.

    Args:
        stems: names of all frames of a video, without extension; each ends with a digit.
    """
    numbers = {stem: _last_number(stem) for stem in stems}
    matches = {stem: _TIME.search(stem) for stem in stems}
    times = {
        stem: int(re.sub(r"\D", "", match[1])) * _SECOND + int((match[2] or "").ljust(9, "0"))
        for stem, match in matches.items()
        if match is not None
    }
    if len(times) < len(numbers):
        return numbers
    in_order = sorted({(time, numbers[stem]) for stem, time in times.items()})
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(in_order)]
    rises = all(of_number > 0 for _, of_number in steps)
    has_parts = any(match is not None and match[2] for match in matches.values())
    is_slow = all(of_time >= _SHORTEST for of_time, _ in steps)
    return times if not rises or (has_parts and is_slow) else numbers


def _last_number(stem: str) -> int:
    if decimal := re.search(r"(\d{10,}\.\d+)$", stem):
        return int(Decimal(decimal[1]) * _SECOND)
    return int(re.split(r"\D", stem)[-1])
