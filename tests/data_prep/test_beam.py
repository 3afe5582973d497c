"""Records by Apache Beam, with two worker processes: those of one process, whatever happens."""

import dataclasses
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from data_prep import vspw
from data_prep.records import beam, writer
from data_prep.records.writer import write_records
from tests.made import tiny_runs
from tests.made.small_clips import NoiseClip, NoiseFrame, plan_of
from tests.made.small_vspw import NUMBERS, frame_path, write_vspw
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.errors import UserError

TWO_WORKERS = ("--runner=DirectRunner", "--direct_num_workers=2")


@pytest.fixture(autouse=True)
def four_frames_a_shard(monkeypatch):
    monkeypatch.setattr(writer, "FRAMES_PER_SHARD", 4)


def files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


@pytest.mark.beam
def test_records_are_those_of_one_process_and_a_torn_frame_is_told(tmp_path, capsys):
    source = write_vspw(tmp_path / "VSPW_480p")

    def prepare(name, *options):
        return vspw.main([f"--source={source}", f"--out={tmp_path / name}", *options])

    torn = frame_path(source, "9_v", 240)
    content = torn.read_bytes()
    torn.write_bytes(b"")
    assert prepare("beam", *TWO_WORKERS) == 2
    told = capsys.readouterr().err
    assert f"{torn} is empty" in told
    torn.write_bytes(content)
    assert prepare("beam", *TWO_WORKERS) == 0
    assert prepare("threads") == 0
    assert files(tmp_path / "beam") == files(tmp_path / "threads")


@pytest.mark.beam
def test_twenty_videos_of_124_classes_train_are_scored_and_handed_in(tmp_path, capsys):
    splits = ["train"] * 14 + ["val"] * 4 + ["test"] * 2
    videos = {f"{index}_v": split for index, split in enumerate(splits)}
    source = write_vspw(tmp_path / "VSPW_480p", videos, [f"class {i}" for i in range(124)])
    frame_path(source, "3_v", NUMBERS[1]).write_bytes(b"")
    records, workdir = tmp_path / "records", tmp_path / "run"
    options = (f"--source={source}", f"--out={records}", "--splits=train,val,test")
    assert vspw.main([*options, "--on-error=skip", *TWO_WORKERS]) == 0
    assert "Skipped 2 clips of train:\n  3_v_00000231: " in capsys.readouterr().out
    run = (
        "--config=configs/vspw.py",
        "--config.eval.stride=(48,80)",
        "--config.num_steps=2",
        f"--workdir={workdir}",
    )
    modes = {
        "train": ("--config.eval.every=2",),
        "eval": (f"--submit={workdir}/val",),
        "consistency": (),
        "eval ": (f"--submit={workdir}/test", "--config.data.eval_split=test"),
    }
    for mode, flags in modes.items():
        done = tiny_runs.called(records, mode.strip(), *run, *flags)
        assert done.returncode == 0, done.stderr
    found = json.loads((workdir / "metrics.json").read_text())
    assert found["clips"] == 20 and len(found["classes"]) == 124
    assert json.loads((workdir / "consistency/metrics.json").read_text())["temporal"]["mTC"] > 0
    for split, count in (("val", 20), ("test", 10)):
        assert len(list((workdir / split).glob("*_v/*.png"))) == count


@dataclasses.dataclass(frozen=True)
class SlowFrame(NoiseFrame):
    """Noise that takes a tenth of a second to load."""

    def load(self) -> np.ndarray:
        time.sleep(0.1)
        return super().load()


@pytest.mark.beam
def test_what_a_killed_worker_had_in_hand_is_done_again(tmp_path, monkeypatch):
    plan = plan_of([NoiseClip(number) for number in range(10)])
    slow = [SlowFrame(**vars(frame)) for frame in plan.frames]
    plans = {"train": dataclasses.replace(plan, frames=slow)}
    killed: list[int] = []
    starts: list[int] = []

    def kill_one() -> None:
        if not killed:
            of_here = psutil.Process().children(recursive=True)
            workers = [one for one in of_here if "sdk_worker_main" in " ".join(one.cmdline()[:4])]
            workers[-1].kill()
            killed.append(workers[-1].pid)

    def run_pipeline(flags: Any, work: Any, names: Any, on_poll: Any) -> int:
        starts.append(len(names))
        return real(flags, work, names, on_poll)

    real = beam._run_pipeline
    monkeypatch.setattr(beam, "_run_pipeline", run_pipeline)
    by_two = beam.writer_by("DirectRunner", TWO_WORKERS[1:])
    write_records(tmp_path / "beam", CITYSCAPES, 3, plans, kill_one, write_shards=by_two)
    write_records(tmp_path / "threads", CITYSCAPES, 3, plans)
    assert killed and len(starts) == 2 and 0 < starts[1] < starts[0] == 10
    assert files(tmp_path / "beam") == files(tmp_path / "threads")


def test_beam_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -r requirements-beam\.txt"):
        beam.writer_by("DirectRunner", ())
