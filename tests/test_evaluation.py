"""Every clip is scored once, and the same, for any batch size, devices and processes."""

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from tests import processes, tiny_runs


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 clips are scored: no batch size, number of devices or processes below divides them."""
    path = tmp_path_factory.mktemp("data") / "records"
    tiny_runs.render_records(path)
    return path


def started(
    data_dir: Path, meshes: list[tuple[int, int]], *distributed: str, num_devices: int
) -> AbstractContextManager[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.evaluation_worker", str(data_dir), json.dumps(meshes)]
    return processes.started([*command, *distributed], num_devices=num_devices)


def confusions(process: subprocess.Popen[str]) -> list[np.ndarray]:
    """The matrix of every clip, for each mesh."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return [np.array(json.loads(line)) for line in output.splitlines() if line.startswith("[[")]


@pytest.fixture(scope="module")
def alone(data_dir: Path) -> list[np.ndarray]:
    """One device with clip after clip, and 3 devices with 2 clips each."""
    with started(data_dir, [(1, 1), (3, 2)], num_devices=3) as process:
        return confusions(process)


def test_devices_and_batch_sizes_change_nothing(alone: list[np.ndarray]) -> None:
    one, many = alone
    assert one.shape == (tiny_runs.NUM_EVAL, 19, 19)
    assert (one.sum((1, 2)) > 0).all()
    np.testing.assert_array_equal(many, one)


def test_two_processes_score_every_clip_once_and_both_know_all(
    data_dir: Path, alone: list[np.ndarray]
) -> None:
    coordinator = processes.free_address()
    with (
        started(data_dir, [(2, 1)], coordinator, "2", "0", num_devices=2) as first,
        started(data_dir, [(2, 1)], coordinator, "2", "1", num_devices=2) as second,
    ):
        for process in (first, second):
            (confusion,) = confusions(process)
            np.testing.assert_array_equal(confusion, alone[0])
