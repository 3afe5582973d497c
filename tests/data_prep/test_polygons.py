"""Polygons as LabelMe, CVAT and COCO files hold them, against pixels that are counted by hand."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep.polygons import DrawnLabels, drawn_frame, drawn_labels
from data_prep.source import UnpackedFile
from tmanet_jax.errors import UserError

NAMES = {"road": 0, "car": 1, "lorry": 1, "ignored": 255}
HEIGHT, WIDTH = 20, 30


def picture(labels: DrawnLabels) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(labels.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found


def expected(*boxes: tuple[int, int, int, int, int], background: int = 255) -> np.ndarray:
    """Boxes of (left, top, right, bottom, train id), one over the other."""
    labels_HxW = np.full((HEIGHT, WIDTH), background, np.uint8)
    for left, top, right, bottom, train_id in boxes:
        labels_HxW[top:bottom, left:right] = train_id
    return labels_HxW


def labelme(*shapes: dict[str, Any]) -> dict[str, Any]:
    """As LabelMe 5.5 writes it."""
    common: dict[str, Any] = {"group_id": None, "description": "", "flags": {}, "mask": None}
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [{**common, **shape} for shape in shapes],
        "imagePath": "000123.jpg",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


def written(path: Path, content: str | dict[str, Any]) -> UnpackedFile:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return UnpackedFile(path)


def ring(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_labelme_polygons_and_rectangles_lie_one_over_the_other(tmp_path: Path) -> None:
    file = written(
        tmp_path / "000123.json",
        labelme(
            {"label": "road", "points": ring(-5, 10, 40, 25), "shape_type": "polygon"},
            {"label": "car", "points": ring(2, 5, 8, 12), "shape_type": "polygon", "group_id": 1},
            {"label": "lorry", "points": [[20, 16], [12.2, 12.8]], "shape_type": "rectangle"},
        ),
    )
    labels = drawn_frame(file, NAMES)
    assert labels.name == "000123.png"
    boxes = [(0, 10, 30, 20, 0), (2, 5, 8, 12, 1), (12, 13, 20, 16, 1)]
    np.testing.assert_array_equal(picture(labels), expected(*boxes))


def test_a_slanted_outline_takes_the_pixels_whose_centres_it_holds(tmp_path: Path) -> None:
    triangle = [[0, 0], [20, 0], [0, 20]]
    shape = {"label": "road", "points": triangle, "shape_type": "polygon"}
    found = picture(drawn_frame(written(tmp_path / "1.json", labelme(shape)), NAMES))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    assert (found[x + y < 19.6] == 0).all() and (found[x + y > 20.4] == 255).all()


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><id>7</id></job></meta>
  <image id="0" name="drive/000123.png" width="30" height="20">
    <polygon label="car" source="manual" occluded="0" points="2.00,5.00;8.00,5.00;8.00,12.00;2.00,12.00"
      z_order="2" group_id="3"><attribute name="parked">true</attribute></polygon>
    <box label="road" source="manual" occluded="0" xtl="0" ytl="10" xbr="30" ybr="20" z_order="0"></box>
    <mask label="ignored" source="semi-auto" occluded="0" rle="1, 2, 3" left="10" top="11" width="3"
      height="2" z_order="1"></mask>
  </image>
  <image id="1" name="drive/000124.png" width="30" height="20"></image>
</annotations>"""  # noqa: E501  # as CVAT writes it


def test_cvat_shapes_lie_by_their_z_order_and_masks_are_read(tmp_path: Path) -> None:
    file = written(tmp_path / "drive.xml", CVAT)
    (labels,) = drawn_labels(file, NAMES)
    wanted = expected((0, 10, 30, 20, 0), (11, 11, 13, 12, 255), (2, 5, 8, 12, 1))
    np.testing.assert_array_equal(picture(labels), wanted)
    with_background = drawn_labels(file, {**NAMES, "background": 4})
    assert [labels.name for labels in with_background] == ["000123.png", "000124.png"]
    np.testing.assert_array_equal(picture(with_background[1]), expected(background=4))


def compressed(runs: list[int]) -> str:
    """COCO's text of runs: from the fourth on what they differ by from the one before last."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            ends = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if ends else 32))
            if ends:
                break
    return text


@pytest.mark.parametrize("in_text", [False, True])
def test_coco_parts_are_one_and_a_mask_may_have_a_hole(in_text: bool, tmp_path: Path) -> None:
    mask = expected((5, 4, 15, 14, 1), (8, 7, 11, 10, 0), background=0)
    changes = np.flatnonzero(np.diff(mask.ravel(order="F"))) + 1
    runs = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    counts = compressed(runs) if in_text else runs
    parts = [np.ravel(ring(18, 2, 22, 6)).tolist(), np.ravel(ring(20, 4, 26, 8)).tolist()]
    file = written(
        tmp_path / "drive.json",
        {
            "images": [{"id": 4, "file_name": "drive_000123.jpg", "height": 20, "width": 30}],
            "categories": [{"id": 1, "name": "road"}, {"id": 9, "name": "lorry"}],
            "annotations": [
                {"id": 1, "image_id": 4, "category_id": 9, "iscrowd": 1,
                 "segmentation": {"counts": counts, "size": [20, 30]}},
                {"id": 2, "image_id": 4, "category_id": 1, "iscrowd": 0, "segmentation": parts},
            ],
        },
    )  # fmt: skip
    (labels,) = drawn_labels(file, NAMES)
    wanted = expected((5, 4, 15, 14, 1), (8, 7, 11, 10, 255), (18, 2, 22, 6, 0), (20, 4, 26, 8, 0))
    np.testing.assert_array_equal(picture(labels), wanted)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"label": "tree", "shape_type": "polygon"}, "called 'tree', which is no class"),
        ({"label": "car", "shape_type": "circle"}, "'circle': only polygons and rectangles"),
        ({"label": "car", "shape_type": "polygon", "points": [[1, 2, 3]]}, "pairs of x and y"),
        ({"shape_type": "polygon"}, "as LabelMe has them .KeyError: 'label'"),
    ],
)
def test_what_cannot_be_drawn_is_told(shape: Any, message: str, tmp_path: Path) -> None:
    content = labelme({"points": ring(1, 1, 5, 5), **shape})
    with pytest.raises(UserError, match=message):
        drawn_frame(written(tmp_path / "1.json", content), NAMES).read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", labelme()),
        ("a.json", "[1]"),
        ("a.xml", "<annotations"),
        ("a.xml", CVAT.replace("1, 2, 3", "1, 2, 9")),
        ("a.xml", CVAT.replace("<box", "<ellipse")),
    ],
)
def test_files_of_another_kind_are_refused(name: str, content: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no annotation file as (COCO|CVAT).*Known are"):
        drawn_labels(written(tmp_path / name, content), NAMES)
