"""The clips of a data set: which frames of a video each takes as memory, and how it is loaded."""

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.data_set import DataSet, LabelledVideo, Options, Query, Unusable
from data_prep.labels import LabelFile, LabelPicture
from data_prep.records.writer import PlannedClip, SplitPlan
from data_prep.source import SourceFile, check_size, read_frame
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.records import Clip
from tmanet_jax.errors import UserError


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


@dataclass(frozen=True)
class FilesClip:
    """A clip whose frames and labels are files.

    Attributes:
        id: the clip's id.
        query: the labelled frame.
        memory: the frames before it, oldest first; stand-ins where one is missing.
        stand_ins: how many of the memory frames are stand-ins.
        labels: of the query; None in a split without, where every pixel is ignored.
        group: '' or the part of the data set that it is scored with.
    """

    id: str
    query: SourceFile
    memory: tuple[SourceFile, ...]
    stand_ins: int
    labels: LabelFile | None
    group: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes when a file does, or how labels are read."""
        fingerprints = [file.fingerprint for file in (*self.memory, self.query)]
        if self.labels is not None:
            fingerprints.append(self.labels.fingerprint)
        return "\n".join(fingerprints)

    def load(self) -> Clip:
        """Reads the files; raises UserError if they are torn or do not go together."""
        frames = [read_frame(file) for file in (*self.memory, self.query)]
        size = frames[-1].shape[:2]
        for file, frame_HxWx3 in zip(self.memory, frames, strict=False):
            check_size(frame_HxWx3.shape[:2], file, size, self.query)
        return Clip(self.id, self.group, np.stack(frames), self._load_labels(size))

    def _load_labels(self, size: tuple[int, int]) -> np.ndarray:
        if self.labels is None:
            return np.full(size, IGNORE, np.uint8)
        picture = LabelPicture.read(self.labels.file)
        check_size(picture.size, picture.file, size, self.query)  # before memory is taken for it
        return self.labels.train_ids(picture)


def find_clips(
    data_set: DataSet, splits: Sequence[str], options: Options
) -> Mapping[str, SplitPlan]:
    """The clips of some splits of a data set, in the order of its videos and their queries.

    Raises:
        UserError: the data set finds no videos; or a clip cannot be made, or lacks frames, where
            that is an error and errors are not skipped.
    """
    return {
        name: SplitPlan(
            [clip for video in split.videos for clip in clips_of(video, options)],
            split.labelled,
            split.notes,
        )
        for name, split in data_set.find(splits, options).items()
    }


def clips_of(video: LabelledVideo, options: Options) -> Iterator[PlannedClip]:
    """The clips of a video; raises UserError for one that cannot be made, unless it is skipped."""
    existing = sorted(video.frames)
    for query in video.queries:
        clip: FilesClip | Unusable
        if isinstance(query, Unusable):
            clip = query
        else:
            clip = _with_memory(query, video, existing, options)
        if isinstance(clip, Unusable) and options.on_error == "stop":
            raise UserError(clip.reason)
        yield clip


def _with_memory(
    query: Query, video: LabelledVideo, existing: Sequence[int], options: Options
) -> FilesClip | Unusable:
    numbers = memory_numbers(query.number, options.memory_offsets, existing, video.largest_gap)
    wanted = (query.number - offset for offset in options.memory_offsets)
    missing = [
        video.name_of(number) for number, taken in zip(wanted, numbers, strict=True)
        if number != taken
    ]  # fmt: skip
    if missing and options.missing == "error":
        return Unusable(
            query.id,
            query.group,
            f"Clip {query.id} has no {', '.join(missing)}. Get the files, or let other frames "
            "stand in for them: --missing=stand-in.",
        )
    memory = (query.frame if n == query.number else video.frames[n] for n in numbers)
    return FilesClip(query.id, query.frame, tuple(memory), len(missing), query.labels, query.group)
