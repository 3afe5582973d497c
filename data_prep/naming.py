"""How video data sets name the frames of a snippet."""

import re
from collections.abc import Iterable

from tmanet_jax.errors import UserError

_FRAME_NAME = re.compile(
    r"""(?P<before>.*_f?)             # city and snippet, or video
        (?P<number>\d+)               # of the frame in it
        (?P<after>(_leftImg8bit)?(\.\w+)?)""",
    re.VERBOSE,
)


def memory_names(query_name: str, offsets: Iterable[int]) -> list[str]:
    """Names of the frames that lie `offsets` frames before the query.

    The frame's number is the last in the name and keeps its width: 'aachen_000000_000019' follows
    'aachen_000000_000018', 'Seq05VD_f00030.png' follows 'Seq05VD_f00029.png'. Frames before the
    first get negative numbers, which no file has.

    Args:
        query_name: a path or name, with or without '_leftImg8bit' and extension.
        offsets: how many frames before the query; oldest first means descending.

    Raises:
        UserError: the name has no frame number.
    """
    match = _FRAME_NAME.fullmatch(query_name)
    if match is None:
        raise UserError(
            f"No frame number in {query_name!r}: expected a name such as "
            "'aachen_000000_000019_leftImg8bit.png' or 'Seq05VD_f00030.png'."
        )
    number, width = int(match["number"]), len(match["number"])
    return [f"{match['before']}{number - offset:0{width}d}{match['after']}" for offset in offsets]
