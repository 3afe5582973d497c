"""Somebody's own data: from a folder to the first training step."""

import contextlib
import json
import shutil
import textwrap

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from configs import default
from data_prep import folder
from tests.made import tiny_runs
from tests.made.picture_files import write_png
from tests.made.small_folder import (
    CLASSES,
    COLOURS,
    SIZE,
    clips_of,
    labels_of,
    prepare,
    shown_numbers,
    write_source,
)
from tests.made.small_videos import number_of, numbered, write_video
from tmanet_jax import settings
from tmanet_jax.data.classes import ClassSet, palette_png
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.inputs import open_split


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "mine")


def test_each_labelled_frame_becomes_a_clip(source):
    assert prepare(source) == 0
    for split in ("train", "val"):
        clips = clips_of(source, split)
        assert clips.info.classes == ClassSet(
            "mine", ("road", "car", "sky"), ((90, 90, 90), (200, 0, 0), (0, 0, 250))
        )
        assert [clips.clip_id(index) for index in range(2)] == ["drive_000005", "drive_000008"]
        assert [shown_numbers(clips, index) for index in range(2)] == [[3, 4, 5], [6, 7, 8]]
        np.testing.assert_array_equal(clips.read(1, ()).labels_HxW, labels_of(8))


def test_pictures_of_no_video_are_their_own_memory_however_long(source, capsys):
    for kind in ("frames", "labels"):
        shutil.rmtree(source / kind / "train")
    for name, number in (("a street", 3), ("b", 7)):
        write_png(source / f"frames/train/{name}.png", numbered(number))
        write_png(source / f"labels/train/{name}.png", labels_of(number))
    assert prepare(source) == 0
    clips = clips_of(source)
    assert clips.ids == ("a street", "b")
    clips.check_memory(4, 40)
    assert shown_numbers(clips, 0, 0) == [3] and shown_numbers(clips, 1, 4) == [7] * 5
    np.testing.assert_array_equal(clips.read(1, ()).labels_HxW, labels_of(7))
    assert shown_numbers(clips_of(source, "val"), 0) == [3, 4, 5]
    assert prepare(source, "--verify") == 0
    (source / "frames/train/b.png").unlink()
    assert prepare(source) == 2
    assert (
        "labels/train/b.png have no frame: expected frames/train/b.png" in capsys.readouterr().err
    )


def test_frames_before_the_first_are_stood_in_for(source, capsys):
    assert prepare(source, "--memory-range=4", "--splits=train") == 0
    assert shown_numbers(clips_of(source), 0, memory_range=4) == [3, 3, 3, 4, 5]
    assert "(2 times one stands in" in capsys.readouterr().out
    assert prepare(source, "--memory-range=4", "--missing=error") == 2
    assert "Clip drive_000005 has no frame 1 of train/drive, frame 2" in capsys.readouterr().err


def test_a_gap_is_filled_with_the_nearest_earlier_frame(source):
    (source / "frames/train/drive/000007.png").unlink()
    prepare(source, "--splits=train")
    assert shown_numbers(clips_of(source), 1) == [6, 6, 8]


def test_a_stride_takes_every_second_frame(source):
    prepare(source, "--splits=train", "--frame-stride=2")
    assert shown_numbers(clips_of(source), 1) == [4, 6, 8]


@pytest.mark.parametrize(
    "write",
    [
        lambda path, labels: path.write_bytes(palette_png(labels, ((1, 2, 3),) * 3)),
        lambda path, labels: write_png(path, COLOURS[labels]),
    ],
    ids=["palette", "colours"],
)
def test_labels_may_be_palette_or_colours(source, write):
    write(source / "labels/train/drive/000005.png", labels_of(1))
    prepare(source, "--splits=train")
    np.testing.assert_array_equal(clips_of(source).read(0, ()).labels_HxW, labels_of(1))


@pytest.mark.parametrize("ignored", ["ignored", "Ignored"])
def test_ignored_pixels_are_255_or_of_the_colour_named_ignored(source, ignored):
    (source / "classes.csv").write_text(CLASSES + f"{ignored},0,0,0\n")
    indices = labels_of(1)
    indices[:5] = 255
    write_png(source / "labels/train/drive/000005.png", indices)
    colours = COLOURS[labels_of(1)]
    colours[:5] = 0
    write_png(source / "labels/train/drive/000008.png", colours)
    prepare(source, "--splits=train")
    clips = clips_of(source)
    assert clips.info.classes.num_classes == 3
    for index in range(2):
        np.testing.assert_array_equal(clips.read(index, ()).labels_HxW, indices)


