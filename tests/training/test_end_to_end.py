"""Render, prepare, train, go on, evaluate: with the real programs, in small."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from tests import in_process
from tests.made import tiny_runs
from tmanet_jax import Segmenter
from tmanet_jax.checkpoints.damage import steps_in
from tmanet_jax.data.records import open_clips
from tmanet_jax.protocol import Protocol
from tmanet_jax.scoring.curves import read_curves
from tmanet_jax.weights import files

pytestmark = pytest.mark.filterwarnings(
    "ignore:Sharding info not provided"  # `assert_same_state` restores on one device
)


class Finished(NamedTuple):
    """A run that was never stopped, in a process of its own."""

    data_dir: Path
    workdir: Path
    output: str


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = tiny_runs.run(data_dir, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return Finished(data_dir, workdir, done.stdout + done.stderr)


@pytest.fixture
def workdir(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run's, to be changed."""
    return shutil.copytree(finished.workdir, tmp_path / "run")


def test_a_run_leaves_metrics_pictures_logs_checkpoints_and_weights(finished: Finished) -> None:
    workdir, output = finished.workdir, finished.output
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["step"] == 8
    assert metrics["clips"] == tiny_runs.NUM_EVAL
    for part in (metrics, metrics["groups"]["clean"], metrics["groups"]["degraded"]):
        assert 0 <= part["mIoU"] <= part["mDice"] <= 1
        assert 0 <= part["aAcc"] <= 1
        assert 0 <= part["classes"]["road"]["IoU"] <= 1
    assert metrics["classes"]["train"]["Acc"] is None
    assert f"{100 * metrics['mIoU']:.2f}" in output
    pictures = sorted((workdir / "predictions").glob("*.png"))
    assert len(pictures) == 2
    assert all(cv2.imread(str(picture)) is not None for picture in pictures)
    for name in ("confusion.csv", "confusion.png", "classes.csv", "report.html"):
        assert (workdir / name).stat().st_size > 0
    log = (workdir / "train.log").read_text()
    assert "no pixel of train" not in log  # the street lacks classes on purpose
    assert [f"step {step} of 8: loss" in log for step in (1, 5, 8)] == [True] * 3
    assert list((workdir / "tensorboard").iterdir())
    kept = set(steps_in(workdir / "checkpoints"))
    assert {4, 6, 8} <= kept <= {2, 4, 6, 8}
    assert {path.stem for path in (workdir / "worst").iterdir()} == set(metrics["worst"])
    assert len(metrics["worst"]) == 2  # of 5: a third
    protocol = files.read(workdir / "tmanet.safetensors").protocol
    assert protocol == Protocol("slide", (48, 80), (32, 64), train_height=64)


