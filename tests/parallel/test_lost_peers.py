"""A process of a run is killed, or hangs: the others end in time, say which, and leave nothing."""

import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from tests import joined_runs
from tests.joined_runs import JoinedRun
from tmanet_jax.parallel.peers import EXIT_STATUS

pytestmark = pytest.mark.drills

TIMEOUT_S = 15
"""Of the runs here. A process whose machine is busy must not look lost."""


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_the_other_one_ends_in_time_and_names_it(
    data_dir: Path, tmp_path: Path, number: signal.Signals, lost: int
) -> None:
    left, port = 1 - lost, joined_runs.free_port()
    worker = [sys.executable, "-m", "tests.workers.joined", str(data_dir), f"localhost:{port}", "2"]
    with joined_runs.started_together(
        tmp_path, [[*worker, str(index), str(TIMEOUT_S)] for index in range(2)]
    ) as run:
        run.wait_until_written(run.outputs[left], "step 3: ")
        children = psutil.Process(run.processes[left].pid).children(recursive=True)
        assert children  # they prepare batches
        begun = time.monotonic()
        run.processes[lost].send_signal(number)
        ended = run.end(left)
        assert time.monotonic() - begun < 2 * TIMEOUT_S + 5
        pid = run.processes[lost].pid
    assert ended.status == EXIT_STATUS, ended.output
    assert f"\nProcess {lost} (" in ended.output and f"pid {pid})" in ended.output
    assert f"\nProcess {left} ends too. Start all processes again" in ended.output
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_process_that_fails_tells_the_others_why(data_dir: Path, tmp_path: Path) -> None:
    """Records may lie elsewhere for each; here those of the second process are not there."""
    with joined_runs.started(
        tmp_path,
        data_dir,
        f"--workdir={tmp_path / 'run'}",
        own=(f"--config.data.dir={data_dir}", f"--config.data.dir={tmp_path / 'nowhere'}"),
    ) as run:
        first, second = run.end(0), run.end(1)
    assert second.status == 2
    assert "There are no records at" in second.output
    assert first.status == EXIT_STATUS
    assert "Process 1 (" in first.output and "There are no records at" in first.output


def disturbed(root: Path, trouble: str, timeout_s: int) -> AbstractContextManager[JoinedRun]:
    """Two processes, of which the second one is in trouble."""
    worker = [sys.executable, "-m", "tests.workers.disturbed"]
    port = joined_runs.free_port()
    return joined_runs.started_together(
        root,
        [
            [*worker, f"localhost:{port}", "2", str(index), str(timeout_s), trouble]
            for index in range(2)
        ],
    )


def test_a_process_that_stops_just_before_the_beat_of_jax_is_named(tmp_path: Path) -> None:
    """What jax itself does of a silent process is an abort, with its stack."""
    with disturbed(tmp_path, "stops", timeout_s=6) as run:
        ended = run.end(0)
    assert ended.status == EXIT_STATUS, ended.output
    assert "\nProcess 1 (" in ended.output and "has not answered for 6 s" in ended.output


def test_a_process_out_of_memory_says_so_at_once(tmp_path: Path) -> None:
    begun = time.monotonic()
    with disturbed(tmp_path, "memory", timeout_s=100) as run:
        second, first = run.end(1), run.end(0)
    assert time.monotonic() - begun < 100
    assert second.status == 1 and first.status == EXIT_STATUS
    assert "another process" not in second.output
    assert "Process 1 (" in first.output and "RESOURCE_EXHAUSTED: Out of memory" in first.output


def test_a_process_that_does_not_come_is_missed(data_dir: Path, tmp_path: Path) -> None:
    with joined_runs.started(
        tmp_path,
        data_dir,
        f"--workdir={tmp_path / 'run'}",
        "--start-timeout=3",
        "--num-processes=3",
    ) as run:
        for index in range(2):
            ended = run.end(index)
            assert ended.status == EXIT_STATUS, ended.output
            assert "3 processes did not come together at localhost:" in ended.output
