"""Modes eval and consistency, on a rendered street and a network of random weights."""

import csv
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep import cityscapes, synthetic
from tests import tiny_runs
from tests.small_networks import untrained
from tmanet_jax import settings, weights
from tmanet_jax.data.classes import CITYSCAPES_LABEL_ID_OF_TRAIN_ID
from tmanet_jax.errors import UserError
from tmanet_jax.settings import Settings
from tmanet_jax.train.assess import evaluate_workdir

SIZE = (64, 128)
NUM_VAL, NUM_TEST = 3, 2


@dataclasses.dataclass(frozen=True)
class Street:
    """A rendered street, its records, and a run that is to score them."""

    source: Path
    run: Settings

    def with_eval(self, **changes: object) -> Settings:
        evaluation = dataclasses.replace(self.run.evaluation, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(self.run, evaluation=evaluation)

    def on(self, split: str) -> Settings:
        data = dataclasses.replace(self.run.data, eval_split=split)
        return dataclasses.replace(self.run, data=data)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    root = tmp_path_factory.mktemp("street")
    source = root / "street"
    synthetic.render_dataset(
        source, size=SIZE, val=NUM_VAL, test=NUM_TEST, before=2, after=0, workers=1, progress=False
    )
    cityscapes.prepare(source, root / "records", memory_range=2, splits=("val", "test"))
    run = settings.from_config(tiny_runs.config(root / "records", eval__mode="whole"))
    weights.save(root / "tmanet.safetensors", untrained(run.model))
    init = settings.InitConfig(checkpoint=str(root / "tmanet.safetensors"))
    evaluation = dataclasses.replace(run.evaluation, num_worst=2, batch_size=2)
    return Street(source, dataclasses.replace(run, init=init, evaluation=evaluation))


@pytest.fixture(scope="module")
def scored(street: Street, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir after mode eval, with results for the server."""
    workdir = tmp_path_factory.mktemp("scored")
    evaluate_workdir(street.run, workdir, submit=workdir / "results")
    return workdir


def metrics(workdir: Path) -> dict:
    return json.loads((workdir / "metrics.json").read_text())


def test_tables_pictures_and_the_page_say_the_same(scored: Path) -> None:
    found = metrics(scored)
    rows = list(csv.reader((scored / "confusion.csv").open()))
    confusion = np.array([row[1:] for row in rows[1:]], int)
    np.testing.assert_array_equal(confusion, found["confusion"])
    assert [row[0] for row in rows[1:]] == rows[0][1:] == list(found["classes"])
    by_class = {row["class"]: row for row in csv.DictReader((scored / "classes.csv").open())}
    assert float(by_class["road"]["IoU"]) == found["classes"]["road"]["IoU"]
    assert float(by_class["road"]["frequency"]) == pytest.approx(
        confusion[0].sum() / confusion.sum()
    )
    assert by_class["train"]["Acc"] == ""
    assert 0 < found["categories"]["mIoU"] < 1
    assert found["categories"]["classes"]["flat"]["IoU"] >= 0
    assert len(found["mIoU_of_clip"]) == NUM_VAL
    by_score = sorted(found["mIoU_of_clip"], key=found["mIoU_of_clip"].__getitem__)
    assert found["worst"] == by_score[:2]
    assert sorted(path.stem for path in (scored / "worst").iterdir()) == sorted(by_score[:2])
    assert cv2.imread(str(scored / "confusion.png")) is not None
    page = (scored / "report.html").read_text()
    assert f"{100 * found['mIoU']:.2f}" in page
    assert all(clip_id in page for clip_id in found["worst"])
    assert "http" not in page


def test_results_are_label_ids_named_as_the_frames(street: Street, scored: Path) -> None:
    frames = {path.name for path in (street.source / "leftImg8bit" / "val").rglob("*.png")}
    results = {path.name: path for path in (scored / "results").iterdir()}
    assert results.keys() == frames
    palette = np.unique([cv2.imread(str(path)).reshape(-1, 3) for path in results.values()])
    assert len(palette) > 1
    confusion = np.array(metrics(scored)["confusion"])
    predicted = {
        CITYSCAPES_LABEL_ID_OF_TRAIN_ID[index] for index in np.flatnonzero(confusion.sum(0))
    }

    found = np.unique([np.asarray(Image.open(path)) for path in results.values()])
    assert predicted <= set(found.tolist()) <= set(CITYSCAPES_LABEL_ID_OF_TRAIN_ID)


def test_a_split_without_labels_is_written_and_not_scored(street: Street, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no labels.*--submit"):
        evaluate_workdir(street.on("test"), tmp_path / "run")
    evaluate_workdir(street.on("test"), tmp_path / "run", submit=tmp_path / "results")
    assert len(list((tmp_path / "results").iterdir())) == NUM_TEST
    assert not (tmp_path / "run" / "metrics.json").exists()
    with pytest.raises(UserError, match=r"pixelheim_.*no result of the split 'val'"):
        evaluate_workdir(street.run, tmp_path / "run", submit=tmp_path / "results")


def test_several_sizes_and_flips_score_too(street: Street, scored: Path, tmp_path: Path) -> None:
    evaluate_workdir(street.with_eval(ratios=(0.75, 1.0), flip=True), tmp_path)
    one, several = np.array(metrics(scored)["confusion"]), np.array(metrics(tmp_path)["confusion"])
    np.testing.assert_array_equal(several.sum(1), one.sum(1))
    assert (several != one).any()