def test_a_run_that_ended_is_only_scored_again(data_dir: Path, workdir: Path) -> None:
    before = json.loads((workdir / "metrics.json").read_text())
    again = tiny_runs.called(data_dir, f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr
    assert "going on from step 8 of 8" in again.stdout
    assert json.loads((workdir / "metrics.json").read_text()) == before


def test_eval_scores_the_best_checkpoint(data_dir: Path, workdir: Path) -> None:
    curve = read_curves(workdir)["eval/mIoU"]
    scored = dict(zip(curve.steps_N.tolist(), curve.values_N.tolist(), strict=True))
    assert sorted(scored) == [4, 8]
    done = tiny_runs.called(data_dir, "eval", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["step"] == max(scored, key=lambda step: (scored[step], step))
    assert metrics["mIoU"] == pytest.approx(scored[metrics["step"]], abs=1e-4)


@pytest.mark.parametrize(
    "flags",
    [
        ["--config.eval.mode=whole", "--config.eval.ratios=(0.5,1.0)", "--config.eval.flip=True"],
        [
            "--config.eval.crop_size=(40,72)",
            "--config.eval.stride=(24,56)",
            "--config.eval.windows_per_call=3",
        ],
    ],
)
def test_whole_frames_and_other_windows_score_too(
    data_dir: Path, workdir: Path, flags: list[str]
) -> None:
    results = workdir / "results"
    done = tiny_runs.called(data_dir, "eval", f"--workdir={workdir}", f"--submit={results}", *flags)
    assert done.returncode == 0, done.stderr
    assert len(list(results.glob("*_leftImg8bit.png"))) == tiny_runs.NUM_EVAL
    assert 0 < json.loads((workdir / "metrics.json").read_text())["mIoU"] < 1


def test_the_weights_file_scores_as_the_run_did_whatever_the_configuration_says_of_the_network(
    finished: Finished, tmp_path: Path
) -> None:
    done = tiny_runs.called(
        finished.data_dir,
        "eval",
        f"--workdir={tmp_path}",
        f"--config.init.checkpoint={finished.workdir / 'tmanet.safetensors'}",
        "--config.model.num_memory=1",
        "--config.model.width=8",
    )
    assert done.returncode == 0, done.stderr
    expected, got = (
        json.loads((path / "metrics.json").read_text()) for path in (finished.workdir, tmp_path)
    )
    assert got["mIoU"] == pytest.approx(expected["mIoU"], abs=1e-9)


def published(workdir: Path, output: Path) -> dict[str, bytes]:
    """The files of what a run publishes, by name."""
    done = in_process.called(["publish", f"--workdir={workdir}", f"--output={output}"])
    assert done.returncode == 0, done.stderr
    paths = [path for path in output.rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def test_a_run_is_published_with_its_story(finished: Finished, tmp_path: Path) -> None:
    found = published(finished.workdir, tmp_path / "one")
    assert found == published(finished.workdir, tmp_path / "two")
    pictures = {f"predictions/{path.name}" for path in finished.workdir.glob("predictions/*.png")}
    names = {"README.md", "classes.csv", "config.json", "metrics.json", "model.safetensors"}
    assert len(pictures) == 2
    assert set(found) == names | pictures
    metrics = json.loads(found["metrics.json"])
    run = json.loads((finished.workdir / "config.json").read_text())
    card = found["README.md"].decode()
    for said in (
        "license: unknown # fill in",
        "metrics:\n- mean_iou",
        f"python {run['command']}",
        f"Commit {run['commit'] or 'not recorded'}; python",
        f"step 8, mIoU {100 * metrics['mIoU']:.2f}",
        f"{tiny_runs.NUM_EVAL} clips of the split val, step 8, computed in float32, engine jax, "
        "segmented so: slide 48x80 at 32x64",
        f"| degraded | {100 * metrics['groups']['degraded']['mIoU']:.2f} |",
        f"| road | {100 * metrics['classes']['road']['IoU']:.2f} |",
        "| train | - | - | - | 0.00 |",
        *(f"]({name})" for name in pictures),
    ):
        assert said in card
    assert json.loads(found["config.json"])["training"]["config"] == run["config"]


def test_the_cards_example_loads_what_is_published(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = published(finished.workdir, tmp_path / "out")["README.md"].decode()
    (example,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    picture = cv2.imread(str(next((finished.workdir / "predictions").glob("*.png"))))
    assert picture is not None
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture[number:, number:])
    program = example.replace("hf://OWNER/NAME", "out").replace("drive.mp4", "*.png")
    program += "    shown.append(result.labels)\n"
    monkeypatch.chdir(tmp_path)
    shown: list[np.ndarray] = []
    exec(program, {"shown": shown})
    segmenter = Segmenter.load(finished.workdir / "tmanet.safetensors")
    results = list(segmenter.stream(str(tmp_path / "*.png")))
    assert len(results) == 3
    for result, labels in zip(results, shown, strict=True):
        np.testing.assert_array_equal(labels, result.labels)


def test_scores_of_other_weights_are_not_published(workdir: Path, tmp_path: Path) -> None:
    path = workdir / "metrics.json"
    metrics = json.loads(path.read_text())
    for number, (content, told) in enumerate(
        (
            ({**metrics, "step": 4}, "is of step 4, not of these weights of step 8"),
            ({**metrics, "weights": "other.pth"}, "is of a file of weights, not of these"),
            (
                {**metrics, "computation": "int8 calibrated on drive.mp4, engine openvino"},
                "engine openvino, not of these weights in float32, engine jax",
            ),
            (None, "The run has no metrics.json yet"),
        )
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(json.dumps(content))
        found = published(workdir, tmp_path / str(number))
        assert set(found) == {"README.md", "classes.csv", "config.json", "model.safetensors"}
        assert told in found["README.md"].decode()
        assert b"mean_iou" not in found["README.md"]


def test_scores_that_another_engines_have_replaced_are_published(
    workdir: Path, tmp_path: Path
) -> None:
    path = workdir / "metrics.json"
    own = path.read_text()
    path.rename(workdir / "metrics-val-8-0123abcd.json")
    path.write_text(json.dumps({**json.loads(own), "computation": "float32, engine openvino"}))
    found = published(workdir, tmp_path / "out")
    assert found["metrics.json"].decode() == own
    assert "computed in float32, engine jax" in found["README.md"].decode()


@pytest.mark.parametrize("name", ["metrics.json", "tmanet.safetensors"])
def test_what_is_damaged_is_not_published(workdir: Path, tmp_path: Path, name: str) -> None:
    path = workdir / name
    path.write_bytes(path.read_bytes().replace(b"[", b"(", 1))
    done = in_process.called(["publish", f"--workdir={workdir}", f"--output={tmp_path / 'out'}"])
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert list(tmp_path.iterdir()) == [workdir]


def test_a_run_renders_its_street_and_begins_with_a_pretrained_backbone(
    finished: Finished, tmp_path: Path
) -> None:
    with tiny_runs.rendered_here():
        done = tiny_runs.called(
            tmp_path / "records",
            f"--workdir={tmp_path / 'run'}",
            f"--config.init.pretrained={finished.workdir / 'tmanet.safetensors'}",
            *tiny_runs.RENDER,
            "--config.num_steps=1",
        )
    assert done.returncode == 0, done.stderr
    assert "Rendering 11 snippets of 64x128 pixels." in done.stderr
    assert "left at initial values: " in done.stdout and "decode_head" in done.stdout
    rendered, expected = (
        open_clips(path, "val") for path in (tmp_path / "records", finished.data_dir)
    )
    assert rendered.fingerprint() == expected.fingerprint()
