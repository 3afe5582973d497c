"""The benchmarks of training and of the forward pass, on the smallest networks."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import comparison, inference, train
from benchmarks.chips import peak_flops
from benchmarks.comparison import Comparison, Side, Work
from benchmarks.compilation import compile_twice
from benchmarks.harness import Turn
from benchmarks.train import Case
from configs import cityscapes, demo
from tests.made.small_networks import SMALL
from tmanet_jax import settings
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.errors import UserError
from tmanet_jax.models.backbones import ResNetConfig

TINY = dataclasses.replace(
    SMALL,
    backbone=ResNetConfig(depth=18, deep_stem=False, width=4, blocks=(1, 1, 1, 1)),
    head=dataclasses.replace(SMALL.head, num_memory=1),
)
CASE = Case((16, 24), 2)
CACHE_DIR = "jax_compilation_cache_dir"


@pytest.fixture(scope="module")
def run():
    return dataclasses.replace(settings.from_config(demo.get_config()), model=TINY)


def constant(number: float) -> Side:
    return Side(lambda: np.array([number]), lambda call: 5_000_000)


def test_peers_that_agree_are_measured_and_one_that_fails_is_a_row():
    def fail():
        raise RuntimeError("no compiler\nat all")

    peers = {"close": constant(1.0005), "broken": Side(fail)}
    found = comparison.compare("ours", constant(1), peers, turns=3, tolerance=1e-3)
    assert list(found.taken) == ["ours", "close"]
    assert found.best_peer() == "close"
    assert found.difference == pytest.approx(5e-4)
    rows = comparison.table_rows(found, Work(1e12, 2, None))
    assert [row[0] for row in rows] == ["ours", "close", "broken"]
    assert all(len(row) == len(comparison.COLUMNS) for row in rows)
    assert rows[0][-2] == "5"
    assert rows[2][1] == "FAILED: RuntimeError: no compiler"


@pytest.mark.parametrize("number", [1.002, np.nan])
def test_a_peer_that_computes_something_else_is_refused(number):
    with pytest.raises(UserError, match="'other' computes something else than 'ours'"):
        comparison.compare(
            "ours", constant(1), {"other": constant(number)}, turns=1, tolerance=1e-3
        )


def test_ratios_and_shares_are_those_of_the_medians():
    taken = {
        "ours": [Turn(2.0, 1), Turn(4.0, 1), Turn(3.0, 1)],
        "slow": [Turn(9.0, 1)] * 3,
        "fast": [Turn(6.0, 1)] * 3,
    }
    found = Comparison(taken, dict.fromkeys(taken), {}, 0.0)
    assert found.best_peer() == "fast"
    assert found.times_ours("fast") == 2
    assert found.ours_in_times_of("fast") == 0.5
    ours = comparison.table_rows(found, Work(6e12, 12, 4e12))[0]
    assert ours[1:3] == ("3", "2.5 to 3.5")
    assert ours[5:9] == ("4", "2", "50.0%", "-")


def test_the_memory_of_a_call_is_what_it_adds_at_its_highest():
    size = 80_000_000
    peak = comparison.host_peak_bytes(lambda: np.ones(size, np.uint8).sum())
    assert peak is not None
    assert 0.95 * size < peak < 1.5 * size
    assert (comparison.host_peak_bytes(lambda: None) or 0) < 0.2 * size


def test_a_program_is_compiled_once_and_then_read_from_the_cache():
    before = getattr(jax.config, CACHE_DIR)
    matrix = jnp.ones((64, 64))
    done = compile_twice(lambda: jax.jit(lambda x: x @ x).lower(matrix))
    np.testing.assert_array_equal(done.program(matrix), np.full((64, 64), 64))
    assert done.flops == pytest.approx(2 * 64**3, rel=0.01)
    assert "1.000 times" in done.told("A product", 2 * 64**3)
    assert getattr(jax.config, CACHE_DIR) == before


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", None),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("cpu", None),
    ],
)
def test_peaks_are_known_by_the_devices_name(kind, flops):
    assert peak_flops(kind) == flops


def test_a_cpu_takes_less_than_the_configurations_sizes_unless_asked():
    run = settings.from_config(cityscapes.get_config())
    nothing: dict[str, Any] = {"size": None, "batch_size": None, "is_full": False}
    assert train.case_of(run, **nothing) == Case((257, 257), 2)
    assert train.case_of(run, **nothing | {"is_full": True}) == Case((769, 769), 8)
    asked = train.case_of(run, **nothing | {"size": (64, 32), "batch_size": 3})
    assert asked == Case((64, 32), 3)
    assert inference.case_of(run, **nothing) == Case((256, 512), 1)
    assert inference.case_of(run, **nothing | {"is_full": True}) == Case((769, 769), 1)


def test_random_batches_have_every_class_and_ignored_pixels(run):
    batch = train.random_batch(run, CASE)
    assert batch.frames.shape == (2, 2, 16, 24, 3)
    assert set(np.unique(batch.labels)) == {*range(TINY.head.num_classes), IGNORE}


def test_the_step_that_is_measured_trains(run):
    step = train.TrainSide(train.with_case(run, CASE), CASE)
    first, *_, last = (step.step()[0] for _ in range(6))
    assert last < first
    loss = np.array([1.0])
    report = train.measure_step(
        run, CASE, step, {"peer": Side(lambda: loss * first)}, turns=2, tolerance=np.inf
    )
    values = json.loads(report.to_json())
    assert [row[0] for row in values["rows"]] == [train.OURS, "peer"]
    assert [target["target"] for target in values["targets"]] == [1.1]
    assert "2 clips of T=1, 16x24, ResNet-18, float32" in values["title"]


def test_the_forward_passes_are_the_networks(run):
    def peer(config, tensors, frames):
        assert frames.shape == (2, 2, 16, 24, 3)
        assert config == TINY
        return inference.PeerSides({}, {})

    report = inference.measure(run, CASE, turns=2, peer=peer)
    names = [row[0] for row in report.rows]
    assert names == [inference.BACKBONE, inference.CLIP]
    (told,) = (note for note in report.notes if note.startswith("bfloat16 against float32"))
    assert "arg-max agrees at" in told
