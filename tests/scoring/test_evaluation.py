"""Every clip is scored once, and the same, for any batch size, devices and processes."""

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import processes
from tests.made import tiny_runs
from tmanet_jax.data.classes import numbered_classes
from tmanet_jax.scoring.evaluate import Tally


def started(
    data_dir: Path, meshes: list[tuple[int, int]], *distributed: str, num_devices: int
) -> AbstractContextManager[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.workers.evaluation", str(data_dir), json.dumps(meshes)]
    return processes.started([*command, *distributed], num_devices=num_devices)


def evaluations(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The sums of each group and the mIoU of every clip, for each mesh."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in output.splitlines() if line.startswith('{"sums')]


@pytest.fixture(scope="module")
def alone(data_dir: Path) -> list[dict[str, Any]]:
    """One device with clip after clip, and 3 devices with 2 clips each."""
    with started(data_dir, [(1, 1), (3, 2)], num_devices=3) as process:
        return evaluations(process)


@pytest.mark.multiprocess
def test_devices_and_batch_sizes_change_nothing(alone: list[dict[str, Any]]) -> None:
    """No batch size, number of devices or processes here divides the 5 clips."""
    one, many = alone
    assert one["sums"].keys() == {"clean", "degraded"}
    assert all(np.shape(confusion) == (19, 19) for confusion in one["sums"].values())
    assert len(one["mIoU"]) == tiny_runs.NUM_EVAL
    assert max(one["mIoU"]) > 0
    assert many == one


@pytest.mark.multiprocess
def test_two_processes_score_every_clip_once_and_both_know_all(
    data_dir: Path, alone: list[dict[str, Any]]
) -> None:
    coordinator = processes.free_address()
    with (
        started(data_dir, [(2, 1)], coordinator, "2", "0", num_devices=2) as first,
        started(data_dir, [(2, 1)], coordinator, "2", "1", num_devices=2) as second,
    ):
        for process in (first, second):
            assert evaluations(process) == alone[:1]


def test_sums_are_exact_beyond_32_bits_and_no_matrix_of_a_clip_is_kept() -> None:
    num_pixels = 3 * 2**31
    tally = Tally(numbered_classes(2), ["a", "b", "c"], ["", "far", ""])
    tally.add(0, np.array([[num_pixels, 0], [1, 0]]))
    tally.add(2, np.array([[num_pixels, 0], [0, 0]]))
    found = tally.evaluation()
    np.testing.assert_array_equal(found.confusion_CxC, [[2 * num_pixels, 0], [1, 0]])
    assert found.groups.keys() == {"far"}
    assert found.mean_iou_N[2] == 1
    sizes = [array.size for array in vars(tally).values() if isinstance(array, np.ndarray)]
    assert sorted(sizes) == [3, 2 * 2 * 2]
