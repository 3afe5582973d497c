"""The comparison of fine-tuning with training from nothing: its data, its runs, its table."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import finetune
from benchmarks.__main__ import main
from tmanet_jax.data.classes import CITYSCAPES_CATEGORIES
from tmanet_jax.data.records import open_clips


def test_the_night_is_recorded_with_classes_of_its_own(tmp_path: Path) -> None:
    finetune.record_night(tmp_path, {"train": 1, "val": 1})
    records = open_clips(tmp_path, "train")
    assert sorted(records.info.classes.names) == sorted(CITYSCAPES_CATEGORIES.names)
    clip = records.read(0, range(finetune.MEMORY_RANGE, 0, -1))
    assert clip.frames_SxHxWx3.shape == (5, *finetune.SIZE, 3)
    assert set(np.unique(clip.labels_HxW)) <= {*range(7), 255}
    road = records.info.classes.names.index("flat")
    assert np.bincount(clip.labels_HxW[80:].ravel()).argmax() == road


def test_both_kinds_of_runs_are_trained_alike_and_their_scores_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: dict[str, tuple[str, Sequence[str]]] = {}

    def train(workdir: Path, config: str, flags: Sequence[str]) -> None:
        started[workdir.name] = config, flags
        workdir.mkdir(parents=True)
        scores = {"mIoU": 0.7 if "weights" in workdir.name else 0.4}
        others = dict.fromkeys(("split", "clips", "classes", "mIoU_of_clip"))
        (workdir / "metrics.json").write_text(json.dumps(scores | others))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finetune, "train", train)
    monkeypatch.setattr(finetune, "record_night", lambda *_: None)
    assert main(["finetune", "--seeds=2", "--steps=5"]) == 0
    assert started["weights-seed1"][1] == started["nothing-seed1"][1]
    assert started["weights-seed1"][0] == "configs/finetune.py:runs/demo"
    assert "--config.num_steps=5" in started["nothing-seed0"][1]
    told = capsys.readouterr().out
    assert "| weights | 70.0 (70.0 to 70.0) |" in told and "| nothing | 40.0" in told
