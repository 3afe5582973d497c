"""Which frames a split has, which of them are queries, and what a clip takes as memory."""

import bisect
import functools
import itertools
import operator
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LONGEST_ID = 220
"""Bytes of UTF-8: file systems take 255, and names of files add to the id."""

_UNFIT_FOR_FILES = re.compile(r"[/\\\x00-\x1f]")


def check_clip_id(clip_id: str) -> None:
    """Raises ValueError unless files and folders can be named after the clip."""
    if len(clip_id.encode()) > _LONGEST_ID:
        raise ValueError(f"the clip's name {clip_id[:40]}... is longer than {_LONGEST_ID} bytes")
    if clip_id in ("", ".", "..") or _UNFIT_FOR_FILES.search(clip_id):
        raise ValueError(f"no file can be named after a clip called {clip_id!r}")


def nearest_earlier(numbers: Sequence[int], begin: int, end: int, wanted: int) -> int:
    """The place, from `begin` to before `end`, of the last number up to `wanted`; else the first.

    So a memory holds what a network would have that sees the video frame by frame.
    """
    return max(bisect.bisect_right(numbers, wanted, begin, end) - 1, begin)


@dataclass(frozen=True)
class ClipIndex:
    """The frames of a split, in the order of the records, and its clips.

    Frames of a video follow each other in the order of their numbers.

    Attributes:
        videos: names of the videos.
        lengths: how many frames each video has.
        numbers: of each frame, in its video.
        queries_alone: places of the frames that are no memory of others, ascending: of a query that
            is another picture than the video's frame of that number.
        ids: of the clips.
        groups: of each clip: '' or the part of the data set that it is scored with.
        queries: the place of each clip's query.
        begins: the place of the first frame that each clip may remember, up to its query.
    """

    videos: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()
    queries_alone: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    queries: tuple[int, ...] = ()
    begins: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len({len(self.ids), len(self.groups), len(self.queries), len(self.begins)}) > 1:
            raise ValueError(
                f"{len(self.ids)} ids, {len(self.groups)} groups, {len(self.queries)} queries and "
                f"{len(self.begins)} begins do not go together"
            )
        if len(self.lengths) != len(self.videos) or sum(self.lengths) != len(self.numbers):
            raise ValueError(
                f"{len(self.videos)} videos of {sum(self.lengths)} frames do not have "
                f"{len(self.numbers)} numbers"
            )
        if min(self.begins, default=0) < 0 or not all(map(operator.le, self.begins, self.queries)):
            raise ValueError("a memory begins after its query")
        if max((*self.queries, *self.queries_alone), default=-1) >= len(self.numbers):
            raise ValueError(f"a query is none of its {len(self.numbers)} frames")

    @property
    def num_frames(self) -> int:
        """How many frames there are."""
        return len(self.numbers)

    @classmethod
    def joined(cls, parts: Sequence["ClipIndex"]) -> "ClipIndex":
        """The index of parts that follow each other."""
        firsts = [0, *itertools.accumulate(part.num_frames for part in parts)]
        moved = [
            [[place + first for place in places] for places in part._places()]
            for part, first in zip(parts, firsts, strict=False)
        ]
        queries_alone, queries, begins = (
            tuple(itertools.chain.from_iterable(of_part[kind] for of_part in moved))
            for kind in range(3)
        )
        videos, lengths, numbers, ids, groups = (
            tuple(itertools.chain.from_iterable(getattr(part, name) for part in parts))
            for name in ("videos", "lengths", "numbers", "ids", "groups")
        )
        return cls(videos, lengths, numbers, queries_alone, ids, groups, queries, begins)

    def _places(self) -> tuple[Sequence[int], ...]:
        return self.queries_alone, self.queries, self.begins

    def only(self, frames: Sequence[bool], clips: Iterable[int]) -> "ClipIndex":
        """The index without some frames and clips.

        Args:
            frames: of each frame, whether it stays.
            clips: those that stay; so do their queries.
        """
        place_of = [
            0,
            *itertools.accumulate(map(int, frames)),
        ]  # of the first kept from there on
        kept = [place for place, stays in enumerate(frames) if stays]
        of_video = Counter(self.video_of(place) for place in kept)
        clips = list(clips)
        return ClipIndex(
            videos=self.videos,
            lengths=tuple(of_video[video] for video in range(len(self.videos))),
            numbers=tuple(self.numbers[place] for place in kept),
            queries_alone=tuple(place_of[place] for place in self.queries_alone if frames[place]),
            ids=tuple(self.ids[clip] for clip in clips),
            groups=tuple(self.groups[clip] for clip in clips),
            queries=tuple(place_of[self.queries[clip]] for clip in clips),
            begins=tuple(place_of[self.begins[clip]] for clip in clips),
        )

    def video_of(self, place: int) -> int:
        """Which video a frame is of."""
        return bisect.bisect_right(self._video_ends, place)

    def frame(self, place: int) -> tuple[str, int]:
        """The name of a frame's video, and its number there."""
        return self.videos[self.video_of(place)], self.numbers[place]

    def memory(self, clip: int, offsets: Iterable[int]) -> list[int]:
        """The places of a clip's memory frames.

        A frame that is not there is replaced by the nearest earlier one, one from before the video
        begins by the first; the query itself stands in where there is no other.

        Args:
            clip: which.
            offsets: how many frames before the query each should lie.
        """
        query = self.queries[clip]
        places, numbers = self._remembered
        begin = bisect.bisect_left(places, self.begins[clip])
        end = bisect.bisect_left(places, query, begin)
        if begin == end:
            return [query for _ in offsets]
        number = self.numbers[query]
        return [places[nearest_earlier(numbers, begin, end, number - offset)] for offset in offsets]

    def stand_ins(self, clip: int, offsets: Sequence[int]) -> int:
        """How many of a clip's memory frames stand in for others."""
        number = self.numbers[self.queries[clip]]
        return sum(
            self.numbers[place] != number - offset
            for place, offset in zip(self.memory(clip, offsets), offsets, strict=True)
        )

    @functools.cached_property
    def _remembered(self) -> tuple[Sequence[int], Sequence[int]]:
        """Places and numbers of the frames that may be memory."""
        if not self.queries_alone:
            return range(self.num_frames), self.numbers
        alone = set(self.queries_alone)
        places = [place for place in range(self.num_frames) if place not in alone]
        return places, [self.numbers[place] for place in places]

    @functools.cached_property
    def _video_ends(self) -> list[int]:
        return list(itertools.accumulate(self.lengths))
