"""Which frames are written, and which of them serve as memory."""

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from data_prep.clips import plan_split
from data_prep.data_set import FoundSplit, LabelledVideo, Options, Query
from data_prep.source import UnpackedFile


def video_of(existing, queries, largest_gap=None, own_pictures=True):
    """A video; its queries are pictures of their own, or else frames of it where there is one."""
    frames = {number: UnpackedFile(Path(f"{number}.png")) for number in existing}
    stills = {number: UnpackedFile(Path(f"still{number}.png")) for number in queries}
    pictures = stills if own_pictures else stills | frames
    made = [Query(f"clip{number}", number, pictures[number], None) for number in queries]
    return LabelledVideo("video", frames, made, largest_gap=largest_gap)


def planned(video, memory_range=0, frame_stride=1):
    return plan_split(FoundSplit([video], False), Options(memory_range, frame_stride))


def memory_numbers(plan, clip, offsets):
    return [plan.index.numbers[place] for place in plan.index.memory(clip, offsets)]


def remembered(query, offset, existing, largest_gap):
    """The number of the frame that serves as memory: by its definition, one after the other."""
    video = [query]
    for number in sorted(existing, reverse=True):
        if number < query and (largest_gap is None or video[0] - number <= largest_gap):
            video.insert(0, number)
    return max((number for number in video if number <= query - offset), default=video[0])


@st.composite
def videos(draw):
    """A video, its largest gap, and the memory that its records are made for."""
    existing = draw(st.sets(st.integers(0, 70), max_size=40))
    queries = draw(st.lists(st.integers(0, 70), min_size=1, max_size=4, unique=True))
    largest_gap = draw(st.none() | st.integers(1, 20))
    video = video_of(existing, queries, largest_gap, own_pictures=draw(st.booleans()))
    return video, draw(st.integers(0, 6)), draw(st.integers(1, 4))


@given(videos())
def test_a_frame_that_exists_is_taken_and_else_the_nearest_earlier_or_the_first(made):
    video, memory_range, frame_stride = made
    plan = planned(video, memory_range, frame_stride)
    for (clip, query), stride in itertools.product(enumerate(video.queries), range(1, 26)):
        offsets = range(plan.reach // stride * stride, 0, -stride)
        expected = [remembered(query.number, n, video.frames, video.largest_gap) for n in offsets]
        assert memory_numbers(plan, clip, offsets) == expected


@given(videos())
def test_each_frame_is_written_once_and_none_that_no_memory_reaches(made):
    video, memory_range, frame_stride = made
    plan, reach = planned(video, memory_range, frame_stride), memory_range * frame_stride
    files = [frame.file for frame in plan.frames]
    assert len(files) == len(set(files))
    assert {query.frame for query in video.queries} <= set(files)
    needed = {
        video.frames.get(remembered(query.number, offset, video.frames, video.largest_gap))
        for query in video.queries
        for offset in range(1, reach + 1)
    }
    assert set(files) <= needed | {query.frame for query in video.queries}
    assert plan.index.numbers == tuple(sorted(plan.index.numbers))
    assert [plan.index.numbers[place] for place in plan.index.queries] == [
        query.number for query in video.queries
    ]


def test_a_query_that_is_a_frame_of_its_video_is_written_once_and_a_still_beside_it():
    assert planned(video_of(range(9), range(9), own_pictures=False), 2).index.num_frames == 9
    stills = planned(video_of(range(9), [5, 6]), 2).index
    assert stills.numbers == (3, 4, 5, 5, 6)
    assert stills.queries_alone == (2, 4)
    assert stills.memory(1, (1,)) == [3]  # of the video, not the still


def test_what_is_whole_reaches_as_far_as_its_longest_video():
    dense = video_of(range(9), range(9), own_pictures=False)
    assert planned(dense, 0).reach == 8
    assert planned(video_of(range(9), [8]), 2, 2).reach == 4
    assert planned(video_of([], [8]), 0).reach == 0


def test_a_number_that_exists_of_a_video_without_other_frames_is_its_query():
    plan = planned(video_of([5], [5]), 2)
    assert plan.index.memory(0, (2, 1)) == [0, 0]
    assert plan.index.stand_ins(0, (2, 1)) == 2
