"""KITTI-STEP in the layout of its download: panoptic maps, sequences of several sizes."""

import numpy as np
import pytest

from data_prep import kitti_step
from tests.made.picture_files import write_png
from tests.made.small_kitti_step import NUM_FRAMES, SIZES, train_ids, write_kitti_step
from tests.made.small_videos import number_of
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.records import open_clips
from tmanet_jax.scoring.videos import find_videos

LAYOUTS = [
    {"train": "images/train", "val": "images/val", "test": "images/test"},
    {"val": "training/image_02", "test": "testing/image_02"},
]


@pytest.fixture(params=LAYOUTS, ids=["of the kit", "of KITTI"])
def source(request, tmp_path):
    return write_kitti_step(tmp_path / "kitti", request.param)


def prepare(source, *options):
    return kitti_step.main([f"--source={source}", f"--out={source.parent / 'out'}", *options])


def test_every_labelled_frame_becomes_a_clip_of_cityscapes_classes(source):
    assert prepare(source, "--splits=val,test") == 0
    clips = open_clips(source.parent / "out", "val")
    assert clips.info.classes == CITYSCAPES
    assert clips.ids == tuple(f"{s}_{n:06d}" for s in SIZES for n in range(NUM_FRAMES))
    clip = clips.read(7, (2, 1))
    assert [number_of(frame) for frame in clip.frames_SxHxWx3] == [1, 2, 3]
    np.testing.assert_array_equal(clip.labels_HxW, train_ids("0001", 3))
    assert [len(video.indices) for video in find_videos(clips)] == [NUM_FRAMES] * 2
    assert not open_clips(source.parent / "out", "test").labelled
    assert prepare(source, "--verify") == 0


def test_what_is_wrong_with_a_map_is_told(source, capsys):
    at = "panoptic_maps/val/0000/000001.png"
    write_png(source / at, np.full((*SIZES["0000"], 3), 19, np.uint8))
    assert prepare(source, "--splits=val") == 2
    assert f"Label value 19 in the red channel of {source / at}" in capsys.readouterr().err
    assert prepare(source, "--splits=val", "--on-error=skip") == 0
    assert "Skipped 1 clips of val:\n  0000_000001: " in capsys.readouterr().out
    write_png(source / at, np.zeros(SIZES["0000"], np.uint8))
    assert prepare(source, "--splits=val", "--on-error=skip") == 2
    assert "expected an RGB picture whose red channel" in capsys.readouterr().err


def test_a_source_without_maps_is_refused(source, capsys):
    assert prepare(source, "--splits=other") == 2
    told = capsys.readouterr().err
    assert "expected panoptic_maps/other/0000/000000.png. To prepare what is there: --spl" in told
