"""CamVid's names, splits, label forms, and where its files lie."""

import zipfile

import numpy as np
import pytest

from data_prep.camvid import CamvidLabels, find_label_format
from data_prep.camvid_source import SEQ05, SEQ16, find_source, parse_name, split_names
from data_prep.labels import LabelPicture
from data_prep.source import SourceTree, UnpackedFile
from tests.made.picture_files import write_png
from tests.made.small_camvid import label_colours, label_indices
from tmanet_jax.data.classes import CAMVID, palette_png
from tmanet_jax.errors import UserError

SIZE = (40, 60)
UNUSED = "Seq05VD_f00000"
"""The one labelled still that is in no split: no frames come before it."""


def test_the_published_splits_are_disjoint_and_have_their_numbers():
    names = {split: split_names(split) for split in ("train", "val", "test")}
    assert {split: len(of_split) for split, of_split in names.items()} == {
        "train": 367,
        "val": 101,
        "test": 232,
    }
    assert len({name for of_split in names.values() for name in of_split} | {UNUSED}) == 701


def test_the_published_oddities():
    train, test = split_names("train"), split_names("test")
    assert "0016E5_00901" in train
    assert "0016E5_00900" not in train
    assert UNUSED not in test
    assert (train[0], train[-1]) == ("0001TP_006690", "0016E5_08640")
    assert split_names("val")[:2] == ["0016E5_07959", "0016E5_07961"]
    assert (test[0], test[-1]) == ("0001TP_008550", "Seq05VD_f05100")


def test_every_name_has_its_video_and_number():
    assert parse_name("Seq05VD_f00030") == (SEQ05, 30)
    assert parse_name("0016E5_07959") == (SEQ16, 7959)
    for name in split_names("train"):
        video, number = parse_name(name)
        assert video.frame_name(number) == name


@pytest.mark.parametrize("name", ["Seq05VD_f-0004", "Seq05VD_f0030", "0016E5_007959", "x"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="is no frame of CamVid"):
        parse_name(name)


def test_no_frame_has_a_negative_number():
    with pytest.raises(ValueError, match="-4"):
        SEQ05.frame_name(-4)


def test_a_split_that_is_not_published_is_refused():
    with pytest.raises(UserError, match="no split 'dev': expected one of train, val, test"):
        split_names("dev")


def indices11(number):
    return label_indices(number, sky=0, road=3, tree=5)


def sky_first(labels):
    palette = (*CAMVID.palette_Cx3[1:], CAMVID.palette_Cx3[0])
    return palette_png(labels, palette)


def read(file, form):
    return CamvidLabels(file, form).train_ids(LabelPicture.read(file))


def write_labels(directory, make, count=5):
    paths = []
    for number in range(count):
        path = directory / f"0016E5_{number:05d}_L.png"
        made = make(number)
        if isinstance(made, bytes):
            directory.mkdir(exist_ok=True)
            path.write_bytes(made)
        else:
            write_png(path, made)
        paths.append(UnpackedFile(path))
    return paths


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (label_colours, "colours"),
        (label_indices, "indices12"),
        (indices11, "indices11"),
        (lambda number: palette_png(label_indices(number), CAMVID.palette_Cx3), "indices12"),
        (lambda number: sky_first(indices11(number)), "indices11"),
        (lambda number: sky_first(np.full(SIZE, 7, np.uint8)), "indices11"),
    ],
    ids=["colours", "12", "11", "12 with palette", "11 with palette", "a palette without road"],
)
def test_the_form_of_labels_is_found(tmp_path, make, form):
    assert find_label_format(write_labels(tmp_path, make)) == form


@pytest.mark.parametrize(
    ("make", "form"),
    [(label_colours, "colours"), (label_indices, "indices12"), (indices11, "indices11")],
)
def test_all_forms_read_as_the_same_classes(tmp_path, make, form):
    (file,) = write_labels(tmp_path, make, count=1)
    np.testing.assert_array_equal(read(file, form), label_indices(0))


def test_void_of_eleven_classes_becomes_class_0(tmp_path):
    (file,) = write_labels(tmp_path, lambda n: np.array([[0, 10, 11, 255]], np.uint8), count=1)
    np.testing.assert_array_equal(read(file, "indices11"), [[1, 11, 0, 0]])


def test_labels_that_can_be_read_in_two_ways_are_refused(tmp_path):
    files = write_labels(tmp_path, lambda number: np.full(SIZE, 7, np.uint8))
    with pytest.raises(UserError, match="--label-format=indices12 or --label-format=indices11"):
        find_label_format(files)


def test_colours_among_indices_are_named(tmp_path):
    files = write_labels(tmp_path, lambda n: label_colours(n) if n == 2 else label_indices(n))
    with pytest.raises(UserError, match=r"colours in .*00002_L\.png and indices in .*_L\.png"):
        find_label_format(files)


