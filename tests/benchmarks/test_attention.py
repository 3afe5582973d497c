"""The benchmark of the memory read: its sizes, what it compares, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import attention
from benchmarks.attention import Case, ReadSide
from configs import cityscapes
from tmanet_jax import settings
from tmanet_jax.errors import UserError

CASE = Case(30, 60, 8, 20, 0.5, "chunked", "float32")


def test_the_case_is_a_training_clip_of_the_configuration():
    config = cityscapes.get_config()
    case = attention.case_of(settings.from_config(config))
    assert case == Case(9409, 18818, 64, 256, 1.0, "auto", "float32")


def test_a_network_without_memory_is_refused():
    run = settings.from_config(cityscapes.get_config())
    head = dataclasses.replace(run.model.head, num_memory=0)
    model = dataclasses.replace(run.model, head=head)
    with pytest.raises(UserError, match="num_memory is 0"):
        attention.case_of(dataclasses.replace(run, model=model))


def test_the_report_holds_each_side_and_target(monkeypatch):
    monkeypatch.setattr(attention, "_peak_mib", lambda make, case: 100.0)
    peers = {attention.PEER_WHOLE: attention.jax_side}
    report = attention.measure(CASE, turns=2, peers=peers)
    values = json.loads(report.to_json())
    assert [row[0] for row in values["rows"]] == ["JAX", "peer, whole matrix"]
    assert [(target["target"], target["at_least"]) for target in values["targets"]] == [
        (110, False),
        (0.65, False),
    ]
    assert values["targets"][0]["met"]


@pytest.mark.parametrize("value", [1.1, np.nan])
def test_a_side_that_computes_something_else_is_refused(value):
    def side(value: float) -> ReadSide:
        return ReadSide(lambda: np.ones(3), lambda: (np.ones(3), np.full(3, value)))

    with pytest.raises(UserError, match="'other' computes something else than 'one'"):
        attention.check_agreement({"one": side(1), "other": side(value)}, 0.01)


def holding_64_mib(case: Case, inputs) -> ReadSide:
    del inputs
    size = 64 * 2**20 if case == CASE else 1
    return ReadSide(lambda: np.ones(1), lambda: (np.ones(size, np.uint8),))


def test_memory_is_what_a_call_holds_above_its_inputs():
    """In a process of its own: one that has freed memory before holds some of it still."""
    peak = attention._peak_mib(holding_64_mib, CASE)
    assert 64 <= peak < 100


@pytest.mark.torch
def test_torch_reads_the_same():
    from benchmarks.torch_attention import PEERS  # torch is optional

    inputs = attention._random_inputs(CASE)
    makers = {"ours": attention.jax_side, **PEERS}
    sides = {name: make(CASE, inputs) for name, make in makers.items()}
    assert attention.check_agreement(sides, 1e-5) < 1e-5
    for side in sides.values():
        np.testing.assert_allclose(side.forward(), side.both()[0], atol=1e-5)
