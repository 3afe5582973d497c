"""Records by Apache Beam, with two worker processes: those of one process, whatever happens."""

import dataclasses
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from data_prep import vspw
from data_prep.records import beam, writer
from data_prep.records.writer import write_records
from tests.made.small_clips import NoiseClip, NoiseFrame, plan_of
from tests.made.small_vspw import frame_path, write_vspw
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
