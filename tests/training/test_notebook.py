"""Training, scores and files out of Python, as docs/runs.md shows them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import tmanet_jax
from tests import processes
from tests.made import tiny_runs
from tests.made.small_videos import numbered, write_video
from tmanet_jax.errors import UserError
from tmanet_jax.training import loop
from tmanet_jax.weights import files

PAGE = (processes.PROJECT / "docs" / "runs.md").read_text()
EVALUATES = """\
scores = tmanet_jax.evaluate(settings, on_clip=lambda one: clips.append(one.clip.id))
print(scores.overall.iou_C)
"""


@pytest.fixture(scope="module")
def tiny(data_dir: Path) -> dict[str, Any]:
    """Fields of a tiny run, and of its records."""
    flags = [flag.removeprefix("--config.").split("=", 1) for flag in tiny_runs.FLAGS[1:]]
    return {**dict(flags), "data.dir": data_dir}


def step_of(weights: Path) -> int:
    origin = files.read(weights).origin
    assert origin is not None
    return origin.step


def test_the_example_of_the_page_runs_and_a_run_that_was_ended_goes_on(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended where the step is neither scored nor saved by itself."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for written, of_test in (
        ('{"num_steps": 1500, "eval.every": 100}', "tiny"),
        ('{"init.checkpoint"', '{**tiny, "init.checkpoint"'),
        ("print(step, metrics)", "told.append((step, metrics))"),
        ("print(tmanet_jax.evaluate(settings).overall.iou_C)", EVALUATES),
        ('metrics.get("eval/mIoU", 0) > 0.6', "step == 3"),
    ):
        assert written in example
        example = example.replace(written, of_test)
    write_video(
        tmp_path / "drive.mp4", (numbered(number, (64, 128)) for number in range(3)), "libx264"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told: list[tuple[int, Mapping[str, float]]] = []
    clips: list[str] = []
    there: dict[str, Any] = {"tiny": tiny, "told": told, "clips": clips}
    exec(example, there)
    run = there["run"]
    assert run.weights.parent.parent == tmp_path
    assert step_of(run.weights) == 3
    assert [step for step, metrics in told if "train/loss" in metrics] == [1, 2, 3]
    assert [step for step, metrics in told if "eval/mIoU" in metrics] == [3]
    scores = there["scores"]
    np.testing.assert_array_equal(scores.confusion_CxC, run.evaluation.confusion_CxC)
    assert tuple(clips) == scores.clip_ids
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size > 0

    workdir = run.weights.parent
    settings = tmanet_jax.read_settings(processes.PROJECT / "configs" / "demo.py", tiny)
    tmanet_jax.train(settings, workdir, on_metrics=there["show"])
    assert [step for step, metrics in told if "train/loss" in metrics] == list(range(1, 9))
    assert step_of(workdir / "last.safetensors") == 8


def test_a_run_that_is_ended_when_its_checkpoint_is_scored_trains_no_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {"num_steps": 8, "eval.every": 4}
    run = mock.MagicMock(
        settings=tmanet_jax.read_settings(processes.PROJECT / "configs" / "demo.py", fields)
    )
    run.log.stops, run.checkpoints.is_scored.return_value = False, False

    def scored(*_: object) -> str:
        run.log.stops = True
        return "scores"

    monkeypatch.setattr(loop, "_score", scored)
    monkeypatch.setattr(loop, "_Stepper", mock.Mock(side_effect=AssertionError("it trains")))
    state = mock.Mock(step=4)
    assert loop._train_to_the_end(run, state) == (state, "scores")


@pytest.mark.parametrize(("best", "trains"), [(4, False), (5, True)])
def test_a_run_whose_scores_no_longer_rise_trains_no_further(
    monkeypatch: pytest.MonkeyPatch, best: int, trains: bool
) -> None:
    fields = {"num_steps": 20, "eval.every": 4, "eval.patience": 4}
    run = mock.MagicMock(
        settings=tmanet_jax.read_settings(processes.PROJECT / "configs" / "demo.py", fields)
    )
    run.checkpoints.mean_iou.return_value, run.checkpoints.best_step.return_value = 0.3, best
    monkeypatch.setattr(loop, "_score", lambda *_: "scores")
    monkeypatch.setattr(loop, "_Stepper", mock.Mock(side_effect=InterruptedError("it trains")))
    state = mock.Mock(step=8)
    if trains:
        with pytest.raises(InterruptedError):
            loop._train_to_the_end(run, state)
    else:
        assert loop._train_to_the_end(run, state) == (state, "scores")


def test_bad_settings_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fields = {"data.render": False, "data.dir": tmp_path / "none"}
    config = processes.PROJECT / "configs" / "demo.py"
    with pytest.raises(UserError, match="none"):
        tmanet_jax.train(tmanet_jax.read_settings(config, fields))
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_or_wrong_is_named() -> None:
    config = processes.PROJECT / "configs" / "demo.py"
    with pytest.raises(UserError, match=r"Did you mean config\.num_steps"):
        tmanet_jax.read_settings(config, {"num_step": 5})
    with pytest.raises(UserError, match="a workdir, or a file of weights"):
        tmanet_jax.evaluate(tmanet_jax.read_settings(config))
