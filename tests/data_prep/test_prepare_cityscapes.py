import json
import subprocess
import sys
from pathlib import Path

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
from tests.made.small_cityscapes_records import prepare, prepared
from tmanet_jax.data.classes import CITYSCAPES, label_ids_to_train_ids
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "source")


def test_records_hold_what_the_files_hold_in_sorted_order(source):
    clips = prepared(source)
    assert clips.info.classes == CITYSCAPES
    assert clips.info.memory_range == 2
    assert [clips.clip_id(index) for index in range(3)] == list(NAMES)
    for index, name in enumerate(NAMES):
        frames, label_ids = write_clip(source.parent / "again", name)
        clip = clips.read(index, (2, 1))
        np.testing.assert_array_equal(clip.frames_SxHxWx3, frames)
        np.testing.assert_array_equal(clip.labels_HxW, label_ids_to_train_ids(label_ids))


def test_the_summary_counts(source):
    summary = prepare(source)
    shards = (source.parent / "out").glob("clip_records/*.*.*/*array_record*")
    assert (summary.clips, summary.frames, summary.stand_ins) == (3, 9, 0)
    assert summary.num_bytes == sum(path.stat().st_size for path in shards)
    assert str(summary).startswith(
        "3 clips, 9 frames (0 times one stands in for a missing one, in 0 "
    )


ZIPS = {
    "leftImg8bit": "leftImg8bit_trainvaltest.zip",
    "leftImg8bit_sequence": "leftImg8bit_sequence_trainvaltest.zip",
    "gtFine": "gtFine_trainvaltest.zip",
}


@pytest.mark.parametrize("zipped", [(*ZIPS,), ("leftImg8bit_sequence",), ("leftImg8bit", "gtFine")])
def test_zip_files_as_downloaded_are_read_in_place(source, zipped):
    unpacked = prepared(source).read(1, (2, 1))
    for folder in zipped:
        zip_as_downloaded(source, folder, ZIPS[folder])
    before = sorted(path for path in source.rglob("*"))
    clip = prepared(source).read(1, (2, 1))
    np.testing.assert_array_equal(clip.frames_SxHxWx3, unpacked.frames_SxHxWx3)
    np.testing.assert_array_equal(clip.labels_HxW, unpacked.labels_HxW)
    assert sorted(path for path in source.rglob("*")) == before


def test_a_torn_member_of_a_zip_file_is_named_and_can_be_skipped(source):
    harm_query(source)
    zip_as_downloaded(source, "leftImg8bit", "leftImg8bit_trainvaltest.zip")
    message = r"trainvaltest\.zip/leftImg8bit/.*aachen_000001_000019_leftImg8bit\.png cannot be dec"
    with pytest.raises(UserError, match=message):
        prepare(source)
    summary = prepare(source, on_error="skip")
    assert open_clips(source.parent / "out", "train").ids == (NAMES[0], NAMES[2])
    assert f"Skipped 1 clips of train:\n  {NAMES[1]}: Frame {source}" in str(summary)


def test_endings_may_be_in_capitals(source):
    expected = prepared(source).read(0, (2, 1))
    for path in source.rglob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    clip = prepared(source).read(0, (2, 1))
    np.testing.assert_array_equal(clip.frames_SxHxWx3, expected.frames_SxHxWx3)
    np.testing.assert_array_equal(clip.labels_HxW, expected.labels_HxW)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [((1,), (0, 0, 2)), ((0,), (1, 1, 2)), ((0, 1), (2, 2, 2))],
    ids=["nearest earlier", "the video's first", "query, there are no others"],
)
def test_a_stand_in_takes_the_place_of_a_missing_frame(source, missing, expected):
    for index in missing:
        paths(source, NAMES[1])[1][index].unlink()
    frames, _ = write_clip(source.parent / "again", NAMES[1])
    clip = prepared(source).read(1, (2, 1))
    np.testing.assert_array_equal(clip.frames_SxHxWx3, frames[list(expected)])
    assert prepare(source).stand_ins == len(missing)


def empty_cities(source):
    for city in (source / "leftImg8bit_sequence/train").iterdir():
        for path in city.iterdir():
            path.unlink()


def sequences_as_jpeg(source):
    for path in (source / "leftImg8bit_sequence").rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))


@pytest.mark.parametrize("harm", [empty_cities, sequences_as_jpeg])
def test_a_split_whose_memory_would_be_its_queries_is_refused(source, harm, capsys):
    harm(source)
    with pytest.raises(UserError, match=r"'train': not one of its 3 clips has a frame of its mem"):
        prepare(source)
    assert "has no frame of aachen, zurich: expected files NAME_left" in capsys.readouterr().out
    assert prepare(source, memory_range=0).clips == 3


