"""CamVid's four videos, how their frames are named, and which of them each split holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tmanet_jax.errors import UserError


@dataclass(frozen=True)
class RawVideo:
    """One of the raw videos.

    Attributes:
        file: its name as downloaded.
        prefix: of its frames' names, before the number.
        digits: of the number.
    """

    file: str
    prefix: str
    digits: int

    def frame_name(self, number: int) -> str:
        """Name of a frame, without extension; raises ValueError for numbers before 0."""
        if number < 0:
            raise ValueError(f"frame {number} of {self.file}")
        return f"{self.prefix}{number:0{self.digits}d}"


SEQ05 = RawVideo("0005VD.MXF", "Seq05VD_f", 5)
SEQ06 = RawVideo("0006R0.MXF", "0006R0_f", 5)
SEQ16 = RawVideo("0016E5.MXF", "0016E5_", 5)
SEQ01 = RawVideo("01TP_extract.avi", "0001TP_", 6)
VIDEOS = (SEQ05, SEQ06, SEQ16, SEQ01)

UNUSED = "Seq05VD_f00000"
"""The one labelled still that is in no split: no frames come before it."""

_SPLITS: Mapping[str, tuple[tuple[RawVideo, range], ...]] = {
    "train": (
        (SEQ01, range(6690, 8521, 30)),
        (SEQ06, range(930, 3931, 30)),
        (SEQ16, range(390, 900, 30)),
        (SEQ16, range(901, 902)),  # 900 is not labelled
        (SEQ16, range(930, 2401, 30)),
        (SEQ16, range(4350, 7921, 30)),
        (SEQ16, range(8190, 8641, 30)),
    ),
    "val": ((SEQ16, range(7959, 8160, 2)),),
    "test": (
        (SEQ01, range(8550, 10381, 30)),
        (SEQ05, range(30, 5101, 30)),
    ),
}

SPLITS = tuple(_SPLITS)
"""Names of the published splits: 367, 101 and 232 clips."""


def split_names(split: str) -> list[str]:
    """Names of a split's labelled frames, in order; raises UserError if there is no such split."""
    if split not in _SPLITS:
        raise UserError(f"CamVid has no split {split!r}: expected one of {', '.join(SPLITS)}.")
    return sorted(
        video.frame_name(number) for video, numbers in _SPLITS[split] for number in numbers
    )


def parse_name(name: str) -> tuple[RawVideo, int]:
    """The video and the number of a frame's name; raises UserError on any other name."""
    for video in VIDEOS:
        if match := re.fullmatch(rf"{video.prefix}(\d{{{video.digits}}})", name):
            return video, int(match[1])
    raise UserError(f"{name!r} is no frame of CamVid: expected a name such as 'Seq05VD_f00030'.")
