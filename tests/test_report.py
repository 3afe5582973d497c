"""What a report says of a data set with a void class, and its result files."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests.small_reports import report_of
from tmanet_jax.data.categories import CITYSCAPES_CATEGORIES
from tmanet_jax.data.classes import CAMVID, CITYSCAPES
from tmanet_jax.data.records import Clip
from tmanet_jax.inference.report import metrics_json, table
from tmanet_jax.inference.segment import SegmentedClip
from tmanet_jax.inference.submission import result_name, result_png
from tmanet_jax.metrics import confusion_of, scores_without


def camvid_clip(number: int) -> SegmentedClip:
    rng = np.random.default_rng(number)
    labels, predicted = rng.integers(0, CAMVID.num_classes, (2, 20, 30)).astype(np.uint8)
    clip = Clip(f"0016E5_{number:05d}", "", np.zeros((1, 20, 30, 3), np.uint8), labels)
    return SegmentedClip(clip, predicted, confusion_of(predicted, labels, CAMVID.num_classes))


def test_camvid_is_scored_with_void_and_without() -> None:
    report = report_of([camvid_clip(number) for number in range(3)], CAMVID)
    found = json.loads(metrics_json(report))
    assert len(found["classes"]) == 12
    assert [*found["without_void"]["classes"]] == [*CAMVID.names[1:]]
    eleven = scores_without(np.array(found["confusion"]), 0)
    assert found["without_void"]["mIoU"] == eleven.mean_iou != found["mIoU"]
    assert "categories" not in found
    (row,) = (line for line in table(report).splitlines() if line.startswith("without_void"))
    assert row.split()[1] == f"{100 * eleven.mean_iou:.2f}"


def test_camvid_results_hold_train_ids_under_its_own_palette(tmp_path: Path) -> None:
    predicted_HxW = camvid_clip(0).predicted_HxW
    path = tmp_path / result_name("0016E5_07959", CAMVID)
    path.write_bytes(result_png(predicted_HxW, CAMVID))
    assert path.name == "0016E5_07959.png"
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), predicted_HxW)
    rgb = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(rgb, CAMVID.paint(predicted_HxW))


def test_every_class_has_one_of_seven_categories() -> None:
    of_class = CITYSCAPES_CATEGORIES.category_of_class_C
    assert len(of_class) == CITYSCAPES.num_classes
    assert set(of_class) == set(range(7))
    assert len(CITYSCAPES_CATEGORIES.names) == 7