def test_places_without_a_frame_are_named(source, capsys):
    for name in NAMES[1:]:
        for path in paths(source, name)[1]:
            path.unlink()
    assert prepare(source).stand_ins == 4
    assert "has no frame of aachen_000001, zurich: expected" in capsys.readouterr().out


def test_a_stand_in_may_lie_before_the_range_but_not_in_another_snippet(source):
    query, memory, _ = paths(source, NAMES[0])
    frame = noise(9, *SIZE, 3)
    for path in memory:
        path.unlink()
    write_png(memory[0].with_name("aachen_000000_000001_leftImg8bit.png"), frame)
    np.testing.assert_array_equal(prepared(source).read(0, (2, 1)).frames_SxHxWx3[:2], [frame] * 2)
    memory[0].with_name("aachen_000000_000001_leftImg8bit.png").rename(memory[0].with_name("x"))
    other_snippet = query.with_name("aachen_000000_000219_leftImg8bit.png")
    query.rename(other_snippet)
    labels_path(source, NAMES[0]).rename(labels_path(source, "aachen_000000_000219"))
    write_png(memory[1], frame)
    clip = prepared(source).read(0, (2, 1))
    assert clip.id == "aachen_000000_000219"
    assert not np.any(np.all(clip.frames_SxHxWx3 == frame, axis=(1, 2, 3)))


def test_a_stride_takes_every_nth_frame(source):
    _, memory, _ = paths(source, NAMES[0])
    frames = [noise(seed, *SIZE, 3) for seed in (50, 51)]
    for number, frame in zip((13, 16), frames, strict=True):
        write_png(memory[0].with_name(f"aachen_000000_0000{number}_leftImg8bit.png"), frame)
    clips = prepared(source, frame_stride=3)
    assert clips.info.frame_stride == 3
    np.testing.assert_array_equal(clips.read(0, (2, 1)).frames_SxHxWx3[:2], frames)


def test_missing_frames_can_be_an_error_that_names_clip_and_frames(source):
    for path in paths(source, NAMES[1])[1]:
        path.unlink()
    message = f"Clip {NAMES[1]} has no aachen_000001_000017_leftImg8bit.png, aachen_000001_000018_"
    with pytest.raises(UserError, match=message):
        prepare(source, missing="error")
    assert prepare(source, missing="error", on_error="skip").clips == 2
    summary = prepare(source)
    assert "(2 times one stands in for a missing one, in 1 clips)" in str(summary)


def test_every_labelled_frame_can_be_a_query_in_the_order_of_the_video(source):
    label_ids = {}
    for frame in ("17", "19"):
        _, memory, _ = paths(source, NAMES[0])
        name = f"aachen_000000_0000{frame}"
        write_png(memory[0].with_name(f"{name}_leftImg8bit.png"), noise(int(frame), *SIZE, 3))
        label_ids[name] = noise(int(frame), *SIZE, limit=34)
        path = labels_path(source, name)
        write_png(source / "gtFine_sequence" / path.relative_to(source / "gtFine"), label_ids[name])
    (source / "leftImg8bit").rename(source / "elsewhere")
    clips = prepared(source, every_frame=True, memory_range=1)
    assert clips.ids == (*label_ids,)
    for index, (name, seed) in enumerate(zip(label_ids, (17, 19), strict=True)):
        clip = clips.read(index, ())
        np.testing.assert_array_equal(clip.frames_SxHxWx3[0], noise(seed, *SIZE, 3))
        np.testing.assert_array_equal(clip.labels_HxW, label_ids_to_train_ids(label_ids[name]))


def test_more_memory_than_the_snippets_have_is_filled_with_stand_ins(source):
    assert prepare(source, memory_range=4).stand_ins == 3 * 2
    assert open_clips(source.parent / "out", "train").info.memory_range == 4


def test_no_memory_needs_no_sequences(source):
    (source / "leftImg8bit_sequence").rename(source / "elsewhere")
    assert prepared(source, memory_range=0).read(0, ()).frames_SxHxWx3.shape == (1, *SIZE, 3)


def harm_query(source):
    path = paths(source, NAMES[1])[0]
    path.write_bytes(path.read_bytes()[:-40])


def harm_memory(source):
    paths(source, NAMES[1])[1][0].write_bytes(b"")


