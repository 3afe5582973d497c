"""Modes eval and consistency, on a rendered street and a network of random weights."""

import csv
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import tmanet_jax
from data_prep import synthetic
from data_prep.cityscapes import Cityscapes
from data_prep.command import prepare
from data_prep.data_set import Options
from data_prep.source import SourceTree
from tests.made import tiny_runs
from tests.made.small_networks import untrained
from tests.made.small_streets import write_videos
from tmanet_jax import settings
from tmanet_jax.data.classes import CITYSCAPES_LABEL_ID_OF_TRAIN_ID
from tmanet_jax.errors import UserError
from tmanet_jax.inference.engine import Computation
from tmanet_jax.inputs import open_split
from tmanet_jax.protocol import Protocol
from tmanet_jax.scoring.clips import compile_segmenter
from tmanet_jax.scoring.modes import evaluate_consistency, evaluate_run
from tmanet_jax.scoring.trained_network import (
    load_trained,
    named_file,
    without_what_it_began_with,
)
from tmanet_jax.scoring.videos import clips_of, find_videos
from tmanet_jax.settings import Settings
from tmanet_jax.weights import load

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
    prepare(
        Cityscapes(SourceTree(source)),
        root / "records",
        Options(memory_range=2),
        splits=("val", "test"),
    )
    run = settings.from_config(tiny_runs.config(root / "records", eval__mode="whole"))
    load.save(root / "tmanet.safetensors", untrained(run.model))
    init = load.InitConfig(checkpoint=str(root / "tmanet.safetensors"))
    evaluation = dataclasses.replace(run.evaluation, num_worst=2, batch_size=2)
    return Street(source, dataclasses.replace(run, init=init, evaluation=evaluation))


