"""How video data sets name the frames of a video, and which frames a memory takes."""

import bisect
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tmanet_jax.errors import UserError

_FRAME_NAME = re.compile(
    r"""(?P<before>.*_f?)             # city and snippet, or video
        (?P<number>\d+)               # of the frame in it
        (?P<after>(_leftImg8bit)?(\.\w+)?)""",
    re.VERBOSE,
)


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


def memory_numbers(
    query: int, offsets: Iterable[int], existing: Sequence[int], largest_gap: int | None = None
) -> list[int]:
    """Numbers of the frames that serve as memory, given which frames of the video exist.

    A frame that does not exist is replaced by the nearest earlier one that does; one from before
    the video begins, by the video's first frame. So a memory holds what a network would have that
    sees the video frame by frame.

    Args:
        query: the query frame's number.
        offsets: how many frames before the query each memory frame should lie.
        existing: the numbers that exist, in ascending order; the query need not be among them.
        largest_gap: where more than this many frames lie from one frame to the next, another video
            begins.
    """
    video = [*existing[: bisect.bisect_left(existing, query)], query]
    if largest_gap is not None:
        begin = len(video) - 1
        while begin and video[begin] - video[begin - 1] <= largest_gap:
            begin -= 1
        video = video[begin:]
    places = (bisect.bisect_right(video, query - offset) - 1 for offset in offsets)
    return [video[max(place, 0)] for place in places]