def harm_labels(source):
    path = labels_path(source, NAMES[1])
    path.write_bytes(path.read_bytes()[:60])


def colour_labels(source):
    write_png(labels_path(source, NAMES[1]), noise(0, *SIZE, 3))


def wrong_label_id(source):
    label_ids = noise(0, *SIZE, limit=34)
    label_ids[3, 4] = 77
    write_png(labels_path(source, NAMES[1]), label_ids)


def wrong_train_id(source):
    write_png(labels_path(source, NAMES[1], "labelTrainIds"), np.full(SIZE, 33, np.uint8))


def shrink_memory(source):
    write_png(paths(source, NAMES[1])[1][1], noise(0, 40, 58, 3))


def shrink_labels(source):
    write_png(labels_path(source, NAMES[1]), noise(0, 20, 30, limit=34))


def no_labels(source):
    labels_path(source, NAMES[1]).unlink()


def dangling_link(source):
    path = paths(source, NAMES[1])[1][0]
    path.unlink()
    path.symlink_to("nowhere")


def no_query(source):
    paths(source, NAMES[1])[0].unlink()


def torn_zip(source):
    (source / "leftImg8bit_trainvaltest.zip").write_bytes(b"PK half a download")


def no_sequences(source):
    (source / "leftImg8bit_sequence").rename(source / "elsewhere")


def no_frames(source):
    (source / "leftImg8bit").rename(source / "elsewhere")


def group_like_a_row(source):
    (source / "groups.json").write_text(json.dumps({"without_void": [NAMES[0]]}))


def bad_groups(source):
    (source / "groups.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (harm_query, r"aachen_000001_000019_leftImg8bit\.png cannot be decoded"),
        (harm_memory, r"aachen_000001_000017_leftImg8bit\.png is empty"),
        (harm_labels, r"aachen_000001_000019_gtFine_labelIds\.png cannot be decoded"),
        (colour_labels, r"aachen_000001_000019_gtFine_labelIds\.png have 3 dimensions"),
        (
            wrong_label_id,
            r"value 77 in .*aachen_000001_000019_gtFine_labelIds\.png at row 3, column 4",
        ),
        (wrong_train_id, r"value 33 in .*aachen_000001_000019_gtFine_labelTrainIds\.png"),
        (shrink_memory, r"000018_leftImg8bit\.png is 40x58 .* its query .* is 40x60"),
        (shrink_labels, r"aachen_000001_000019_gtFine_labelIds\.png is 20x30 "),
        (no_labels, r"aachen_000001_000019 has no labels: expected aachen"),
        (dangling_link, r"000001_000017_leftImg8bit\.png cannot be read: No such file"),
        (no_query, r"000001_000019 has labels but no frame: expected .*leftImg8bit/train/aachen/"),
        (torn_zip, r"leftImg8bit_trainvaltest\.zip cannot be read as a zip file"),
        (no_sequences, r"leftImg8bit_sequence/train is missing"),
        (no_frames, r"No frames found: expected .*leftImg8bit/train/CITY"),
        (bad_groups, r"groups\.json cannot be read"),
        (group_like_a_row, r"groups\.json has a group called 'without_void'"),
    ],
)
def test_bad_input_is_named_and_leaves_what_was_there(source, harm, message, capsys):
    prepare(source)
    harm(source)
    with pytest.raises(UserError, match=message):
        prepare(source)
    assert [path.name for path in (source.parent / "out").iterdir()] == ["clip_records"]
    assert len(open_clips(source.parent / "out", "train")) == 3

    out = source.parent / "fresh"
    status = cityscapes.main([f"--source={source}", f"--out={out}", "--splits=train"])
    assert status == 2
    assert not list(out.rglob("*"))
    assert "Traceback" not in capsys.readouterr().err


def test_a_split_that_is_not_there_is_named(source):
    with pytest.raises(UserError, match=r"has it a split 'val'.* --splits=train"):
        prepare(source, splits=["train", "val"])


def test_a_negative_memory_range_is_refused(source):
    with pytest.raises(UserError, match="-1: use 0 to 1000"):
        prepare(source, memory_range=-1)


def test_the_command_line_ends_with_a_summary(source):
    out = source.parent / "out"
    command = [sys.executable, "-m", "data_prep.cityscapes", f"--source={source}", f"--out={out}"]
    done = subprocess.run(
        [*command, "--splits=train", "--memory-range=1"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(f"Wrote to {out}: 3 clips, 6 frames")
    assert "\r" not in done.stderr  # a bar is for terminals
    assert open_clips(out, "train").info.memory_range == 1
