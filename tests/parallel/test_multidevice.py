"""8 virtual devices, however they share the work, compute what 1 computes, and nothing twice."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import processes
from tests.workers import multidevice

pytestmark = pytest.mark.multiprocess

Result = dict[str, Any]

QUICKLY_COMPILED = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
}


@pytest.fixture(scope="module")
def results(data_dir: Path) -> list[Result]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.multidevice", str(data_dir)],
        cwd=processes.PROJECT,
        env=processes.environment(num_devices=8) | QUICKLY_COMPILED,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


MESHES = range(1, len(multidevice.MESHES))
MEMORY_ARRAYS, LOGITS = 2, 2


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_and_statistics_equal_those_of_one_device(results: list[Result], mesh: int) -> None:
    np.testing.assert_allclose(results[mesh]["losses"], results[0]["losses"], rtol=1e-5)
    np.testing.assert_allclose(
        results[mesh]["statistics"], results[0]["statistics"], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("mesh", MESHES)
def test_every_kind_of_loss_is_of_the_whole_batch(results: list[Result], mesh: int) -> None:
    np.testing.assert_allclose(
        results[mesh]["of_every_kind"], results[0]["of_every_kind"], rtol=1e-5
    )


@pytest.mark.parametrize("mesh", MESHES)
def test_every_clip_is_scored_once(results: list[Result], mesh: int) -> None:
    """5 clips on 8 devices: the batch is filled up, and what fills it does not count."""
    one, many = np.array(results[0]["confusion"]), np.array(results[mesh]["confusion"])
    np.testing.assert_array_equal(many.sum(1), one.sum(1))
    assert np.abs(many - one).sum() <= 0.001 * one.sum()


def test_clips_that_are_divided_need_sums_alone(results: list[Result]) -> None:
    """Of gradients, statistics and losses; with one device nothing is exchanged."""
    assert kinds(results[0]) == set()
    assert kinds(results[1]) == {"all-reduce"}


@pytest.mark.parametrize("mesh", [2, 3])
def test_images_that_are_shared_exchange_rows_and_gather_the_memory_once(
    results: list[Result], mesh: int
) -> None:
    """What is gathered: keys and values of the memory, and the logits that are up-sampled."""
    assert kinds(results[mesh]) <= {"all-reduce", "all-gather", "collective-permute"}
    gathers = [one for one in results[mesh]["collectives"] if one["kind"] == "all-gather"]
    assert 0 < sum(one["count"] for one in gathers) <= 2 * (MEMORY_ARRAYS + LOGITS)
    assert all(one["in_unknown_loops"] == 0 for one in results[mesh]["collectives"])


def test_nothing_is_computed_by_two_devices(results: list[Result]) -> None:
    """Shared between two, images cost a device what a clip of its own does, but for the edges."""
    assert results[2]["flops"] <= 1.4 * results[1]["flops"]


def kinds(result: Result) -> set[str]:
    return {one["kind"] for one in result["collectives"]}
