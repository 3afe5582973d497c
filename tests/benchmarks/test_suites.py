"""The measurements that are programs of their own: curves, starts, and everything on a GPU."""

import json
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks import cpu, curves, gpu, line_chart, start, suite
from benchmarks.__main__ import main, parser_of_all
from benchmarks.curves import Measured
from benchmarks.line_chart import Chart
from benchmarks.suite import Run
from configs import demo
from tests import processes
from tmanet_jax.errors import UserError

REPORT = json.dumps(
    {"targets": [{"name": "s", "value": 0.5, "target": 1.0, "at_least": False, "met": True}]}
)
WRITES = f"import sys; print('told'); open(sys.argv[1].split('=')[1], 'w').write('''{REPORT}''')"


@pytest.mark.parametrize("largest", [0.013, 0.2, 1.0, 1.9, 7, 99, 1234])
def test_axes_end_at_the_first_round_number_that_holds_everything(largest):
    found = line_chart.ticks(largest)
    assert found[0] == 0
    assert found[-1] >= largest > found[-2]
    assert 3 <= len(found) - 1 <= 6


def test_curves_are_drawn_where_their_points_are():
    rising = [(1.0, 1.0), (4.0, 4.0)]
    empty = line_chart.draw(Chart("", "", "", {"": [(4.0, 4.0)]}))
    drawn = line_chart.draw(Chart("", "", "", {"": rising}))
    rows, columns = np.nonzero((drawn != empty).any(-1))
    assert np.corrcoef(rows, columns)[0, 1] < -0.99


def test_the_picture_of_curves_holds_time_and_where_it_is_known_memory():
    known = [Measured(t, side, 0.1 * side, 10.0, side**2) for t in (1, 2) for side in (64, 128)]
    unknown = [point._replace(megabytes=float("nan")) for point in known]
    both, seconds = curves.picture(known), curves.picture(unknown)
    assert both.shape[1] == 2 * seconds.shape[1]


def test_curves_refuse_what_is_no_list_of_numbers(capsys):
    assert main(["curves", "--sides=97,big"]) == 2
    assert "--sides is '97,big'" in capsys.readouterr().err


def test_what_failed_takes_nothing_with_it_and_what_ended_is_not_repeated(tmp_path):
    runs = [
        Run("works", ("-c", WRITES)),
        Run("breaks", ("-c", "import sys; sys.exit('out of memory')")),
        Run("hangs", ("-c", "import time; time.sleep(60)"), timeout=0.2, writes_json=False),
    ]
    suite.perform(runs, tmp_path)
    told = (tmp_path / "README.md").read_text()
    assert "| works | s | 0.5 | at most 1 | yes |" in told
    assert "FAILED: out of memory" in told
    assert "FAILED: took more than 0 s" in told
    marks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.log")}
    suite.perform(runs, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.log")} == marks
    (tmp_path / "breaks.log").unlink()
    suite.perform(runs, tmp_path)
    assert "FAILED: out of memory" in (tmp_path / "README.md").read_text()


def test_measurements_are_chosen_by_name():
    assert [run.name for run in suite.chosen(gpu.RUNS, "start,curves")] == ["start", "curves"]
    with pytest.raises(UserError, match="'nothing' is no measurement"):
        suite.chosen(gpu.RUNS, "nothing")
    for runs in (cpu.RUNS, gpu.RUNS):
        assert len({run.name for run in runs}) == len(runs)


@pytest.mark.parametrize("arguments", [run.arguments for run in (*cpu.RUNS, *gpu.RUNS)])
def test_the_command_lines_are_those_of_a_command(arguments):
    fields = [word for word in arguments[1:] if not word.startswith("--workdir=")]
    if arguments[0] == "-m":
        options, fields = parser_of_all().parse_known_args(arguments[2:])
        assert (processes.PROJECT / options.config).is_file()
    known = dict(flattened(demo.get_config())) | {"config": None}
    for word in fields:
        assert word.split("=")[0].removeprefix("--").removeprefix("config.") in known


def flattened(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


TRAINS = """
import os, sys, time
from pathlib import Path
from tmanet_jax.train.logs import RunLog
workdir = Path(sys.argv[-1].split("=")[1])
workdir.mkdir()
with RunLog(workdir, 0) as log:
    log.message("introduction")
    time.sleep(0.2)
    (Path(os.environ["JAX_COMPILATION_CACHE_DIR"])).mkdir(exist_ok=True)
    log.scalars(1, {"train/loss": 2.5})
    time.sleep(600)
"""


def test_both_starts_are_timed_to_the_log_of_the_first_step_and_share_a_cache(tmp_path):
    seconds = start.measure([sys.executable, "-c", TRAINS], tmp_path)
    assert len(seconds) == len(start.STARTS)
    assert all(0.2 < each < 100 for each in seconds)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "cache", "unused"]
    assert "second start" in str(start.report("made up", seconds))


def test_a_run_that_ends_before_its_first_step_is_told(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('There are no records')"]
    with pytest.raises(UserError, match=r"ended before its first step: There are no records"):
        start.measure(command, tmp_path)
