"""Palettes that contradict their indices are gone by or refused; decoration is not looked at."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.camvid import CamvidLabels, find_label_format
from data_prep.cityscapes import CityscapesLabels
from data_prep.labels import Classes, ClassLabels, LabelFile, LabelPicture
from data_prep.source import UnpackedFile
from tests.made.picture_files import write_png
from tests.made.small_camvid import label_colours, label_indices
from tmanet_jax.data.classes import (
    CITYSCAPES,
    CITYSCAPES_LABEL_PALETTE_35x3,
    ClassSet,
    label_ids_to_train_ids,
    palette_png,
    voc_colour,
)
from tmanet_jax.errors import UserError

ROAD, CAR, SKY = (90, 90, 90), (200, 0, 0), (0, 0, 250)
CLASSES = Classes(ClassSet("mine", ("road", "car", "sky"), (ROAD, CAR, SKY)), (9, 9, 9))
VOC = tuple(voc_colour(number) for number in range(256))
GREYS = tuple((value, value, value) for value in range(256))


def picked(*values):
    return np.random.default_rng(0).choice(np.array(values, np.uint8), (13, 21))


def optimised(labels_HxW, palette=GREYS):
    """A palette PNG of the values or colours that occur, in the reverse order."""
    used = np.unique(labels_HxW)[::-1]
    indices_HxW = np.zeros_like(labels_HxW)
    for index, value in enumerate(used):
        indices_HxW[labels_HxW == value] = index
    return palette_png(indices_HxW, tuple(palette[value] for value in used))


def saved(picture):
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()


def grey_of_4_bits(indices_HxW):
    """Such a PNG, which Pillow writes from version 13 on alone."""
    height, width = indices_HxW.shape
    even_HxW = np.pad(indices_HxW, ((0, 0), (0, width % 2)))
    packed_HxN = even_HxW[:, ::2] << 4 | even_HxW[:, 1::2]
    unfiltered = np.pad(packed_HxN, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">2I5B", width, height, 4, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered)), (b"IEND", b"")):
        checksum = zlib.crc32(kind + data)
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    return content


def read(path, content, kind):
    path = path / f"aachen_000000_000019_gtFine_{kind}.png"
    path.write_bytes(content)
    file = UnpackedFile(path)
    labels: dict[str, LabelFile] = {
        "folder": ClassLabels(file, CLASSES),
        "labelIds": CityscapesLabels(file, False),
        "labelTrainIds": CityscapesLabels(file, True),
        "indices12": CamvidLabels(file, "indices12"),
    }
    return labels[kind].train_ids(LabelPicture.read(file))


@pytest.mark.parametrize("write", [optimised, lambda v: saved(Image.fromarray(v).quantize())])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("labelIds", (7, 8, 11, 26)),
        ("labelIds", (0, 17)),
        ("labelIds", (23,)),
        ("labelTrainIds", (0, 1, 2, 255)),
        ("folder", (1, 2, 255)),
        ("indices12", (4, 6)),
    ],
)
def test_values_that_an_optimiser_put_into_a_palette_are_read(tmp_path, kind, values, write):
    labels_HxW = picked(*values)
    expected = label_ids_to_train_ids(labels_HxW) if kind == "labelIds" else labels_HxW
    np.testing.assert_array_equal(read(tmp_path, write(labels_HxW), kind), expected)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("folder", optimised(picked(0, 2), CLASSES.class_set.palette_Cx3), r"\(0, 0, 250\), .* 2"),
        ("folder", optimised(picked(1), CLASSES.class_set.palette_Cx3), r"\(200, 0, 0\), .* for 1"),
        ("folder", palette_png(picked(0, 1), (ROAD, (9, 9, 9))), r"\(9, 9, 9\), .* for 255"),
        ("folder", palette_png(picked(0, 1), ((0, 0, 0), ROAD, CAR)), "which stands for 0"),
        (
            "labelIds",
            optimised(picked(7, 26), CITYSCAPES_LABEL_PALETTE_35x3),
            " for 26",
        ),
        ("labelTrainIds", optimised(picked(0, 9), CITYSCAPES.palette_Cx3), "which stands for 9"),
        ("labelTrainIds", saved(Image.fromarray(picked(0, 1) > 0)), r"255, 255\), .* for 255"),
        ("labelIds", grey_of_4_bits(picked(0, 1)), r"17, 17\), .* for 17"),
    ],
)
def test_colours_that_contradict_valid_indices_are_named(tmp_path, kind, content, message):
    with pytest.raises(UserError, match=rf"{kind}\.png: index .*{message}.* RGB or as the grey"):
        read(tmp_path, content, kind)


def test_colours_over_indices_of_no_class_are_gone_by(tmp_path):
    palette = (*CLASSES.class_set.palette_Cx3, (9, 9, 9))
    content = palette_png(picked(0, 1, 2, 3), (palette[3], *palette[:3]))
    expected = (picked(0, 1, 2, 3).astype(int) - 1) % 256
    np.testing.assert_array_equal(read(tmp_path, content, "folder"), expected)


@pytest.mark.parametrize("kind", ["folder", "labelIds", "labelTrainIds", "indices12"])
@pytest.mark.parametrize(
    "palette",
    [VOC, VOC[:21], GREYS, GREYS[::-1], ((1, 2, 3),) * 256],
    ids=["VOC", "short VOC", "grey", "reversed grey", "one colour"],
)
@pytest.mark.parametrize("used", [(0,), (1,), (0, 1), (0, 1, 2), (2, 255)])
def test_decoration_over_right_indices_is_not_looked_at(tmp_path, kind, palette, used):
    ignored = {"labelIds": 0, "indices12": 3}.get(kind, 255)
    indices_HxW = picked(*(ignored if value == 255 else value for value in used))
    expected = label_ids_to_train_ids(indices_HxW) if kind == "labelIds" else indices_HxW
    content = palette_png(indices_HxW, palette)
    np.testing.assert_array_equal(read(tmp_path, content, kind), expected)


def test_colours_that_occur_twice_are_decoration_too(tmp_path):
    label_ids = picked(*range(34))
    content = palette_png(label_ids, CITYSCAPES.palette_Cx3 * 2)
    expected = label_ids_to_train_ids(label_ids)
    np.testing.assert_array_equal(read(tmp_path, content, "labelIds"), expected)


def test_a_mask_of_two_classes_is_read_by_its_index(tmp_path):
    two = Classes(ClassSet("mine", ("road", "car"), (ROAD, CAR)), None)
    path = tmp_path / "labels.png"
    for content in (
        saved(Image.fromarray(picked(0, 1) > 0)),
        palette_png(picked(0, 1), ((0, 0, 0), (255, 255, 255))),
    ):
        path.write_bytes(content)
        file = UnpackedFile(path)
        labels_HxW = ClassLabels(file, two).train_ids(LabelPicture.read(file))
        np.testing.assert_array_equal(labels_HxW, picked(0, 1))


def test_records_that_are_begun_know_their_labels_by_these_words():
    classes = Classes(ClassSet("mine", ("road",), (ROAD,)), (9, 9, 9), {7: 0, "street": 0})
    assert ClassLabels(UnpackedFile(Path("none.png")), classes).fingerprint == (
        "none.png Classes(class_set=ClassSet(name='mine', names=('road',), "
        "palette_Cx3=((90, 90, 90),)), ignored_colour=(9, 9, 9), sources={7: 0, 'street': 0})"
    )


def test_quantised_colours_of_camvid_are_read_as_colours(tmp_path):
    files = []
    for number in range(5):
        colours = Image.fromarray(label_colours(number)).quantize()
        path = tmp_path / f"0016E5_{number:05d}_L.png"
        colours.save(path)
        files.append(UnpackedFile(path))
    assert find_label_format(files) == "colours"
    labels = CamvidLabels(files[3], "colours").train_ids(LabelPicture.read(files[3]))
    np.testing.assert_array_equal(labels, label_indices(3))


def test_indices_of_neither_form_of_camvid_are_named_with_the_third(tmp_path):
    path = tmp_path / "0016E5_00000_L.png"
    write_png(path, np.full((6, 8), 17, np.uint8))
    with pytest.raises(UserError, match=r"holds the index 17, .* --label-format=colours"):
        find_label_format([UnpackedFile(path)])


def test_a_damaged_palette_is_no_palette(tmp_path):
    content = bytearray(optimised(picked(7, 11)))
    content[content.index(b"PLTE") + 5] ^= 1
    with pytest.raises(UserError, match="the file is torn"):
        read(tmp_path, bytes(content), "labelIds")