@pytest.mark.parametrize("kind", ["jpg", "bmp", "TIF", "tiff", "webp"])
def test_frames_may_be_of_other_kinds_and_names_may_hold_text(source, kind):
    for path in (source / "frames/train/drive").glob("*.png"):
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        frame = numbered(int(path.stem))
        cv2.imwrite(str(path.with_name(f"cam-{path.stem}.{kind}")), frame[..., ::-1], quality)
        path.unlink()
    prepare(source, "--splits=train")
    assert shown_numbers(clips_of(source), 1) == [6, 7, 8]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [3, 4])
def test_a_labelled_frame_that_exif_turns_is_noted(source, kind, orientation, capsys):
    path = source / "frames/train/drive/000008.png"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path.unlink()
    Image.fromarray(numbered(8)[::-1]).save(path.with_suffix(f".{kind}"), exif=exif)
    assert prepare(source, "--splits=train") == 0
    report = capsys.readouterr().out
    assert f"EXIF turns or mirrors 1 labelled frames of train, such as {source}/fr" in report
    query = clips_of(source).read(1, ()).frames_SxHxWx3[0]
    assert number_of(query[:, ::-1] if orientation == 3 else query) == 8
    assert prepare(source, "--splits=train,val") == 0
    assert "EXIF turns or mirrors 1 labelled frames of val" not in capsys.readouterr().out


def test_endings_may_be_in_capitals(source):
    for path in source.rglob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    prepare(source, "--splits=train")
    assert shown_numbers(clips_of(source), 1) == [6, 7, 8]


@pytest.mark.parametrize("name", ["drive.mp4", "drive.MKV"])
def test_a_video_file_may_stand_for_a_folder_of_frames(source, name, monkeypatch):
    shutil.rmtree(source / "frames/train/drive")
    write_video(source / "frames/train" / name, map(numbered, range(10)), "libx264")
    write_png(source / "labels/train/drive/000001.png", labels_of(1))
    assert prepare(source, "--splits=train") == 0
    shown = [shown_numbers(clips_of(source), index) for index in range(3)]
    assert shown == [[0, 0, 1], [3, 4, 5], [6, 7, 8]]
    written = {path.name for path in (source.parent / "out/frames/train").glob("*/*.png")}
    assert written == {f"{number:06d}.png" for number in (0, 1, 3, 4, 5, 6, 7, 8)}
    monkeypatch.setattr(folder, "extract_frames", None)  # nothing is decoded again
    assert prepare(source, "--verify") == 0


@pytest.mark.parametrize("form", ["{}", "cam_{:.6f}", "{:.2f}"])
def test_frames_named_by_times_count_in_their_order(source, form, capsys):
    times = dict(zip(range(3, 9), (0, 33, 66, 100, 134, 170), strict=True))
    for path in list(source.rglob("train/drive/*.png")):
        time = 1638316800 * 1000 + times[int(path.stem)]
        path.rename(path.with_name(f"{form.format(time if form == '{}' else time / 1000)}.png"))
    assert prepare(source, "--splits=train") == 0
    assert [shown_numbers(clips_of(source), index) for index in range(2)] == [[3, 4, 5], [6, 7, 8]]
    report = capsys.readouterr().out
    assert "(frames 0..5, labels 2..5, in the order of the times in their names)" in report
    assert "(0 times one stands in" in report


def test_dates_and_times_with_underscores_are_times(source, capsys):
    names = ["59_933", "59_966", "00_000", "00_033", "00_066", "00_100"]  # over the end of a minute
    for path in list(source.rglob("train/drive/*.png")):
        name = names[int(path.stem) - 3]
        path.rename(path.with_name(f"20211201_12{'00' if name[0] == '5' else '01'}{name}.png"))
    assert prepare(source, "--splits=train") == 0
    assert [shown_numbers(clips_of(source), index) for index in range(2)] == [[3, 4, 5], [6, 7, 8]]
    assert "labels 2..5, in the order of the times in their names" in capsys.readouterr().out


def test_names_of_splits_may_have_spaces_between_them(source):
    assert prepare(source, "--splits=val, train") == 0
    assert len(clips_of(source, "train")) == len(clips_of(source, "val")) == 2


def test_zip_files_are_read_in_place(source):
    prepare(source)
    expected = clips_of(source).read(1, (2, 1))
    zipped = source.parent / "zipped"
    zipped.mkdir()
    shutil.make_archive(str(zipped / "mine"), "zip", source)
    assert folder.main([f"--source={zipped}", f"--out={zipped / 'out'}", "--name=mine"]) == 0
    clips = open_clips(zipped / "out", "train")
    assert clips.info.classes == clips_of(source).info.classes
    np.testing.assert_array_equal(clips.read(1, (2, 1)).frames_SxHxWx3, expected.frames_SxHxWx3)