def test_a_mixture_of_palettes_is_named(tmp_path):
    files = write_labels(
        tmp_path,
        lambda n: sky_first(indices11(n)) if n else palette_png(indices11(n), CAMVID.palette_Cx3),
    )
    with pytest.raises(UserError, match=r"palettes of .*\(11 classes\) and .*\(12\) differ"):
        find_label_format(files)


@pytest.mark.parametrize(
    ("picture", "form", "message"),
    [
        (np.array([[0, 12]], np.uint8), "indices11", "value 12 in .*_L.png at row 0, column 1"),
        (np.array([[0, 12]], np.uint8), "indices12", "value 12 in .*_L.png at row 0, column 1"),
        (np.full((4, 4, 3), 7, np.uint8), "colours", r"colour \(RGB\) \(7, 7, 7\) in .*_L.png"),
    ],
)
def test_values_of_no_class_are_named(tmp_path, picture, form, message):
    (file,) = write_labels(tmp_path, lambda number: picture, count=1)
    with pytest.raises(UserError, match=message):
        read(file, form)


def test_a_file_that_is_no_png_is_named(tmp_path):
    files = write_labels(tmp_path, lambda number: b"no png")
    with pytest.raises(UserError, match=r"_L\.png cannot be decoded as a PNG"):
        find_label_format(files)


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


STILL = "701_StillsRaw_full/Seq05VD_f00030.png"
LABEL = "LabeledApproved_full/Seq05VD_f00030_L.png"


def find(root):
    return find_source(SourceTree(root), ignored=root / "out/frames")


def test_files_are_known_by_their_names_wherever_they_lie(tmp_path):
    write(tmp_path, "deep/down/0005vd.mxf", "a/Seq05VD_f00030.PNG", "b/Seq05VD_f00030_L.png")
    found = find(tmp_path)
    assert found.videos == {SEQ05: tmp_path / "deep/down/0005vd.mxf"}
    assert str(found.stills["Seq05VD_f00030"]) == str(tmp_path / "a/Seq05VD_f00030.PNG")
    assert str(found.labels["Seq05VD_f00030"]) == str(tmp_path / "b/Seq05VD_f00030_L.png")


@pytest.mark.parametrize("folder", ["images_sequence", "image_sequence"])
def test_both_names_of_the_folder_of_extracted_frames_are_known(tmp_path, folder):
    write(tmp_path, STILL, LABEL, f"{folder}/Seq05VD_f00030.png", f"{folder}/Seq05VD_f-0001.png")
    found = find(tmp_path)
    assert set(found.frames) == {"Seq05VD_f00030"}
    assert str(found.stills["Seq05VD_f00030"]) == str(tmp_path / STILL)


@pytest.mark.parametrize("folder", ["labels", "trainannot"])
def test_labels_of_the_stills_name_are_known_by_their_folder(tmp_path, folder):
    write(tmp_path, "images/Seq05VD_f00030.png", f"{folder}/Seq05VD_f00030.png")
    assert find(tmp_path).labels["Seq05VD_f00030"].read_bytes().startswith(folder.encode())


def test_what_an_earlier_preparation_wrote_below_the_source_does_not_count(tmp_path):
    write(tmp_path, STILL, LABEL, "out/frames/Seq05VD_f00030.png")
    assert len(find(tmp_path).stills) == 1


def test_links_back_to_a_folder_above_are_not_followed(tmp_path):
    write(tmp_path, STILL, LABEL)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to("..")
    assert str(find(tmp_path).stills["Seq05VD_f00030"]) == str(tmp_path / STILL)


def test_the_published_folder_is_preferred_and_other_doubles_are_refused(tmp_path):
    write(tmp_path, STILL, LABEL, "copy/Seq05VD_f00030.png")
    assert str(find(tmp_path).stills["Seq05VD_f00030"]) == str(tmp_path / STILL)
    write(tmp_path, "x/Seq05VD_f00060.png", "y/Seq05VD_f00060.png")
    with pytest.raises(UserError, match=r"Seq05VD_f00060 is both .*x/.* and .*y/"):
        find(tmp_path)


def test_zip_files_are_read_in_place_but_for_videos(tmp_path):
    with zipfile.ZipFile(tmp_path / "stills.zip", "w") as archive:
        archive.writestr(STILL, b"still")
        archive.writestr(LABEL, b"label")
    assert find(tmp_path).stills["Seq05VD_f00030"].read_bytes() == b"still"
    with zipfile.ZipFile(tmp_path / "videos.zip", "w") as archive:
        archive.writestr("0005VD.MXF", b"video")
    with pytest.raises(UserError, match=r"0005VD\.MXF lies in a zip file: unpack it"):
        find(tmp_path)


@pytest.mark.parametrize(("there", "lacks"), [(LABEL, "still"), (STILL, "label")])
def test_a_directory_without_stills_or_labels_is_refused(tmp_path, there, lacks):
    write(tmp_path, there)
    with pytest.raises(UserError, match=f"No {lacks} of CamVid lies below .*: expected files such"):
        find(tmp_path)
