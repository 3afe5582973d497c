"""Videos among clip records: runs of clips whose queries are neighbouring frames.

`data_prep.cityscapes` makes records with every frame as a query; their ids end in the frame's
number, as in rasterburg_000003_000017.
"""

import collections
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tmanet_jax.data.records import Clip, ClipRecords
from tmanet_jax.errors import UserError

_ID = re.compile(r"(?P<video>.*?)_?(?P<frame>\d+)")


@dataclass(frozen=True)
class Video:
    """Neighbouring frames.

    Attributes:
        name: what the frames' ids have in common.
        indices: the frames' places among the records, in the order of time.
    """

    name: str
    indices: tuple[int, ...]


def find_videos(records: ClipRecords) -> list[Video]:
    """The videos of a split, in the order of their names.

    Raises:
        UserError: an id does not end in a number, or no two clips are neighbours.
    """
    frames = sorted((*_video_and_frame(records, index), index) for index in range(len(records)))
    runs: list[list[tuple[str, int, int]]] = []
    for frame in frames:
        if runs and runs[-1][-1][0] == frame[0] and runs[-1][-1][1] + 1 == frame[1]:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    if all(len(run) == 1 for run in runs):
        raise UserError(
            f"The split {records.split!r} in {records.data_dir} has no two neighbouring frames, so "
            "no videos. Make records with every frame as a query:\n"
            "  python -m data_prep.cityscapes --source=DIR --out=DIR --memory-range=0 --every-frame"
        )
    return [Video(run[0][0], tuple(index for _, _, index in run)) for run in runs]


def _video_and_frame(records: ClipRecords, index: int) -> tuple[str, int]:
    match = _ID.fullmatch(records.clip_id(index))
    if match is None:
        raise UserError(
            f"The clip {records.clip_id(index)!r} in {records.data_dir} has no frame number at the "
            "end of its id: frames cannot be put in order."
        )
    return match["video"], int(match["frame"])


def clips_of(records: ClipRecords, video: Video, num_memory: int) -> Iterator[Clip]:
    """Each frame of a video with the frames before it, whatever memory the records hold.

    The first frame stands in for those before it, as in `data_prep`.
    """
    newest: collections.deque[np.ndarray] = collections.deque(maxlen=num_memory + 1)
    for index in video.indices:
        clip = records.read(index, ())
        newest.append(clip.frames_SxHxWx3[-1])
        frames = [newest[0]] * (num_memory + 1 - len(newest)) + list(newest)
        yield Clip(clip.id, clip.group, np.stack(frames), clip.labels_HxW)
