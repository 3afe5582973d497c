"""Two starts of a program are timed to its first step."""

import sys

import pytest

from benchmarks import start
from tmanet_jax.errors import UserError
from tmanet_jax.training.logs import Progress, RunLog

TRAINS = """
import os, sys, time
from pathlib import Path
introduction, first_step = sys.argv[1].splitlines()
workdir = Path(sys.argv[-1].split("=")[1])
workdir.mkdir()
with (workdir / "train.log").open("w", buffering=1) as log:
    print(introduction, file=log)
    time.sleep(0.2)
    Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).mkdir(exist_ok=True)
    print(first_step, file=log)
    time.sleep(600)
"""
"""Logs the lines that it is given."""


def test_both_starts_are_timed_to_the_log_of_the_first_step_and_share_a_cache(tmp_path):
    with RunLog(tmp_path, 0, ()) as log:
        log.message("introduction")
        log.line(Progress(0, 2).point(1, "loss 2.5"))
    lines = (tmp_path / "train.log").read_text()
    directory = tmp_path / "starts"
    directory.mkdir()
    seconds = start.measure([sys.executable, "-c", TRAINS, lines], directory)
    assert len(seconds) == len(start.STARTS)
    assert all(0.2 < each < 100 for each in seconds)
    assert sorted(path.name for path in directory.iterdir()) == ["0", "1", "2", "cache", "unused"]
    assert "second start" in str(start.findings_of("made up", seconds))


def test_a_run_that_ends_before_its_first_step_is_told(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('There are no records')"]
    with pytest.raises(UserError, match=r"ended before its first step: There are no records"):
        start.measure(command, tmp_path)
