"""VSPW in the layout of its download: lists, jumping numbers, masks from 1, files of 0 bytes."""

import numpy as np
import pytest
from PIL import Image

from data_prep import vspw
from tests.made.picture_files import write_png
from tests.made.small_videos import SIZE, number_of
from tests.made.small_vspw import CLASSES, NUMBERS, VIDEOS, frame_path, mask_of, write_vspw
from tmanet_jax.data.classes import voc_colour
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.submission import Submission
from tmanet_jax.scoring.videos import find_videos


def train_ids_of(mask_HxW):
    return np.where(np.isin(mask_HxW, (0, 255)), 255, mask_HxW.astype(int) - 1)


@pytest.fixture
def source(tmp_path):
    return write_vspw(tmp_path / "VSPW_480p")


def prepare(source, *options):
    return vspw.main([f"--source={source}", f"--out={source.parent / 'out'}", *options])


def shown_numbers(clips, index, offsets):
    return [number_of(frame) for frame in clips.read(index, offsets).frames_SxHxWx3]


def test_every_frame_becomes_a_clip_of_the_frames_before_it_in_order(source, capsys):
    assert prepare(source, "--memory-range=2", "--frame-stride=1") == 0
    clips = open_clips(source.parent / "out", "train")
    assert clips.info.classes.names == CLASSES
    assert clips.info.classes.palette_Cx3 == tuple(map(voc_colour, (1, 2, 3)))
    assert clips.ids[:5] == tuple(f"127_ca6Al7-lY58_{n:08d}" for n in NUMBERS)
    assert len(clips) == 10 and len(open_clips(source.parent / "out", "val")) == 5
    assert shown_numbers(clips, 3, (2, 1)) == [231, 240, 242]
    assert prepare(source, "--verify") == 0


def test_memory_lies_three_frames_apart_as_in_the_papers(source):
    assert prepare(source) == 0
    clips = open_clips(source.parent / "out", "train")
    assert (clips.info.memory_range, clips.info.frame_stride) == (3, 3)
    assert shown_numbers(clips, 4, (3, 2, 1)) == [226, 226, 231, 251]


def test_neighbours_are_those_in_the_order_of_the_video_whatever_memory_and_stride(source):
    assert prepare(source, "--memory-range=0") == 0
    out = source.parent / "out"
    assert [len(video.indices) for video in find_videos(open_clips(out, "train"))] == [5, 5]
    clips = open_clips(out, "train", frame_stride=2)
    clips.check_memory(2, 2)
    assert clips.index.num_frames == len(clips) == 10
    assert shown_numbers(clips, 4, (2, 1)) == [226, 240, 251]


def test_masks_count_from_one_and_others_are_ignored(source):
    assert prepare(source) == 0
    labels_HxW = open_clips(source.parent / "out", "train").read(0, ()).labels_HxW
    np.testing.assert_array_equal(labels_HxW, train_ids_of(mask_of(NUMBERS[0])))


def test_the_test_split_has_no_labels(source):
    assert prepare(source, "--splits=test") == 0
    clips = open_clips(source.parent / "out", "test")
    assert not clips.labelled and len(clips) == 5


def test_the_full_size_is_resized_as_the_kit_does(source):
    assert prepare(source, "--height=60", "--memory-range=0") == 0
    clip = open_clips(source.parent / "out", "train").read(0, ())
    width = int(60 * SIZE[1] / SIZE[0])
    frame = Image.open(frame_path(source, "127_ca6Al7-lY58", NUMBERS[0]))
    resized = np.asarray(frame.resize((width, 60), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(clip.frames_SxHxWx3[0], resized)
    mask = Image.fromarray(mask_of(NUMBERS[0])).resize((width, 60), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(clip.labels_HxW, train_ids_of(np.asarray(mask)))


def empty_frame(source):
    frame_path(source, "9_v", NUMBERS[2]).write_bytes(b"")


def lost_mask(source):
    (source / f"data/9_v/mask/{NUMBERS[0]:08d}.png").unlink()


def lost_video(source):
    (source / "val.txt").write_text("9_v\nnot_there\n")


def value_of_no_class(source):
    write_png(source / f"data/9_v/mask/{NUMBERS[1]:08d}.png", np.full(SIZE, 4, np.uint8))


@pytest.mark.parametrize(
    ("damage", "told", "skipped"),
    [
        (empty_frame, f"{NUMBERS[2]:08d}.jpg is empty", 2),  # it is the memory of the last, too
        (lost_mask, f"expected data/9_v/mask/{NUMBERS[0]:08d}.png", 1),
        (lost_video, "The video not_there is listed", 1),
        (value_of_no_class, "expected 0..3 or 255", 1),
    ],
)
def test_what_is_damaged_is_named_and_skipped_on_request(source, capsys, damage, told, skipped):
    damage(source)
    memory = ("--splits=val", "--memory-range=1", "--frame-stride=2")
    assert prepare(source, *memory) == 2
    assert told in capsys.readouterr().err
    assert prepare(source, *memory, "--on-error=skip") == 0
    assert f"Skipped {skipped} clips of val" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("label_num_dic_final.json", '{"wall": 1, "door": 3}', "the numbers 1, 2, 3"),
        ("label_num_dic_final.json", "{", "cannot be read"),
        ("label_num_dic_final.json", None, "which names the classes"),
        ("train.txt", None, "of train. To prepare what is there: --splits=val,test."),
        ("train.txt", "nothing\n", "None of the videos in"),
        ("train.txt", "9_v\n../../elsewhere\n", "which is no name of a video"),
        ("data/9_v/origin/one.jpg", "", "not named after a number of its own"),
    ],
)
def test_a_source_that_is_something_else_is_refused(source, capsys, file, content, told):
    path = source / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    assert prepare(source, "--on-error=skip") == 2
    assert told in capsys.readouterr().err
    assert not (source.parent / "out").exists()


@pytest.mark.parametrize("split", ["val", "test"])
def test_results_lie_as_the_kit_writes_them_with_labels_or_without(source, split):
    assert prepare(source, f"--splits={split}", "--memory-range=0") == 0
    clips = open_clips(source.parent / "out", split)
    results = source.parent / "results"
    submission = Submission.begin(results, clips)
    predicted = [np.random.default_rng(i).integers(0, 3, SIZE, np.uint8) for i in range(5)]
    for index, predicted_HxW in enumerate(predicted):
        nothing_CxC = np.zeros((3, 3), np.int32)
        submission.add(SegmentedClip(clips.read(index, ()), predicted_HxW, nothing_CxC))
    (video,) = (name for name, of in VIDEOS.items() if of == split)
    for number, expected in zip(NUMBERS, predicted, strict=True):
        with Image.open(results / video / f"{number:08d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), expected)
    Submission.begin(results, clips)
    write_png(results / video / "00000001.png", predicted[0])
    with pytest.raises(UserError, match=f"holds {video}/00000001.png, which is no result"):
        Submission.begin(results, clips)


def test_a_height_of_nothing_is_refused(source, capsys):
    assert prepare(source, "--height=0") == 2
    assert "--height is 0: use 8 to" in capsys.readouterr().err
