"""Somebody's own data that is not as it should be: what the preparation says of it."""

import re
import struct

import numpy as np
import pytest

from data_prep.labels import png_chunk
from tests.made.picture_files import write_png
from tests.made.small_folder import CLASSES, SIZE, clips_of, labels_of, prepare, write_source
from tests.made.small_videos import numbered


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "mine")


def no_classes(source):
    (source / "classes.csv").unlink()


def classes_are(text):
    return lambda source: (source / "classes.csv").write_text(text)


def no_labels(source):
    (source / "labels/train").rename(source / "labels/training")


def label_without_frame(source):
    (source / "frames/train/drive/000008.png").unlink()


def jpeg_labels(source):
    path = source / "labels/train/drive/000005.png"
    path.rename(path.with_suffix(".jpg"))


def double_frame(source):
    write_png(source / "frames/train/drive/7.png", numbered(7))


def double_labels(source):
    write_png(source / "labels/train/drive/5.png", labels_of(7))


def nameless_frame(source):
    write_png(source / "frames/train/drive/first.png", numbered(7))


def one_frame_a_video(source):
    for number in (3, 4, 6, 7):
        (source / f"frames/train/drive/{number:06d}.png").unlink()
    for kind in ("frames", "labels"):
        (source / kind / "train/other").mkdir()
        path = source / kind / "train/drive/000008.png"
        path.rename(source / kind / "train/other/000008.png")


def wrong_index(source):
    write_png(source / "labels/train/drive/000005.png", np.full(SIZE, 3, np.uint8))


def wrong_colour(source):
    write_png(source / "labels/train/drive/000005.png", np.full((*SIZE, 3), 7, np.uint8))


def small_labels(source):
    write_png(source / "labels/train/drive/000005.png", np.zeros((9, 9), np.uint8))


def labels_that_claim_more_than_they_hold(source):
    path = source / "labels/train/drive/000005.png"
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    path.write_bytes(path.read_bytes()[:8] + png_chunk(b"IHDR", header) + path.read_bytes()[33:])


def small_memory(source):
    write_png(source / "frames/train/drive/000004.png", np.zeros((9, 9, 3), np.uint8))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_classes, r"no .*classes\.csv: expected a line 'name,red,green,blue'"),
        (classes_are(""), "begins with 'nothing'"),
        (classes_are("road,1,2,3\n"), "begins with 'road,1,2,3': expected the line"),
        (classes_are(CLASSES + "x,1,2\n"), r"line 5 is 'x,1,2': expected a name and three"),
        (classes_are(CLASSES + "x,1,2,256\n"), "line 5 is 'x,1,2,256'"),
        (classes_are(CLASSES + "car,1,2,3\n"), "line 5: 'car' is in line 3 already"),
        (classes_are(CLASSES + "x,90,90,90\n"), r"line 5: \(90, 90, 90\) is in line 2 already"),
        (classes_are(CLASSES[:34]), "has 1 classes: expected 2 to 253"),
        (classes_are(CLASSES[:20] + "ignored,0,0,0\na,1,1,1\n"), "must be the last line"),
        (no_labels, r"no labels in .*: expected labels/train/VIDEO/NUMBER\.png.* --splits=val\.$"),
        (label_without_frame, r"labels .*000008\.png have no frame: expected frames/train/drive"),
        (jpeg_labels, r"labels .*000005\.jpg are no PNG"),
        (double_frame, r"000007\.png and .*/7\.png are both of frame 7"),
        (double_labels, r"labels/.*/000005\.png and .*/labels/.*/5\.png are both of frame 5"),
        (one_frame_a_video, r"'train': not one of its 2 clips has .* --frame-stride.* --memory-ra"),
        (nameless_frame, r"no frame number in the name of .*first\.png"),
        (wrong_index, r"value 3 in .*000005\.png at row 0, column 0 .* 0\.\.2 or 255"),
        (wrong_colour, r"colour \(RGB\) \(7, 7, 7\) in .*000005\.png .* those of classes\.csv"),
        (small_labels, r"000005\.png is 9x9 .* its query .*/frames/.* is 96x128"),
        (labels_that_claim_more_than_they_hold, r"000005\.png is 60000x60000 .* its query"),
        (small_memory, r"000004\.png is 9x9 .* its query .* is 96x128"),
    ],
)
def test_bad_input_is_named(source, harm, message, capsys):
    harm(source)
    assert prepare(source) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (source.parent / "out" / "clip_records").exists()


def test_a_clip_that_cannot_be_read_may_be_skipped(source, capsys):
    label_without_frame(source)
    assert prepare(source, "--on-error=skip", "--splits=train") == 0
    assert "Skipped 1 clips of train:\n  drive_000008: The labels" in capsys.readouterr().out
    assert len(clips_of(source)) == 1


@pytest.mark.parametrize("values", ["7;256", "7,8", "8"])
def test_values_that_are_none_are_told_with_their_line(source, values, capsys):
    table = f"name,red,green,blue,values\nsky,0,0,250,8\nroad,90,90,90,{values}\n"
    (source / "classes.csv").write_text(table)
    assert prepare(source) == 2
    assert "classes.csv, line 3" in capsys.readouterr().err
