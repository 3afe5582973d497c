"""Render, prepare, train, be killed, go on, evaluate: with the real programs, in small."""

import json
import signal
import subprocess
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import tensorboardX  # noqa: F401  (its import warns once; here, where warnings are not errors yet)
from orbax import checkpoint as ocp

from tests import tiny_runs


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "records"
    tiny_runs.render_records(path)
    return path


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The workdir and the output of a run that was never stopped."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    done = tiny_runs.run(data_dir, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout + done.stderr


def saved_state(workdir: Path, step: int) -> list[np.ndarray]:
    checkpointer = ocp.PyTreeCheckpointer()
    return jax.tree.leaves(checkpointer.restore(workdir / "checkpoints" / str(step) / "state"))


def test_a_run_leaves_metrics_pictures_logs_and_checkpoints(finished: tuple[Path, str]) -> None:
    workdir, output = finished
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
    log = (workdir / "train.log").read_text()
    assert "train/loss" in log and "train/learning_rate" in log
    assert list((workdir / "tensorboard").iterdir())
    kept = {int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()}
    assert {4, 6, 8} <= kept <= {2, 4, 6, 8}


def test_a_run_that_ended_is_only_scored_again(data_dir: Path, finished: tuple[Path, str]) -> None:
    workdir, _ = finished
    before = json.loads((workdir / "metrics.json").read_text())
    again = tiny_runs.run(data_dir, f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr
    assert "going on from step 8 of 8" in again.stdout
    assert json.loads((workdir / "metrics.json").read_text()) == before


def test_eval_scores_the_best_checkpoint(data_dir: Path, finished: tuple[Path, str]) -> None:
    workdir, _ = finished
    log = (workdir / "train.log").read_text()
    scored = {
        int(line.split("step ")[1].split()[0]): float(line.split("eval/mIoU ")[1].split()[0])
        for line in log.splitlines()
        if "eval/mIoU " in line
    }
    assert sorted(scored)[:2] == [4, 8]
    done = tiny_runs.run(data_dir, "eval", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["step"] == max(scored, key=lambda step: scored[step])
    assert metrics["mIoU"] == pytest.approx(scored[metrics["step"]], abs=1e-4)


def test_sliding_windows_score_too(data_dir: Path, finished: tuple[Path, str]) -> None:
    workdir, _ = finished
    done = tiny_runs.run(
        data_dir,
        "eval",
        f"--workdir={workdir}",
        "--config.eval.mode=slide",
        "--config.eval.crop_size=(48,80)",
        "--config.eval.stride=(32,56)",
        "--config.eval.windows_per_call=3",
    )
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads((workdir / "metrics.json").read_text())["mIoU"] < 1


def test_killed_and_started_again_equals_never_stopped_bit_for_bit(
    data_dir: Path, tmp_path: Path
) -> None:
    longer = ("--config.num_steps=40", "--config.eval.every=40", "--config.checkpoint.every=4")
    straight = tiny_runs.run(data_dir, f"--workdir={tmp_path / 'straight'}", *longer)
    assert straight.returncode == 0, straight.stderr

    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        tiny_runs.command(data_dir, f"--workdir={workdir}", *longer),
        cwd=tiny_runs.PROJECT,
        env=tiny_runs.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((workdir / "checkpoints").glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"

    again = tiny_runs.run(data_dir, f"--workdir={workdir}", *longer)
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stdout
    for expected, got in zip(
        saved_state(tmp_path / "straight", 40), saved_state(workdir, 40), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    metrics = [
        json.loads((path / "metrics.json").read_text()) for path in (tmp_path / "straight", workdir)
    ]
    assert metrics[0] == metrics[1]


def test_the_same_batches_and_losses_with_worker_processes(
    data_dir: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    done = tiny_runs.run(data_dir, f"--workdir={tmp_path}", "--config.data.num_workers=2")
    assert done.returncode == 0, done.stderr
    for expected, got in zip(saved_state(finished[0], 8), saved_state(tmp_path, 8), strict=True):
        np.testing.assert_array_equal(got, expected)
