"""The benchmark of the memory read: its sizes, what it compares, and what it refuses."""

import dataclasses

import numpy as np
import pytest

from benchmarks import attention
from benchmarks.attention import ReadSide, ReadSizes
from configs import cityscapes
from tmanet_jax import settings
from tmanet_jax.errors import UserError
from tmanet_jax.models.tma_head import TMAHeadConfig

SIZES = ReadSizes(30, 60, 8, 20, 0.5, "chunked", "float32")


def test_the_sizes_are_those_of_a_training_clip_of_the_configuration():
    sizes = attention.sizes_of(settings.from_config(cityscapes.get_config()))
    assert sizes == ReadSizes(9409, 18818, 64, 256, 1.0, "auto", "float32")


def test_a_network_without_memory_is_refused():
    run = settings.from_config(cityscapes.get_config())
    model = dataclasses.replace(run.model, head=TMAHeadConfig(num_memory=0))
    with pytest.raises(UserError, match="num_memory is 0"):
        attention.sizes_of(dataclasses.replace(run, model=model))


def test_each_side_has_two_rows_and_a_target(monkeypatch):
    monkeypatch.setattr(attention, "_peak", lambda make, sizes, call: 100 * 2**20)
    rivals = {attention.WHOLE_MATRIX: attention.jax_side}
    findings = attention.measure(SIZES, turns=2, rivals=rivals)
    names = ["JAX", attention.WHOLE_MATRIX]
    assert [row[0] for row in findings.rows] == [
        *names,
        *(f"{name}, with gradients" for name in names),
    ]
    assert [(target.target, target.at_least) for target in findings.targets] == [
        (110, False),
        (0.65, False),
    ]
    assert findings.targets[0].met


def holding_64_mib(sizes: ReadSizes, inputs) -> ReadSide:
    del inputs
    size = 64 * 2**20 if sizes == SIZES else 1
    return ReadSide(lambda: (np.ones(1),), lambda: (np.ones(size, np.uint8),))


def test_memory_is_what_a_call_holds_above_its_inputs():
    """In a process of its own: one that has freed memory before holds some of it still."""
    peak = attention._peak(holding_64_mib, SIZES, lambda: None)
    assert peak is not None
    assert 63 <= peak / 2**20 < 100  # the kernel counts pages in batches


@pytest.mark.torch
def test_torch_reads_the_same(monkeypatch):
    monkeypatch.setattr(attention, "_peak", lambda make, sizes, call: None)
    findings = attention.measure(SIZES, turns=1, rivals=attention.TORCH_WAYS)
    assert len(findings.rows) == 8
    assert not [row for row in findings.rows if "FAILED" in row[1]]
