import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep import cityscapes
from data_prep.pictures import read_indices
from data_prep.preparation import Options
from data_prep.source_tree import UnpackedFile
from tmanet_jax.data.classes import CITYSCAPES, label_ids_to_train_ids, palette_png
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError

SIZE = (40, 60)
NAMES = ("aachen_000000_000019", "aachen_000001_000019", "zurich_000000_000019")


def noise(seed, *shape, limit=256):
    return np.random.default_rng(seed).integers(0, limit, shape, np.uint8)


def write_png(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = picture[..., ::-1] if picture.ndim == 3 else picture
    assert cv2.imwrite(str(path), bgr)


def paths(source, name, split="train"):
    """The query, the frames at offsets 2 and 1 before it, and the labels without their kind."""
    city, snippet, number = name.split("_")
    frames = [f"{city}_{snippet}_{int(number) - offset:06d}_leftImg8bit.png" for offset in (2, 1)]
    return (
        source / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png",
        [source / "leftImg8bit_sequence" / split / city / frame for frame in frames],
        source / "gtFine" / split / city / f"{name}_gtFine",
    )


def labels_path(source, name, kind="labelIds", split="train"):
    stem = paths(source, name, split)[2]
    return stem.with_name(f"{stem.name}_{kind}.png")


def write_clip(source, name, split="train"):
    """Writes a clip's files; returns its frames and label ids."""
    query, memory, _ = paths(source, name, split)
    seed = NAMES.index(name)
    frames = noise(seed, 3, *SIZE, 3)
    for path, frame in zip([*memory, query], frames, strict=True):
        write_png(path, frame)
    label_ids = noise(seed, *SIZE, limit=34)
    write_png(labels_path(source, name, split=split), label_ids)
    return frames, label_ids


@pytest.fixture
def source(tmp_path):
    for name in NAMES:
        write_clip(tmp_path / "source", name)
    return tmp_path / "source"


def prepare(source, splits=("train",), every_frame=False, **options):
    out = source.parent / "out"
    return cityscapes.prepare(
        source, out, Options(**options), splits=splits, every_frame=every_frame
    )


def prepared(source, split="train", **options):
    prepare(source, [split], **options)
    return open_clips(source.parent / "out", split)


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
    written = sum(
        path.stat().st_size for path in (source.parent / "out").rglob("*.*") if path.is_file()
    )
    assert (summary.clips, summary.frames, summary.stand_ins) == (3, 9, 0)
    assert summary.num_bytes >= written
    assert str(summary).startswith(
        "3 clips, 9 frames (0 of them standing in for missing ones, in 0 "
    )


def test_files_of_train_ids_are_preferred(source):
    train_ids = noise(3, *SIZE, limit=19)
    train_ids[0] = 255
    write_png(labels_path(source, NAMES[0], "labelTrainIds"), train_ids)
    np.testing.assert_array_equal(prepared(source).read(0, ()).labels_HxW, train_ids)


def test_the_private_copy_holds_train_ids_in_spite_of_its_name(source):
    train_ids = noise(3, *SIZE, limit=19)
    for name in NAMES:
        write_png(labels_path(source, name), train_ids)
    (source / "gtFine").rename(source / "gtFine_19")
    np.testing.assert_array_equal(prepared(source).read(0, ()).labels_HxW, train_ids)


def test_a_palette_png_is_read_by_index(source):
    label_ids = noise(3, *SIZE, limit=34)
    path = labels_path(source, NAMES[0])
    path.write_bytes(palette_png(label_ids, CITYSCAPES.palette_Cx3 * 2))
    np.testing.assert_array_equal(read_indices(UnpackedFile(path)), label_ids)


@pytest.mark.parametrize("is_palette", [True, False])
@pytest.mark.parametrize("kept", [0, 8, 16, 20, 25, 27, 60])
def test_torn_labels_are_named_wherever_they_end(tmp_path, kept, is_palette):
    path = tmp_path / "labels.png"
    if is_palette:
        path.write_bytes(palette_png(noise(3, *SIZE, limit=34), CITYSCAPES.palette_Cx3 * 2))
    else:
        write_png(path, noise(3, *SIZE, limit=34))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"labels\.png (is empty|cannot be decoded)"):
        read_indices(UnpackedFile(path))


def test_the_test_split_has_no_labels(source):
    write_clip(source, NAMES[0], "test")
    clips = prepared(source, "test")
    assert not clips.labelled
    assert np.all(clips.read(0, ()).labels_HxW == 255)


def test_clips_belong_to_groups(source):
    groups = {"clean": [NAMES[2]], "degraded": [NAMES[0]]}
    (source / "groups.json").write_text(json.dumps(groups))
    clips = prepared(source)
    assert [clips.group(index) for index in range(3)] == ["degraded", "", "clean"]


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


def no_sequences(source):
    (source / "leftImg8bit_sequence").rename(source / "elsewhere")


def no_frames(source):
    (source / "leftImg8bit").rename(source / "elsewhere")


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
        (no_sequences, r"leftImg8bit_sequence/train is missing"),
        (no_frames, r"No frames found: expected .*leftImg8bit/train/CITY"),
        (bad_groups, r"groups\.json cannot be read"),
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
    with pytest.raises(UserError, match="has it a split 'val'"):
        prepare(source, splits=["train", "val"])


def test_a_negative_memory_range_is_refused(source):
    with pytest.raises(UserError, match="-1; it must be 0 or more"):
        prepare(source, memory_range=-1)


def test_the_command_line_ends_with_a_summary(source):
    out = source.parent / "out"
    command = [sys.executable, "-m", "data_prep.cityscapes", f"--source={source}", f"--out={out}"]
    done = subprocess.run(
        [*command, "--splits=train", "--memory-range=1"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(f"Wrote to {out}: 3 clips, 6 frames")
    assert "3/3" in done.stderr
    assert open_clips(out, "train").info.memory_range == 1
