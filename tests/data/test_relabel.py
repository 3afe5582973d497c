"""Labels read as other classes."""

import dataclasses
import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.made.small_clips import NoiseClip, write_noise
from tmanet_jax.command_line import read_settings
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.clip_index import ClipIndex
from tmanet_jax.data.records import ClipRecords, open_clips
from tmanet_jax.data.records_info import RecordsInfo, SplitInfo
from tmanet_jax.data.relabel import relabelling
from tmanet_jax.errors import UserError
from tmanet_jax.inputs import open_split


def test_some_classes_stay_some_become_one_and_the_others_are_ignored() -> None:
    found = relabelling(("road", "vehicle=car,truck", "sky"), CITYSCAPES)
    assert found.classes.names == ("road", "vehicle", "sky")
    assert found.classes.palette_Cx3[1] == CITYSCAPES.palette_Cx3[13]
    assert found.table_256[[0, 13, 14, 10]].tolist() == [0, 1, 1, 2]
    others = set(range(256)) - {0, 13, 14, 10}
    assert (found.table_256[sorted(others)] == 255).all()


def test_pixels_are_counted_by_the_new_classes() -> None:
    pixels = tuple(range(100, 119))
    train = SplitInfo(True, 2, ClipIndex(), class_pixels=pixels, ignored_pixels=7)
    info = RecordsInfo(CITYSCAPES, memory_range=2, frame_stride=1, splits={"train": train})
    split = relabelling(("vehicle=car,truck", "road"), CITYSCAPES).of_info(info).splits["train"]
    assert split.class_pixels == (113 + 114, 100)
    assert split.ignored_pixels == 7 + sum(pixels) - 113 - 114 - 100


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (("raod",), "Did you mean 'road'"),
        (("road", "ground=road,sidewalk"), "twice: 'ground=road,sidewalk'"),
        (("a=road", "a=sky"), "twice: 'a=sky'"),
        (("a=road,road",), "twice"),
    ],
)
def test_a_class_is_known_and_named_once(wanted: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        relabelling(wanted, CITYSCAPES)


def test_records_are_read_so_in_workers_too(tmp_path: Path) -> None:
    recorded = write_noise(tmp_path, 2)
    read = open_clips(tmp_path, "train", classes=("vehicle=car,truck", "road"))
    for records in (read, pickle.loads(pickle.dumps(read))):
        assert records.info.classes.names == ("vehicle", "road")
        labels_HxW = records.read(1, ()).labels_HxW
        written_HxW = NoiseClip(1).load().labels_HxW
        is_vehicle_HxW = np.isin(written_HxW, [13, 14])
        np.testing.assert_array_equal(labels_HxW == 0, is_vehicle_HxW)
        np.testing.assert_array_equal(labels_HxW == 1, written_HxW == 0)
        np.testing.assert_array_equal(labels_HxW == 255, ~is_vehicle_HxW & (written_HxW != 0))
    pixels = recorded.class_pixels
    assert read.class_pixels == (pixels[13] + pixels[14], pixels[0])
    assert read.label_doubts(trains=True) == []  # what is ignored is meant to be
    assert read.fingerprint() != recorded.fingerprint()  # a run that goes on keeps its classes


def test_doubts_are_of_the_labels_as_they_were_recorded(tmp_path: Path) -> None:
    write_noise(tmp_path, 2)
    info = open_clips(tmp_path, "train").info
    split = dataclasses.replace(info.splits["train"], ignored_pixels=1000)
    info = dataclasses.replace(info, splits={"train": split})
    how = "train", info, mock.Mock(), 1
    assert ClipRecords(tmp_path, *how, ("road",)).label_doubts(trains=True) == []
    rare = dataclasses.replace(split, class_pixels=(0, *split.class_pixels[1:]))
    info = dataclasses.replace(info, splits={"train": rare})
    (told,) = ClipRecords(tmp_path, "train", info, mock.Mock(), 1, ("road", "sky")).label_doubts(
        trains=True
    )
    assert "no pixel of train is road:" in told
    with pytest.raises(UserError, match=r"data_prep\.cityscapes"):
        ClipRecords(tmp_path, *how, ("road",)).check_memory(9, 9)


def test_a_run_names_the_classes_that_its_network_tells_apart(tmp_path: Path) -> None:
    write_noise(tmp_path, 1)
    fields = {"data.dir": tmp_path, "data.classes": ("road", "sky"), "model.num_classes": 2}
    records = open_split(read_settings("demo", fields), "train", memory_range=2)
    assert records.info.classes.names == ("road", "sky")
    with pytest.raises(UserError, match=r"have 2 classes, config\.model\.num_classes is 19"):
        open_split(
            read_settings("demo", {**fields, "model.num_classes": 19}), "train", memory_range=2
        )
    with pytest.raises(UserError, match=r"config\.data\.classes names 'lane'"):
        fields["data.classes"] = ("road", "lane")
        open_split(read_settings("demo", fields), "train", memory_range=2)
