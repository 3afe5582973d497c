"""8 virtual devices, and 2, compute what 1 computes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests import processes, tiny_runs


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[float]]]:
    data_dir = tmp_path_factory.mktemp("data") / "records"
    tiny_runs.render_records(data_dir)
    done = subprocess.run(
        [sys.executable, "-m", "tests.multidevice_worker", str(data_dir)],
        cwd=processes.PROJECT,
        env=processes.environment(num_devices=8),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("mesh", [1, 2])
def test_losses_and_statistics_equal_those_of_one_device(
    results: list[dict[str, list[float]]], mesh: int
) -> None:
    np.testing.assert_allclose(results[mesh]["losses"], results[0]["losses"], rtol=1e-5)
    np.testing.assert_allclose(
        results[mesh]["statistics"], results[0]["statistics"], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("mesh", [1, 2])
def test_every_clip_is_scored_once(results: list[dict[str, list[float]]], mesh: int) -> None:
    """5 clips on 8 devices: the batch is filled up, and what fills it does not count."""
    one, many = np.array(results[0]["confusion"]), np.array(results[mesh]["confusion"])
    np.testing.assert_array_equal(many.sum(1), one.sum(1))
    assert np.abs(many - one).sum() <= 0.001 * one.sum()