def test_masks_of_0_and_255_are_told_and_so_are_labels_that_are_ignored(source, capsys):
    for number in (5, 8):
        mask = labels_of(number) // 2 * 255
        write_png(source / f"labels/train/drive/{number:06d}.png", mask)
        write_png(source / f"labels/val/drive/{number:06d}.png", np.full(SIZE, 255, np.uint8))
    assert prepare(source) == 0
    report = capsys.readouterr().out
    assert "Warning: the labels of train hold nothing but 0 (road) and 255 (ignored, 3" in report
    assert "Warning: every pixel of the labels of val is ignored" in report


def test_the_example_of_the_docstring_runs_to_the_first_training_step(tmp_path):
    assert folder.__doc__ is not None
    begin = folder.__doc__.index("    import cv2")
    example = textwrap.dedent(folder.__doc__[begin : folder.__doc__.index("A run needs")]).strip()
    assert len(example.splitlines()) == 10
    with contextlib.chdir(tmp_path):
        exec(example, {})
    out = tmp_path / "data" / "mine"
    assert folder.main([f"--source={tmp_path / 'mine'}", f"--out={out}"]) == 0
    assert open_clips(out, "train").info.classes.names == ("road", "car")

    done = tiny_runs.called(
        out,
        "--config.model.num_classes=2",
        "--config.num_steps=1",
        "--config.batch_size=1",
        "--config.eval.mode=whole",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr


def test_a_network_of_another_number_of_classes_is_told_the_setting(source):
    prepare(source)
    config = default.get_config()
    config.data.dir = str(source.parent / "out")
    with pytest.raises(UserError, match=r"have 3 classes, .* is 19: set it to 3"):
        open_split(settings.from_config(config), "train", memory_range=2)


def test_missing_records_name_the_preparation_of_their_data_set(source):
    prepare(source, "--splits=train")
    with pytest.raises(UserError, match=r"data_prep\.folder --source=DIR .* --memory-range=6"):
        clips_of(source).check_memory(6, 6)
    with pytest.raises(UserError, match=r"data_prep\.folder --source=DIR .* --splits=\.\.\.,test"):
        clips_of(source, "test")
    with pytest.raises(UserError, match=r"or data_prep\.camvid, or data_prep\.folder for"):
        open_clips(source, "train")


def test_values_say_what_else_stands_for_a_class(source):
    (source / "classes.csv").write_text(
        "name,red,green,blue,values\nroad,90,90,90,7;8;#0a0a0a\ncar,200,0,0,26;lorry\n"
        "sky,0,0,250,23\nignored,1,2,3,0;5\n"
    )
    values = np.array([7, 8, 26, 23, 0, 5, 255], np.uint8)
    train_ids = np.array([0, 0, 1, 2, 255, 255, 255], np.uint8)
    picked = np.random.default_rng(0).integers(0, 7, SIZE)
    write_png(source / "labels/train/drive/000005.png", values[picked])
    colours = np.array([(90, 90, 90), (10, 10, 10), (200, 0, 0), (1, 2, 3)], np.uint8)
    write_png(source / "labels/train/drive/000008.png", colours[picked % 4])
    (source / "labels/train/drive/000006.json").write_text(json.dumps({
        "shapes": [{"label": "lorry", "points": [[0, 0], [10, 5]], "shape_type": "rectangle"}],
        "imageHeight": SIZE[0], "imageWidth": SIZE[1],
    }))  # fmt: skip
    assert prepare(source, "--splits=train") == 0
    clips = clips_of(source)
    np.testing.assert_array_equal(clips.read(0, ()).labels_HxW, train_ids[picked])
    drawn = np.full(SIZE, 255)
    drawn[:5, :10] = 1
    np.testing.assert_array_equal(clips.read(1, ()).labels_HxW, drawn)
    of_colours = np.array([0, 0, 1, 255])[picked % 4]
    np.testing.assert_array_equal(clips.read(2, ()).labels_HxW, of_colours)


def test_polygons_of_a_video_stand_in_one_file(source):
    shutil.rmtree(source / "labels/train/drive")
    (source / "labels/train/drive.xml").write_text(
        f'<annotations><image id="0" name="x/000008.png" width="{SIZE[1]}" height="{SIZE[0]}">'
        '<box label="sky" xtl="0" ytl="0" xbr="4" ybr="3"/></image></annotations>'
    )
    assert prepare(source, "--splits=train") == 0
    clips = clips_of(source)
    assert [clips.clip_id(index) for index in range(len(clips))] == ["drive_000008"]
    assert (clips.read(0, ()).labels_HxW == 2).sum() == 12
