"""The frames and clips of a data set: which frames memory needs, and how one is loaded."""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_prep.data_set import (
    MOST_FRAMES,
    DataSet,
    FoundSplit,
    LabelledVideo,
    Options,
    Query,
    Unusable,
)
from data_prep.labels import LabelFile, LabelPicture
from data_prep.records.shards import PlannedFrame
from data_prep.records.writer import SplitPlan
from data_prep.source import SourceFile, check_size, read_frame
from tmanet_jax.data.clip_index import ClipIndex, nearest_earlier
from tmanet_jax.data.records_info import SkippedClip
from tmanet_jax.errors import UserError


@dataclass(frozen=True)
class FileFrame:
    """A frame that is a file, and its labels, which are another.

    Attributes:
        file: the picture.
        labels: what it shows; None if it is no query, or of a split without.
    """

    file: SourceFile
    labels: LabelFile | None

    def __str__(self) -> str:
        return str(self.file)

    @property
    def fingerprint(self) -> str:
        """Changes when a file does, or how labels are read."""
        return "\n".join(each.fingerprint for each in (self.file, self.labels) if each is not None)

    def load(self) -> np.ndarray:
        """Reads the picture; raises UserError if it is torn."""
        return read_frame(self.file)

    def load_labels(self, size: tuple[int, int]) -> np.ndarray | None:
        """Reads the labels; raises UserError if they are torn, wrong or of another size."""
        if self.labels is None:
            return None
        picture = LabelPicture.read(self.labels.file)
        check_size(picture.size, picture.file, size, self.file)  # before memory is taken for it
        return self.labels.train_ids(picture)


def find_clips(
    data_set: DataSet, splits: Sequence[str], options: Options
) -> Mapping[str, SplitPlan]:
    """The frames and clips of some splits of a data set, in the order of its videos.

    Raises:
        UserError: the data set finds no videos; or a clip cannot be made, or lacks frames, where
            that is an error and errors are not skipped.
    """
    found = data_set.find(splits, options)
    return {name: plan_split(split, options) for name, split in found.items()}


def plan_split(split: FoundSplit, options: Options) -> SplitPlan:
    """What is to be written of a split.

    Raises:
        UserError: a clip cannot be made, and is not to be skipped.
    """
    videos = [_plan_video(video, options) for video in split.videos]
    is_whole = all(video.is_whole for video in videos)
    furthest = max((video.furthest for video in videos), default=0) if is_whole else 0
    frames: list[PlannedFrame] = [frame for video in videos for frame in video.frames]
    return SplitPlan(
        index=ClipIndex.joined([video.index for video in videos]),
        frames=frames,
        reach=MOST_FRAMES**2 if split.of_pictures else max(options.reach, furthest),
        of_pictures=split.of_pictures,
        labelled=split.labelled,
        unusable=[clip for video in videos for clip in video.unusable],
        notes=split.notes,
    )


@dataclass(frozen=True)
class _PlannedVideo:
    """What is to be written of a video.

    Attributes:
        index: its frames and clips.
        frames: as they are in the index.
        unusable: the clips that cannot be made.
        is_whole: whether every frame is there that a memory could reach.
        furthest: how many frames before its query the first frame lies that a clip may remember.
    """

    index: ClipIndex
    frames: Sequence[FileFrame]
    unusable: Sequence[SkippedClip]
    is_whole: bool
    furthest: int


class _Reaching(NamedTuple):
    """A query, and the number of the first frame before it that it may remember, or its own."""

    query: Query
    first: int


class _Place(NamedTuple):
    """Where a frame lies among those of its video: queries that are no memory come first."""

    number: int
    is_memory: bool
    frame: FileFrame
    clip: int | None

    @property
    def order(self) -> tuple[int, bool]:
        return self.number, self.is_memory


def _plan_video(video: LabelledVideo, options: Options) -> _PlannedVideo:
    existing = sorted(video.frames)
    reaching: list[_Reaching] = []
    unusable: list[SkippedClip] = []
    needed: set[int] = set()
    for query in video.queries:
        begin, end = 0, 0
        if isinstance(query, Query):
            begin, end = _before(query.number, existing, video.largest_gap)
            query = _checked(query, video, existing[begin:end], options)
        if isinstance(query, Unusable):
            if options.on_error == "stop":
                raise UserError(query.reason)
            unusable.append(SkippedClip(query.id, query.reason))
            continue
        reaching.append(_Reaching(query, existing[begin] if begin < end else query.number))
        if options.reach and begin < end:
            oldest = nearest_earlier(existing, begin, end, query.number - options.reach)
            needed.update(existing[oldest:end])
    places = sorted(_places(video, reaching, needed), key=lambda place: place.order)
    stored = {place.number for place in places if place.is_memory}
    last = max((each.query.number for each in reaching), default=0)
    return _PlannedVideo(
        index=_index(video.name, places, reaching),
        frames=[place.frame for place in places],
        unusable=unusable,
        is_whole=all(number in stored for number in existing if number < last),
        furthest=max((each.query.number - each.first for each in reaching), default=0),
    )


def _before(query: int, existing: Sequence[int], largest_gap: int | None) -> tuple[int, int]:
    """The frames before a query that it may remember: places of the first and behind the last.

    Where more than `largest_gap` frames lie from one frame to the next, another video begins.
    """
    end = begin = bisect.bisect_left(existing, query)
    if largest_gap is None:
        return 0, end
    while begin and query - existing[begin - 1] <= largest_gap:
        begin -= 1
        query = existing[begin]
    return begin, end


def _checked(
    query: Query, video: LabelledVideo, before: Sequence[int], options: Options
) -> Query | Unusable:
    """The query, unless it lacks memory frames and that is an error."""
    if options.missing == "stand-in":
        return query
    wanted = [query.number - offset for offset in options.memory_offsets]
    missing = [
        video.name_of(number)
        for number in wanted
        if not before or before[nearest_earlier(before, 0, len(before), number)] != number
    ]
    if not missing:
        return query
    return Unusable(
        query.id,
        f"Clip {query.id} has no {', '.join(missing)}. Get the files, or let other frames "
        "stand in for them: --missing=stand-in.",
    )


def _places(
    video: LabelledVideo, reaching: Sequence[_Reaching], needed: set[int]
) -> Iterator[_Place]:
    """The frames to be written: what memory needs, and the queries, if those are other pictures."""
    left = set(needed)
    for clip, (query, _) in enumerate(reaching):
        is_memory = video.frames.get(query.number) == query.frame
        left -= {query.number} if is_memory else set()
        yield _Place(query.number, is_memory, FileFrame(query.frame, query.labels), clip)
    for number in left:
        yield _Place(number, True, FileFrame(video.frames[number], None), None)


def _index(video: str, places: Sequence[_Place], reaching: Sequence[_Reaching]) -> ClipIndex:
    numbers = [place.number for place in places]
    place_of = {place.clip: index for index, place in enumerate(places)}
    queries = [place_of[clip] for clip in range(len(reaching))]
    return ClipIndex(
        videos=(video,),
        lengths=(len(places),),
        numbers=tuple(numbers),
        queries_alone=tuple(i for i, place in enumerate(places) if not place.is_memory),
        ids=tuple(query.id for query, _ in reaching),
        groups=tuple(query.group for query, _ in reaching),
        queries=tuple(queries),
        begins=tuple(
            min(bisect.bisect_left(numbers, first), query)
            for query, (_, first) in zip(queries, reaching, strict=True)
        ),
    )
