"""The two sides of the data benchmark make the same clips; its report holds what it promises."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import data, formats
from benchmarks.__main__ import main
from data_prep.records.writer import write_records
from tests.made.small_clips import NoiseClip, plan_of
from tests.test_configs import load
from tmanet_jax import settings
from tmanet_jax.data import augment, resize, samples
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.codec import Size
from tmanet_jax.data.records import open_clips
from tmanet_jax.data.samples import Sampling

SIZE = Size(100, 170)


@dataclasses.dataclass(frozen=True)
class PatchyClip(NoiseClip):
    """Noise, whose labels are of one class but for a corner: most crops are drawn again."""

    size: tuple[int, int] = SIZE

    def load(self):
        clip = super().load()
        labels_HxW = np.zeros(SIZE, np.uint8)
        labels_HxW[:60, :70] = 1
        labels_HxW[20:40, 30:50] = 255
        return dataclasses.replace(clip, labels_HxW=labels_HxW)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    directory = tmp_path_factory.mktemp("patchy")
    plans = {"train": plan_of([PatchyClip(number) for number in range(2)])}
    write_records(directory, CITYSCAPES, 3, plans)
    return open_clips(directory, "train")


@pytest.mark.parametrize("crop_size", [(64, 96), (97, 131)])
def test_both_sides_make_the_same_clip_of_the_same_draws(source, tmp_path, crop_size):
    sampling = Sampling(Augmentation(crop_size), num_memory=2, memory_range=3)
    pngs = data.write_pngs(source.read(1, (3, 2, 1)), tmp_path)
    laps = data.Laps()
    tries = set()
    for seed in range(40):
        frames, labels = data.make_from_pngs(pngs, np.random.default_rng(seed), sampling, laps)
        own_frames, own_labels = data.make_from_record(
            source, 1, np.random.default_rng(seed), sampling, laps
        )
        np.testing.assert_array_equal(own_frames, frames)
        np.testing.assert_array_equal(own_labels, labels)
        tries.add(_number_of_boxes(source, seed, sampling))
    assert {1, 11} <= tries  # first crops that were taken, and last ones


def _number_of_boxes(source, seed, sampling):
    """How many crops are drawn before one is taken."""
    rng = np.random.default_rng(seed)
    labels = source.read_encoded(1).decode_labels()
    samples.draw_memory_offsets(rng, sampling.num_memory, sampling.memory_range)
    size = resize.scaled_size(SIZE, rng.uniform(0.5, 2.0))
    drawn = []

    def boxes():
        for box in augment.draw_boxes(rng, size, sampling.augmentation.crop_size):
            drawn.append(box)
            yield box

    augment.choose_box(labels, size, boxes(), sampling.augmentation.cat_max_ratio)
    return len(drawn)


def test_the_report_tells_stages_and_pipeline(source, monkeypatch):
    monkeypatch.setattr(data, "TURNS", 1)
    monkeypatch.setattr(data, "WORKERS", (0,))
    config = load("cityscapes")
    config.data.dir = str(source.data_dir)
    config.data.crop_size = (64, 96)
    config.batch_size = 1
    report = json.loads(data.measure(settings.from_config(config)).to_json())
    stages = [row[0] for row in report["rows"]]
    assert stages == [
        *("read", "decode", "labels and draws", "resize, crop", "colours", "batch"),
        "to the uint8 batch",
    ]
    assert all(float(cell) >= 0 for row in report["rows"] for cell in row[1:])
    assert [target["target"] for target in report["targets"]] == [6, 20]
    assert "0 workers:" in " ".join(report["notes"])


def test_formats_are_told_side_by_side(source, monkeypatch):
    monkeypatch.setattr(formats, "TURNS", 1)
    config = load("cityscapes")
    config.data.dir = str(source.data_dir)
    config.data.crop_size = (64, 96)
    findings = formats.measure(settings.from_config(config))
    assert findings.columns == ("", "version 2", "each frame once")
    cells = {row[0]: [float(cell) for cell in row[1:]] for row in findings.rows}
    assert all(min(of_both) > 0 for of_both in cells.values())
    assert cells["MB of frames and labels"][0] == cells["MB of frames and labels"][1]
    assert findings.targets[0].value > 0


def test_a_split_without_labels_is_refused_before_anything_is_measured(
    tmp_path, monkeypatch, capsys
):
    plans = {"train": plan_of([PatchyClip(0)], labelled=False)}
    write_records(tmp_path, CITYSCAPES, 3, plans)
    monkeypatch.setattr(data, "Ways", None)
    assert main(["data", "--config=configs/cityscapes.py", f"--config.data.dir={tmp_path}"]) == 2
    assert "no labels to train on" in capsys.readouterr().err
