"""Small networks beside each other: their runs, and their table."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import networks
from benchmarks.__main__ import main


def test_all_are_trained_alike_and_scores_stand_beside_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: dict[str, Sequence[str]] = {}

    def train(workdir: Path, config: str, flags: Sequence[str]) -> None:
        started[config] = flags
        workdir.mkdir(parents=True)
        groups = {"clean": {"mIoU": 0.7}, "degraded": {"mIoU": 0.5}}
        others = dict.fromkeys(("split", "clips", "classes", "mIoU_of_clip"))
        (workdir / "metrics.json").write_text(json.dumps({"mIoU": 0.6, "groups": groups, **others}))

    monkeypatch.setattr(networks, "RUNS", tmp_path)
    monkeypatch.setattr(networks, "train", train)
    monkeypatch.setattr(
        networks, "frame_milliseconds", lambda models, size, turns: dict.fromkeys(models, 12.3)
    )
    assert main(["networks", "--steps=5"]) == 0
    demo, mobile = started["configs/demo.py"], started["configs/tmanet_mobile.py"]
    assert demo == mobile and "--config.num_steps=5" in demo
    rows = [
        line for line in capsys.readouterr().out.splitlines() if "60.0 | 70.0 | 50.0 | 12.3" in line
    ]
    assert [row.split()[1] for row in rows] == ["demo", "tmanet_mobile"]
