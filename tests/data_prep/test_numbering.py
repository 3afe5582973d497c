import numpy as np
import pytest

from data_prep.numbering import MAX_DIFFERENCE, align, thumbnail
from data_prep.street.render import SnippetFrames
from tests.made.small_videos import write_video
from tmanet_jax.video.read import open_video

SIZE = (120, 160)
FIRST = 6660
STILLS = (6663, 6667, 6675)


@pytest.fixture(scope="module")
def frames():
    """20 frames of a street that moves, then 10 of one that stands."""
    moving = SnippetFrames("train", 0, SIZE, 0, False)
    pictures = [moving.draw(number).image_HxWx3 for number in range(20)]
    return pictures + pictures[-1:] * 10


@pytest.fixture(scope="module")
def thumbnails(frames):
    return np.stack([thumbnail(frame) for frame in frames])


def stills_of(thumbnails, first, numbers=STILLS):
    return {number - FIRST + first: thumbnails[number - FIRST] for number in numbers}


@pytest.mark.parametrize("first", [-1, 0, 7, 6660])
def test_the_first_number_is_found_whatever_it_is(thumbnails, first):
    alignment = align(stills_of(thumbnails, first), thumbnails)
    assert alignment.first_number == first
    assert alignment.num_agreeing == len(STILLS)
    assert alignment.mean_difference == pytest.approx(0, abs=0.1)
    assert alignment.second_difference > 3


@pytest.mark.parametrize(
    ("name", "codec", "settings"),
    [
        ("v.mxf", "mpeg2video", {"interlaced": True, "options": {"qmin": "16", "qmax": "16"}}),
        ("v.avi", "mjpeg", {"pixel_format": "yuvj420p", "options": {"qmin": "31", "qmax": "31"}}),
    ],
)
def test_lossy_frames_are_still_known(tmp_path, frames, thumbnails, name, codec, settings):
    with open_video(write_video(tmp_path / name, frames, codec, **settings)) as video:
        decoded = [frame.pixels_HxWx3 for frame in video]
    lossy = np.stack([thumbnail(frame) for frame in decoded if frame is not None])
    alignment = align(stills_of(thumbnails, FIRST), lossy)
    assert alignment.first_number == FIRST
    assert alignment.num_agreeing == len(STILLS)
    assert max(alignment.differences.values()) < MAX_DIFFERENCE


def test_brightness_and_contrast_do_not_matter(thumbnails):
    darker = (thumbnails * 0.8 + 10).astype(np.uint8)
    alignment = align(stills_of(thumbnails, FIRST), darker)
    assert (alignment.first_number, alignment.num_agreeing) == (FIRST, len(STILLS))


def test_one_moving_still_decides_for_many_that_stand(thumbnails):
    standing = range(FIRST + 21, FIRST + 29)
    alignment = align(stills_of(thumbnails, FIRST, [*standing, 6667]), thumbnails)
    assert (alignment.first_number, alignment.num_agreeing) == (FIRST, 9)


def test_a_foreign_still_is_named_and_does_not_move_the_others(thumbnails):
    foreign = SnippetFrames("train", 5, SIZE, 0, False).draw(3).image_HxWx3
    alignment = align(stills_of(thumbnails, FIRST) | {6670: thumbnail(foreign)}, thumbnails)
    assert (alignment.first_number, alignment.num_agreeing) == (FIRST, len(STILLS))
    assert "it matches no frame of the video" in str(alignment.fault(6670))


def test_a_still_with_another_number_is_told_which_frame_it_looks_like(thumbnails):
    swapped = stills_of(thumbnails, FIRST) | {6670: thumbnails[12]}
    alignment = align(swapped, thumbnails)
    assert alignment.first_number == FIRST
    assert alignment.num_agreeing == len(STILLS)
    assert "it looks like frame 6672" in str(alignment.fault(6670))


def test_a_still_after_the_end_of_the_video_is_told(thumbnails):
    stills = stills_of(thumbnails, FIRST) | {6695: thumbnails[12]}
    alignment = align(stills, thumbnails)
    assert alignment.differences[6695] == np.inf
    assert "should be frame 6695" in str(alignment.fault(6695))


def test_a_flat_frame_resembles_nothing(thumbnails):
    black = np.zeros_like(thumbnails)
    alignment = align(stills_of(thumbnails, FIRST), black)
    assert alignment.num_agreeing == 0


def test_the_report_counts(thumbnails):
    text = str(align(stills_of(thumbnails, FIRST), thumbnails))
    assert text.startswith("the first decoded frame is number 6660; 3 of 3 stills agree, 0.0")
