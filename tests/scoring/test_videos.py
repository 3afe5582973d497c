"""Videos among records."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.records.writer import write_records
from tests.made.small_clips import write_noise
from tests.made.small_streets import StreetFrame, plan_of, write_videos
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.videos import clips_of, find_videos


def test_neighbouring_frames_make_a_video_and_a_gap_ends_it(tmp_path: Path) -> None:
    numbers = {3: range(8, 12), 1: range(2)}
    source = write_videos(tmp_path, numbers)
    videos = find_videos(source)
    ids = [[source.clip_id(index) for index in video.indices] for video in videos]
    assert ids == [
        [StreetFrame(snippet, number).id for number in numbers[snippet]] for snippet in (1, 3)
    ]
    assert [video.name for video in videos] == ["rasterburg_000001", "rasterburg_000003"]

    gap = [StreetFrame(0, number) for number in (0, 1, 3, 4, 5)]
    write_records(tmp_path / "gap", CITYSCAPES, 0, {"val": plan_of(gap)})
    videos = find_videos(open_clips(tmp_path / "gap", "val"))
    assert [len(video.indices) for video in videos] == [2, 3]


def test_each_frame_comes_with_those_before_it_and_the_first_stands_in(tmp_path: Path) -> None:
    source = write_videos(tmp_path, {0: range(4)})
    (video,) = find_videos(source)
    frames = [StreetFrame(0, number) for number in range(4)]
    for query, clip in enumerate(clips_of(source, video, num_memory=2)):
        assert clip.id == frames[query].id
        expected = [frames[max(query - offset, 0)].load() for offset in (2, 1, 0)]
        np.testing.assert_array_equal(clip.frames_SxHxWx3, np.stack(expected))
        np.testing.assert_array_equal(clip.labels_HxW, frames[query].load_labels((64, 128)))


def test_clips_that_are_no_neighbours_are_no_videos(tmp_path: Path) -> None:
    source = write_noise(tmp_path, 2)
    with pytest.raises(UserError, match=r"no two neighbouring frames.*\n.*--every-frame"):
        find_videos(source)