@pytest.fixture(scope="module")
def scored(street: Street, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir after mode eval, with results for the server."""
    workdir = tmp_path_factory.mktemp("scored")
    evaluate_run(street.run, workdir, submit=workdir / "results")
    return workdir


def metrics(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "metrics.json").read_text())


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_tables_pictures_and_the_page_say_the_same(scored: Path) -> None:
    found = metrics(scored)
    rows = list(csv.reader(lines(scored / "confusion.csv")))
    confusion = np.array([row[1:] for row in rows[1:]], int)
    np.testing.assert_array_equal(confusion, found["confusion"])
    assert [row[0] for row in rows[1:]] == rows[0][1:] == list(found["classes"])
    by_class = {row["class"]: row for row in csv.DictReader(lines(scored / "classes.csv"))}
    assert float(by_class["road"]["IoU"]) == found["classes"]["road"]["IoU"]
    share = confusion[0].sum() / confusion.sum()
    assert float(by_class["road"]["frequency"]) == pytest.approx(share)
    assert by_class["train"]["Acc"] == ""
    assert 0 < found["categories"]["mIoU"] < 1
    assert found["categories"]["classes"]["flat"]["IoU"] >= 0
    assert len(found["mIoU_of_clip"]) == NUM_VAL
    by_score = sorted(found["mIoU_of_clip"], key=found["mIoU_of_clip"].__getitem__)
    assert found["worst"] == by_score[:1]  # a third of them
    assert [path.stem for path in (scored / "worst").iterdir()] == by_score[:1]
    assert cv2.imread(str(scored / "confusion.png")) is not None
    page = (scored / "report.html").read_text()
    assert f"{100 * found['mIoU']:.2f}" in page
    assert all(clip_id in page for clip_id in found["worst"])
    assert "http:" not in page and "https:" not in page


def test_results_are_label_ids_named_as_the_frames(street: Street, scored: Path) -> None:
    frames = {path.name for path in (street.source / "leftImg8bit" / "val").rglob("*.png")}
    results = {path.name: path for path in (scored / "results").iterdir()}
    assert results.keys() == frames
    predicted_C = np.array(metrics(scored)["confusion"]).sum(0)
    predicted = {CITYSCAPES_LABEL_ID_OF_TRAIN_ID[index] for index in np.flatnonzero(predicted_C)}
    found = np.unique([np.asarray(Image.open(path)) for path in results.values()])
    assert predicted <= set(found.tolist()) <= set(CITYSCAPES_LABEL_ID_OF_TRAIN_ID)


def test_a_split_without_labels_is_written_and_not_scored(street: Street, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no labels.*--submit"):
        evaluate_run(street.on("test"), tmp_path / "run")
    evaluate_run(street.on("test"), tmp_path / "run", submit=tmp_path / "results")
    assert len(list((tmp_path / "results").iterdir())) == NUM_TEST
    assert not (tmp_path / "run" / "metrics.json").exists()
    with pytest.raises(UserError, match=r"pixelheim_.*no result of the split 'val'"):
        evaluate_run(street.run, tmp_path / "run", submit=tmp_path / "results")


def test_several_sizes_and_flips_score_too(street: Street, scored: Path, tmp_path: Path) -> None:
    evaluate_run(street.with_eval(ratios=(0.75, 1.0), flip=True), tmp_path)
    one, several = np.array(metrics(scored)["confusion"]), np.array(metrics(tmp_path)["confusion"])
    np.testing.assert_array_equal(several.sum(1), one.sum(1))
    assert (several != one).any()


@pytest.fixture(scope="module")
def videos(street: Street, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The same run on two videos, of 9 and of 8 frames."""
    data_dir = tmp_path_factory.mktemp("videos")
    write_videos(data_dir, {0: range(9), 1: range(8)})
    return dataclasses.replace(
        street.run, data=dataclasses.replace(street.run.data, dir=str(data_dir))
    )


def test_videos_are_scored_frame_by_frame_and_over_time(videos: Settings, tmp_path: Path) -> None:
    evaluate_consistency(videos, tmp_path)
    found = metrics(tmp_path / "consistency")
    assert found["clips"] == 17
    assert 0 <= found["temporal"]["VC8"] <= 1
    assert found["temporal"]["VC16"] is None
    assert 0 < found["temporal"]["mTC"] <= 1
    page = (tmp_path / "consistency" / "report.html").read_text()
    assert all(f"rasterburg_000000_{number:06d}" in page for number in range(9))
    # streamed or clip by clip: the same
    source = open_split(videos, "val", memory_range=0, num_memory=0)
    trained = load_trained(videos, tmp_path, source.info.classes, named_file(videos))
    program = compile_segmenter(trained.graphdef, 2, videos.evaluation)
    segmenter = program.with_weights(*trained.weights)
    frames = (clip for video in find_videos(source) for clip in clips_of(source, video, 2))
    confusion = np.sum([one.confusion_CxC for one in segmenter.segment(frames)], axis=0)
    assert np.abs(confusion - np.array(found["confusion"])).sum() <= 1e-4 * confusion.sum()


def test_a_network_is_scored_as_it_was_unless_told_otherwise(
    street: Street, videos: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file's protocol: smaller frames; the command line's: still smaller ones."""
    path = tmp_path / "tmanet.safetensors"
    protocol = Protocol(scale=0.5, memory_stride=2)
    model = load.load_model(street.run.init.checkpoint).model
    load.save(path, model, protocol=protocol)

    def of_file(run: Settings) -> Settings:
        return dataclasses.replace(run, init=load.InitConfig(checkpoint=str(path)))

    evaluate_run(of_file(street.run), tmp_path / "weights")
    told = capsys.readouterr().out
    assert "whole, memory stride 2, resized by 0.5" in told and "configuration has whole" in told
    half = street.with_eval(protocol=dataclasses.replace(protocol, memory_stride=1))
    evaluate_run(half, tmp_path / "named")
    assert metrics(tmp_path / "weights")["confusion"] == metrics(tmp_path / "named")["confusion"]
    quarter = street.run.evaluation.override(scale=0.25)
    evaluate_run(of_file(street.with_eval(**vars(quarter))), tmp_path / "told")
    assert metrics(tmp_path / "told")["confusion"] != metrics(tmp_path / "named")["confusion"]
    evaluate_consistency(of_file(videos), tmp_path / "videos")
    assert "whole, memory stride 2, resized by 0.5" in capsys.readouterr().out


def test_streams_have_one_view(videos: Settings, tmp_path: Path) -> None:
    flipped = dataclasses.replace(videos.evaluation, flip=True)
    with pytest.raises(UserError, match=r"config\.eval\.flip"):
        evaluate_consistency(dataclasses.replace(videos, evaluation=flipped), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_player_shows_a_video(street: Street, videos: Settings, tmp_path: Path) -> None:
    evaluate_run(street.with_eval(video_dir=videos.data.dir), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert all(f"rasterburg_000000_{number:06d}" in page for number in range(9))


def test_an_engine_that_is_missing_is_told_before_there_is_a_folder(
    street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="Format onnx needs onnxruntime and onnx"):
        evaluate_run(street.run, tmp_path / "run", computation=Computation("onnxruntime"))
    assert not list(tmp_path.iterdir())


def test_a_run_that_began_with_a_file_is_scored_by_its_own_checkpoints(tmp_path: Path) -> None:
    config = json.dumps({"config": {"init.checkpoint": "runs/demo"}})
    (tmp_path / "config.json").write_text(config)

    def named(checkpoint: str) -> str:
        run = tmanet_jax.read_settings("demo", {"init.checkpoint": checkpoint})
        return without_what_it_began_with(run, tmp_path).init.checkpoint

    assert named("runs/demo") == "runs/demo"  # it has left nothing yet
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    assert named("runs/demo") == ""
    assert named("other.safetensors") == "other.safetensors"
