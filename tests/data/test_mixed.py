"""Several directories of records that train together."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_prep.records.writer import write_records
from tests.data.test_pipeline import assert_equal, take
from tests.made.small_clips import NoiseClip, plan_of, write_noise
from tmanet_jax.command_line import read_settings
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.mixed import open_mixed
from tmanet_jax.errors import UserError
from tmanet_jax.inputs import open_split

PLAIN = Augmentation((70, 100), (1.0, 1.0), flip_probability=0.0, photometric="off")
OTHERS = dataclasses.replace(CITYSCAPES, name="others", names=("lane", *CITYSCAPES.names[:0:-1]))
"""Cityscapes' classes backwards, and a lane in place of the road."""


def test_each_has_its_share_and_its_own_epochs_wherever_a_run_goes_on(tmp_path: Path) -> None:
    parts = {tmp_path / "a": 6, tmp_path / "b": 3}
    for path, num_clips in parts.items():
        write_noise(path, num_clips)
    records = open_mixed({str(tmp_path / "a"): 1.0, str(tmp_path / "b"): 0.5}, "train")
    batches = take(6, records, PLAIN, batch_size=3)
    indices = np.stack([batch.indices for batch in batches])
    assert (np.sum(indices >= 6, axis=1) == 1).all()
    assert sorted(indices[indices < 6].tolist()) == sorted([*range(6)] * 2)
    assert sorted(indices[indices >= 6].tolist()) == sorted([6, 7, 8] * 2)
    labels_of_clips = zip(indices.ravel(), np.concatenate([b.labels for b in batches]), strict=True)
    for index, labels_HxW in labels_of_clips:
        clip = NoiseClip(int(index) % 6)
        np.testing.assert_array_equal(labels_HxW, clip.load().labels_HxW)
        assert records.clip_id(index) == clip.id
    elsewhere = pickle.loads(pickle.dumps(records))
    assert_equal(take(2, elsewhere, PLAIN, batch_size=3, start_step=4), batches[4:])
    other_shares = open_mixed({str(tmp_path / "a"): 1.0, str(tmp_path / "b"): 0.25}, "train")
    assert other_shares.fingerprint() != records.fingerprint()


def test_pixels_are_counted_as_often_as_they_come(tmp_path: Path) -> None:
    parts = [write_noise(tmp_path / name, num) for name, num in (("a", 1), ("b", 2))]
    records = open_mixed({str(tmp_path / "a"): 1.0, str(tmp_path / "b"): 0.5}, "train")
    of_clip = [np.array(part.class_pixels) / len(part) for part in parts]
    expected = 3 * (of_clip[0] + 0.5 * of_clip[1]) / 1.5
    np.testing.assert_allclose(records.class_pixels, expected, atol=0.5)


def test_what_has_other_classes_is_read_as_the_same(tmp_path: Path) -> None:
    write_noise(tmp_path / "a", 1)
    write_records(tmp_path / "b", OTHERS, 3, {"train": plan_of([NoiseClip(1)])})
    fields = {"data.dir": tmp_path / "a", "data.mixed": (f"{tmp_path / 'b'}=0.5",)}

    def opened(*classes: str, trains: bool = True):
        chosen = {"data.classes": classes, "model.num_classes": len(classes) or 19}
        settings = read_settings("demo", {**fields, **chosen})
        return open_split(settings, "train", memory_range=2, trains=trains)

    with pytest.raises(UserError, match=r"cannot be mixed, .*'road' there and 'lane' here"):
        opened()
    with pytest.raises(UserError, match=r"config\.data\.classes names 'street'"):
        opened("street")
    wanted = ("way=road,lane", "lane markings=lane marking,fence")
    with pytest.raises(UserError, match=r"names 'lane marking'"):
        opened(*wanted)
    with pytest.raises(UserError, match=r"names 'lain'.* Did you mean 'lane'"):
        opened("way=road,lain", "fence", trains=False)
    records = opened("way=road,lane", "fence")
    assert records.info.classes.names == ("way", "fence")
    for index, fence in ((0, 4), (1, 15)):
        written_HxW = NoiseClip(index).load().labels_HxW
        labels_HxW = records.read(index, ()).labels_HxW
        np.testing.assert_array_equal(labels_HxW == 0, written_HxW == 0)
        np.testing.assert_array_equal(labels_HxW == 1, written_HxW == fence)
    assert opened("way=road,lane", "fence", trains=False).ids == ("noise_000000",)


@pytest.mark.parametrize("share", ["data/b", "data/b=0", "=1"])
def test_a_share_is_a_directory_and_a_number(share: str) -> None:
    with pytest.raises(UserError, match=r"config\.data\.mixed must be"):
        read_settings("demo", {"data.mixed": (share,)})
