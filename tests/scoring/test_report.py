"""What a report says of a data set with a void class, and its result files."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests.made.small_reports import assessment_of
from tmanet_jax.data.classes import CAMVID, CITYSCAPES, CITYSCAPES_CATEGORIES
from tmanet_jax.data.clips import Clip
from tmanet_jax.protocol import EvalConfig, Protocol
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.metrics import confusion_of, scores_without
from tmanet_jax.scoring.report import metrics_json, table, write_report
from tmanet_jax.scoring.submission import result_name, result_png


def camvid_clip(number: int) -> SegmentedClip:
    rng = np.random.default_rng(number)
    labels, predicted = rng.integers(0, CAMVID.num_classes, (2, 20, 30)).astype(np.uint8)
    clip = Clip(f"0016E5_{number:05d}", "", np.zeros((1, 20, 30, 3), np.uint8), labels)
    return SegmentedClip(clip, predicted, confusion_of(predicted, labels, CAMVID.num_classes))


def test_camvid_is_scored_with_void_and_without() -> None:
    report = assessment_of([camvid_clip(number) for number in range(3)], CAMVID)
    found = json.loads(metrics_json(report))
    assert len(found["classes"]) == 12
    assert [*found["without_void"]["classes"]] == [*CAMVID.names[1:]]
    eleven = scores_without(np.array(found["confusion"]), 0)
    assert found["without_void"]["mIoU"] == eleven.mean_iou != found["mIoU"]
    assert "categories" not in found
    (row,) = (line for line in table(report).splitlines() if line.startswith("without_void"))
    assert row.split()[1] == f"{100 * eleven.mean_iou:.2f}"


def kept(workdir: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in workdir.glob("[mr]e*-*")}


def test_what_other_settings_scored_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    first = assessment_of([camvid_clip(number) for number in range(3)], CAMVID)
    assert "before" not in write_report(first, tmp_path)
    assert (
        "Frames were segmented so: slide 769x769 at 513x513"
        in (tmp_path / "report.html").read_text()
    )
    assert "8, 3 clips of val, float32, engine jax" in write_report(first, tmp_path)
    assert kept(tmp_path) == {}
    others = [
        dataclasses.replace(first, how=EvalConfig(Protocol(scale=0.5))),
        dataclasses.replace(first, how=EvalConfig(flip=True)),
        dataclasses.replace(first, how=EvalConfig(ratios=(0.5, 1.0))),
        dataclasses.replace(first, split="test"),
        dataclasses.replace(first, step=9),
        dataclasses.replace(first, weights="other.safetensors"),
        dataclasses.replace(first, computation="int8 calibrated on data/demo, engine openvino"),
    ]
    for number, other in enumerate(others):
        before = [(tmp_path / name).read_text() for name in ("metrics.json", "report.html")]
        already = kept(tmp_path)
        assert "before:   " in write_report(other, tmp_path)
        assert json.loads((tmp_path / "metrics.json").read_text())["split"] == other.split
        added = kept(tmp_path).keys() - already.keys()
        assert sorted(kept(tmp_path)[name] for name in added) == sorted(before)
        assert len(already) == 2 * number
    for old in ("{", '["x"]', '{"split": "val", "mIoU": 0.5}', '{"split": "../v"}'):
        (tmp_path / "metrics.json").write_text(old)
        write_report(first, tmp_path)
        assert old in kept(tmp_path).values()
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "metrics.json").mkdir()
    assert "before:   " in write_report(first, tmp_path)
    assert (tmp_path / "metrics.json").is_file()


def test_a_class_that_is_absent_has_no_row_and_a_group_takes_the_place_of_none(
    tmp_path: Path,
) -> None:
    whole = camvid_clip(0)
    labels, predicted = (
        np.where(labels_HxW == 3, 4, labels_HxW).astype(np.uint8)
        for labels_HxW in (whole.clip.labels_HxW, whole.predicted_HxW)
    )
    clip = dataclasses.replace(whole.clip, labels_HxW=labels, group="all")
    confusion = confusion_of(predicted, labels, CAMVID.num_classes)
    report = assessment_of([SegmentedClip(clip, predicted, confusion)], CAMVID)
    name = CAMVID.names[3]
    assert not [line for line in table(report).splitlines() if line.startswith(name)]
    assert f"neither labelled nor predicted: {name}\n" in table(report)
    assert len([line for line in table(report).splitlines() if line.startswith("all ")]) == 2
    write_report(report, tmp_path)
    page = (tmp_path / "report.html").read_text()
    classes = page.split("<h2>Classes</h2>")[1].split("</table>")[0]
    assert f"</span>{name}</td>" not in classes
    assert "nan" not in classes
    assert "1 clip of val" in page and "The clip with the lowest mIoU" in page


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
