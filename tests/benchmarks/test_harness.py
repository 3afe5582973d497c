"""Sides are checked, take turns and become rows; memory is measured."""

import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.harness import Race, Side, Turn, Work
from tmanet_jax.errors import UserError

SIZE = 80_000_000


def constant(number: float) -> Side:
    return Side(lambda: (np.ones(3), np.array([number])), lambda call: 5_000_000)


def test_rivals_that_agree_are_measured_and_one_that_fails_is_a_row():
    def fail():
        raise RuntimeError("no compiler\nat all")

    rivals = {"close": constant(1.0005), "broken": Side(fail)}
    found = harness.race("ours", constant(1), rivals, turns=3, tolerance=1e-3)
    assert list(found.taken) == ["ours", "close"]
    assert found.best_rival() == "close"
    assert found.difference == pytest.approx(5e-4, rel=0.01)
    rows = harness.table_rows(found, Work(1e12, 2, None))
    assert [row[0] for row in rows] == ["ours", "close", "broken"]
    assert all(len(row) == len(harness.columns()) for row in rows)
    assert rows[0][-2] == "5"
    assert rows[2][1] == "FAILED: RuntimeError: no compiler"


@pytest.mark.parametrize("number", [1.002, np.nan])
def test_a_rival_that_computes_something_else_is_refused(number):
    with pytest.raises(UserError, match="'other' computes something else than 'ours'"):
        harness.race("ours", constant(1), {"other": constant(number)}, turns=1, tolerance=1e-3)


def test_every_call_that_is_checked_counts():
    numbers = itertools.chain([1.0, 1.0], itertools.repeat(2.0))
    ours = Side(lambda: (np.ones(1),), lambda call: 0)
    drifting = ours._replace(call=lambda: (np.array([next(numbers)]),))
    with pytest.raises(UserError, match=r"'drifting' .* differ by 1\.0e\+00"):
        harness.race("ours", ours, {"drifting": drifting}, turns=1, tolerance=0.1, checks=3)


def test_ratios_and_shares_are_those_of_the_medians():
    taken = {
        "ours": [Turn(2.0, 1), Turn(4.0, 1), Turn(3.0, 1)],
        "slow": [Turn(9.0, 1)] * 3,
        "fast": [Turn(6.0, 1)] * 3,
    }
    found = Race(taken, dict.fromkeys(taken), {}, 0.0)
    assert found.best_rival() == "fast"
    assert found.ratio("fast", "ours") == 2
    assert found.ratio("ours", "fast") == 0.5
    ours = harness.table_rows(found, Work(6e12, 12, 4e12))[0]
    assert ours[1:3] == ("3", "2.5 to 3.5")
    assert ours[4:8] == ("4", "2", "50.0%", "-")


def peaks_of_a_new_process() -> tuple[int | None, int | None]:
    large = harness.host_peak_bytes(lambda: np.ones(SIZE, np.uint8))
    return large, harness.host_peak_bytes(lambda: None)


def test_the_memory_of_a_call_is_what_it_adds_at_its_highest():
    """In a process of its own: one that has freed memory before holds some of it still."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        large, nothing = process.submit(peaks_of_a_new_process).result()
    assert large is not None
    assert 0.95 * SIZE < large < 1.5 * SIZE
    assert (nothing or 0) < 0.2 * SIZE
