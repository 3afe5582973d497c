"""The table of memories: its runs, how many go side by side, and what is scored of them."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import memory
from benchmarks.__main__ import main
from benchmarks.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from benchmarks.memory import MEMORIES, STUDIED, Run, train_all
from benchmarks.memory_scores import near_share
from data_prep.street.render import SnippetFrames
from data_prep.street.scene import ANNOTATED_FRAME
from tmanet_jax.data.clips import Clip
from tmanet_jax.errors import UserError
from tmanet_jax.inference.attention import MemoryRead


def test_the_study_varies_fields_that_there_are_in_workdirs_of_their_own() -> None:
    runs = [Run(name, 0) for name in MEMORIES | STUDIED]
    settings = [run.settings for run in runs]
    assert all(settings.count(one) == 1 for one in settings)
    assert len({run.workdir for run in runs}) == len(runs)


def test_runs_side_by_side_share_the_cores_and_one_that_fails_is_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = os.sched_getaffinity(0)
    begun: list[set[int]] = []

    def train(workdir: Path, config: str, flags: Sequence[str]) -> None:
        begun.append(os.sched_getaffinity(0))
        if "seed9" in workdir.name:
            raise UserError("it failed")
        time.sleep(0.01)

    monkeypatch.setattr(memory, "train", train)
    train_all([Run("T = 0", seed) for seed in range(3)], jobs=1)
    assert begun == [cores] * 3
    with pytest.raises(UserError, match="it failed"):
        train_all([Run("T = 0", seed) for seed in range(9, 1000)], jobs=len(cores))
    assert len(begun) < 900 and all(len(share) == 1 for share in begun[3:])
    assert os.sched_getaffinity(0) == cores


def test_runs_that_have_ended_are_shown_without_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "RUNS", tmp_path)
    for seed, mean_iou in ((0, 0.6), (2, 0.7)):
        groups = {"clean": {"mIoU": 0.8}, "degraded": {"mIoU": 0.5}}
        others = dict.fromkeys(("split", "clips", "classes", "mIoU_of_clip"))
        workdir = Run("T = 1", seed).workdir
        workdir.mkdir()
        (workdir / "metrics.json").write_text(
            json.dumps({"mIoU": mean_iou, "groups": groups, **others})
        )
    assert main(["memory", "--finished"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "| T = 1 | 2 | 65.0 (60.0 to 70.0) | 80.0 (80.0 to 80.0) | 50.0 (50.0 to 50.0) |" in rows
    assert "| T = 2 | 0 |  |  |  |" in rows
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "variant,seed,all frames,clean frames,spoilt frames",
        '"T = 1",0,60.00,80.00,50.00',
        '"T = 1",2,70.00,80.00,50.00',
    ]


@pytest.fixture(scope="module")
def clip() -> Clip:
    frames = SnippetFrames("val", 0, (64, 128), 0, False)
    numbers = (ANNOTATED_FRAME - 1, ANNOTATED_FRAME)
    frames_SxHxWx3 = np.stack([frames.draw(number).image_HxWx3 for number in numbers])
    return Clip("street", "clean", frames_SxHxWx3, np.zeros((64, 128), np.uint8))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_spoils_more_than_the_one_before(name: str, clip: Clip) -> None:
    spoilt = [corrupted(clip, name, severity, all_frames=True) for severity in SEVERITIES]
    error_of_frame_5xS = [
        np.square(one.frames_SxHxWx3 - clip.frames_SxHxWx3.astype(float)).mean((1, 2, 3))
        for one in spoilt
    ]
    assert (np.diff(error_of_frame_5xS, axis=0) > 0).all() and np.all(error_of_frame_5xS[0] > 1)
    alone = corrupted(clip, name, 5, all_frames=False)
    assert np.array_equal(alone.frames_SxHxWx3[:-1], clip.frames_SxHxWx3[:-1])
    assert np.array_equal(alone.frames_SxHxWx3[-1], spoilt[-1].frames_SxHxWx3[-1])


def test_what_is_read_of_the_same_place_is_told_of_each_memory_frame() -> None:
    key_12x12 = 50 * np.eye(12, dtype=np.float32)  # a position's key is like its own alone
    elsewhere_12x12 = np.roll(key_12x12, 6, axis=0)
    read = MemoryRead(
        labels_HxW=np.zeros((1, 1)),
        labels_alone_HxW=np.zeros((1, 1)),
        memory_share_hxw=np.zeros((3, 4)),
        query_key_NxK=key_12x12,
        memory_key_MxK=np.concatenate([elsewhere_12x12, key_12x12]),
        shape=(2, 3, 4),
        scale=1.0,
        neighbourhood=None,
    )
    np.testing.assert_allclose(near_share(read), [0, 0.5], atol=0.01)
