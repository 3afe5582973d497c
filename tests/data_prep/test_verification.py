"""Records are compared with their source, pixel by pixel, and every difference is named."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep import cityscapes
from tests.made.small_cityscapes import (
    NAMES,
    SIZE,
    labels_path,
    noise,
    paths,
    write_clip,
    write_png,
    write_tree,
    zip_as_downloaded,
)
from tmanet_jax.data.records import open_clips

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "source")


def run(source, *arguments):
    return cityscapes.main([f"--source={source}", f"--out={source.parent / 'out'}", *arguments])


def prepare(source, *arguments):
    assert run(source, "--splits=train", *arguments) == 0


def verify(source, capsys, *arguments):
    """The exit status, the lines of differences, and the last line."""
    capsys.readouterr()
    status = run(source, "--verify", *arguments)
    *differences, last = capsys.readouterr().out.splitlines()
    return status, differences, last


def test_records_as_prepared_do_not_differ_and_nothing_is_written(source, capsys):
    prepare(source, "--memory-range=3", "--frame-stride=2")
    files = {path: path.stat().st_mtime_ns for path in (source.parent / "out").rglob("*")}
    status, differences, last = verify(source, capsys)
    assert (status, differences) == (0, [])
    assert "3 clips, 9 frames and their labels: no differences. Checksum of the pixels: " in last
    assert files == {path: path.stat().st_mtime_ns for path in (source.parent / "out").rglob("*")}


def test_the_same_pixels_from_zip_files_have_the_same_checksum(source, capsys):
    prepare(source)
    unpacked = verify(source, capsys)
    for folder in ("leftImg8bit", "leftImg8bit_sequence", "gtFine"):
        zip_as_downloaded(source, folder, f"{folder}_trainvaltest.zip")
    assert verify(source, capsys) == unpacked


def read_png(path):
    return np.array(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


def change_pixel(path, row, column):
    pixels = read_png(path)
    pixels[row, column] = pixels[row, column] ^ 1
    assert cv2.imwrite(str(path), pixels)


@pytest.mark.parametrize(
    ("path_of", "number"),
    [
        (lambda query, memory: query, 19),
        (lambda query, memory: memory[0], 17),
        (lambda query, memory: memory[1], 18),
    ],
)
def test_one_changed_pixel_of_a_frame_is_named(source, capsys, path_of, number):
    prepare(source)
    query, memory, _ = paths(source, NAMES[1])
    change_pixel(path_of(query, memory), 7, 9)
    status, differences, last = verify(source, capsys)
    shard = source.parent / "out/clip_records/3.0.0/clip_records-train.array_record-00000-of-00001"
    assert status == 2
    (difference,) = differences
    where = f"Frame {number} of aachen_000001 (record {number - 14} of {shard})"
    assert difference.startswith(f"{where}: frame: 1 pixels differ, ")
    assert "the first at row 7, column 9: [" in difference
    assert ": 1 differences." in last


def test_one_changed_label_is_named(source, capsys):
    prepare(source)
    path = labels_path(source, NAMES[2])
    label_ids = read_png(path)
    row, column = np.argwhere(label_ids == 7)[0]
    label_ids[row, column] = 8
    write_png(path, label_ids)
    status, (difference,), _ = verify(source, capsys)
    assert status == 2
    assert f"labels: 1 pixels differ, the first at row {row}, column {column}: 0 in" in difference


def test_every_difference_is_named_not_only_the_first(source, capsys):
    prepare(source)
    write_png(paths(source, NAMES[0])[0], noise(0, 20, 30, 3))
    change_pixel(paths(source, NAMES[1])[1][0], 0, 0)
    paths(source, NAMES[2])[0].write_bytes(b"")
    (source / "groups.json").write_text(json.dumps({"clean": [NAMES[1]]}))
    status, differences, _ = verify(source, capsys)
    assert status == 2
    assert len(differences) == 4
    assert f"Clip {NAMES[1]}: group '' in the record, group 'clean' in the so" in differences[0]
    assert "cannot be compared with its source: " in differences[1]
    assert differences[2].startswith("Frame 17 of aachen_000001 ")
    assert f"{NAMES[2]}_leftImg8bit.png is empty" in differences[3]


def test_pictures_of_another_size_are_named(source, capsys):
    prepare(source, "--memory-range=0")
    write_png(paths(source, NAMES[0])[0], noise(0, 20, 30, 3))
    write_png(labels_path(source, NAMES[0]), noise(0, 20, 30, limit=34))
    _, differences, _ = verify(source, capsys)
    assert [line.partition("): ")[2] for line in differences] == [
        "frame: 40x60 pixels in the record, 20x30 in the source.",
        "labels: 40x60 pixels in the record, 20x30 in the source.",
    ]


def test_a_torn_record_is_named(source, capsys):
    prepare(source)
    (shard,) = source.parent.glob("out/clip_records/*.*.*/*array_record*")
    content = bytearray(shard.read_bytes())
    query = bytes(open_clips(source.parent / "out", "train").read_encoded(1).query.content)
    start = content.index(query) + len(query) // 2
    content[start : start + 50] = bytes(50)
    shard.write_bytes(content)
    status, (difference,), _ = verify(source, capsys)
    assert status == 2
    assert f"Frame 19 of aachen_000001 (record 5 of {shard}) cannot be read" in difference


def test_clips_that_only_one_side_has_are_named(source, capsys):
    prepare(source)
    paths(source, NAMES[0])[0].rename(paths(source, NAMES[0])[0].with_suffix(".away"))
    labels_path(source, NAMES[0]).unlink()
    write_clip(source, "ulm_000000_000019", seed=3)
    status, differences, _ = verify(source, capsys)
    assert status == 2
    assert "has no clip ulm_000000_000019, the source has" in differences[0]
    assert f"has a clip {NAMES[0]}, the source has none" in differences[1]


def test_skipped_clips_are_counted_as_not_compared(source, capsys):
    labels_path(source, NAMES[1]).unlink()
    prepare(source, "--on-error=skip")
    assert f"{NAMES[1]}: Clip {NAMES[1]} has no labels" in capsys.readouterr().out
    status, differences, last = verify(source, capsys)
    assert (status, differences) == (0, [])
    assert "2 clips, 6 frames and their labels, 1 skipped clips not compared" in last


def test_other_options_than_those_of_the_records_are_refused(source, capsys):
    prepare(source)
    assert run(source, "--verify", "--memory-range=4") == 2
    assert "have memory range 2, not 4" in capsys.readouterr().err
    assert run(source, "--verify", "--splits=val") == 2


def test_the_summary_has_a_table_of_class_frequencies(source, capsys):
    for name in NAMES:
        labels = np.full(SIZE, 0, np.uint8)
        labels[:10] = 10
        labels[-4:] = 255
        write_png(labels_path(source, name, "labelTrainIds"), labels)
    prepare(source)
    *table, warning = capsys.readouterr().out.splitlines()[1:]
    assert warning.startswith("Warning: no pixel of train is sidewalk, building, wall, ")
    rows = {line.rsplit(maxsplit=1)[0]: line.rsplit(maxsplit=1)[1] for line in table if line}
    assert rows["share of pixels"] == "train"
    assert (rows["road"], rows["sky"], rows["(ignored)"]) == ("65.000%", "25.000%", "10.000%")
    assert rows["bicycle"] == "0.000%"
    assert len(rows) == 1 + 19 + 1


SMALL_SHARDS = """
import sys
from data_prep import cityscapes
from data_prep.records import writer

writer.FRAMES_PER_SHARD = 3
sys.exit(cityscapes.main(sys.argv[1:]))
"""


def start(source, **options):
    arguments = [f"--source={source}", f"--out={source.parent / 'out'}", "--splits=train"]
    return subprocess.Popen(
        [sys.executable, "-c", SMALL_SHARDS, *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        **options,
    )


def test_being_stopped_is_said_and_the_same_command_goes_on_from_there(source):
    labels = labels_path(source, NAMES[2])
    content = labels.read_bytes()
    labels.unlink()
    os.mkfifo(labels)  # reading it waits
    process = start(source)
    while len(list(source.parent.glob("out/.unfinished-records/clip_records/shards/*.json"))) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    with labels.open("wb") as pipe:  # the clip that is being loaded is finished first
        pipe.write(content)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert errors.splitlines()[-1] == "Stopped. The same command goes on from here."
    assert "Traceback" not in errors

    labels.unlink()
    labels.write_bytes(content)
    process = start(source)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "6 frames (2 shards) are there already." in errors
    assert "3 clips, 9 frames" in output
    assert open_clips(source.parent / "out", "train").ids == NAMES
