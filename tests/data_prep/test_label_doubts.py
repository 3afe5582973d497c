"""What wrong label values leave behind is told; what is as usual is not."""

import re
from pathlib import Path

import pytest

from tests.made.small_streets import write_videos
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.clip_index import ClipIndex
from tmanet_jax.data.records_info import SplitInfo, label_doubts

TWO = ClassSet("mine", ("road", "car"), ((1, 1, 1), (2, 2, 2)))
THREE = ClassSet("mine", ("road", "car", "sky"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))


def doubts(classes, class_pixels, ignored, trains=True, labelled=True):
    split = SplitInfo(labelled, 0, ClipIndex(), class_pixels=class_pixels, ignored_pixels=ignored)
    return label_doubts("train", split, classes, trains=trains)


@pytest.mark.parametrize(
    ("classes", "pixels", "ignored", "expected"),
    [
        (TWO, (0, 0), 9, "every pixel of the labels of train is ignored"),
        (
            TWO,
            (48, 0),
            52,
            r"0 \(road\) and 255 \(ignored, 52.0%\).* such as 1 \(car\)",
        ),
        (THREE, (90, 0, 0), 10, "nothing but 0"),
        (THREE, (20, 20, 5), 55, "55.0% of the label pixels of train are ignored"),
        (THREE, (0, 9, 0), 0, "no pixel of train is road, sky: "),
    ],
)
def test_each_doubt_is_told_alone(classes, pixels, ignored, expected):
    (found,) = doubts(classes, pixels, ignored)
    assert re.search(f"^Warning: .*{expected}", found)


def test_a_rare_class_and_a_few_ignored_pixels_are_usual():
    assert doubts(THREE, (80, 1, 7), 12) == []
    assert doubts(THREE, (90, 0, 0), 0, trains=False) == []
    assert doubts(THREE, (0, 0, 0), 0, labelled=False) == []


def test_that_a_rendered_street_lacks_classes_is_no_doubt(tmp_path: Path) -> None:
    records = write_videos(tmp_path, {0: range(1)})
    assert 0 in records.class_pixels
    assert records.label_doubts(trains=True) == []
