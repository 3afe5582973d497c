"""What Cityscapes' label files hold, and the groups that its clips belong to."""

import json

import numpy as np
import pytest

from data_prep import cityscapes
from data_prep.labels import LabelPicture
from data_prep.source import UnpackedFile
from tests.made.small_cityscapes import (
    NAMES,
    SIZE,
    labels_path,
    noise,
    write_clip,
    write_png,
    write_tree,
)
from tests.made.small_cityscapes_records import prepare, prepared
from tmanet_jax.data.classes import CITYSCAPES, label_ids_to_train_ids, palette_png
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "source")


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
    np.testing.assert_array_equal(LabelPicture.read(UnpackedFile(path)).indices(), label_ids)


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
        LabelPicture.read(UnpackedFile(path)).indices()


def test_label_ids_for_some_and_train_ids_for_other_clips_are_told_apart(source):
    train_ids = noise(3, *SIZE, limit=19)
    labels_path(source, NAMES[0]).unlink()
    write_png(labels_path(source, NAMES[0], "labelTrainIds"), train_ids)
    clips = prepared(source)
    np.testing.assert_array_equal(clips.read(0, ()).labels_HxW, train_ids)
    _, label_ids = write_clip(source.parent / "again", NAMES[1])
    np.testing.assert_array_equal(clips.read(1, ()).labels_HxW, label_ids_to_train_ids(label_ids))


def both_folders(source):
    path = labels_path(source, NAMES[0])
    write_png(source / "gtFine_19" / path.relative_to(source / "gtFine"), noise(0, *SIZE, limit=19))


def train_ids_called_label_ids(source):
    values = noise(0, *SIZE, limit=19)
    values[5, 5] = 255
    write_png(labels_path(source, NAMES[1]), values)


def label_ids_in_the_private_folder(source):
    (source / "gtFine").rename(source / "gtFine_19")


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (both_folders, "labels in gtFine and in gtFine_19"),
        (train_ids_called_label_ids, r"000001_.*labelIds\.png is called labelIds but holds .* 255"),
        (label_ids_in_the_private_folder, r"holds the value \d+, which is a label id"),
    ],
)
def test_a_mixture_of_label_ids_and_train_ids_is_refused(source, mix, message, on_error):
    mix(source)
    with pytest.raises(UserError, match=message):
        prepare(source, on_error=on_error)
    assert not list((source.parent / "out").glob("clip_records"))


def test_of_two_folders_of_labels_one_can_be_chosen(source):
    both_folders(source)
    for name in NAMES:
        path = labels_path(source, name).relative_to(source / "gtFine")
        write_png(source / "gtFine_19" / path, noise(0, *SIZE, limit=19))
    for chosen, expected in (
        ("gtFine", label_ids_to_train_ids(write_clip(source.parent / "again", NAMES[0])[1])),
        ("gtFine_19", noise(0, *SIZE, limit=19)),
    ):
        out = source.parent / chosen
        arguments = [f"--source={source}", "--splits=train", f"--labels={chosen}"]
        assert cityscapes.main([*arguments, f"--out={out}"]) == 0
        np.testing.assert_array_equal(open_clips(out, "train").read(0, ()).labels_HxW, expected)


def test_the_test_split_has_no_labels(source):
    write_clip(source, NAMES[0], "test")
    clips = prepared(source, "test")
    assert not clips.labelled
    assert np.all(clips.read(0, ()).labels_HxW == 255)


def test_groups_of_clips_that_are_not_there_are_told(source, capsys):
    (source / "groups.json").write_text(json.dumps({"clean": [NAMES[2], "aachen_000009_000019"]}))
    out = source.parent / "out"
    assert cityscapes.main([f"--source={source}", f"--out={out}", "--splits=train"]) == 0
    told = capsys.readouterr()
    assert "groups.json names aachen_000009_000019: no such clip" in told.out + told.err


def test_clips_belong_to_groups(source):
    groups = {"clean": [NAMES[2]], "degraded": [NAMES[0]]}
    (source / "groups.json").write_text(json.dumps(groups))
    clips = prepared(source)
    assert [clips.group(index) for index in range(3)] == ["degraded", "", "clean"]
