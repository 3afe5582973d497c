"""All of the compile check but the compiler: its words, its numbers, its refusals."""

import importlib.util
from typing import Any, cast

import pytest

from benchmarks import compile
from benchmarks.__main__ import main
from benchmarks.chips import (
    CHIPS,
    DCN_SECONDS,
    EFFICIENCY,
    EXAMPLES,
    GIB,
    HOP_SECONDS,
    collective_seconds,
    on_more_chips,
    parse_topology,
    peak_flops,
    project,
)
from benchmarks.compile import Compiled, Shortage
from benchmarks.hlo import Collective
from benchmarks.programs import Program
from tests import processes
from tmanet_jax.errors import UserError

V5E = parse_topology("v5e:4x4")
GRADIENTS = Collective("all-reduce", 16, 100, 60_000_000, ("bf16", "f32"))
HALO = Collective("collective-permute", 2, 30, 1_000_000, ("bf16",))
STEP = Program(
    cast(Any, None),
    {"data": 16, "space": 1},
    16,
    ("clip", "of 3 frames 769x769"),
    flops=16 * 5 * 10**12,
)
FITS = Compiled(
    {"parameters": 128 * 2**20, "activations, temporaries": 6 * GIB},
    traffic=35_000_000_000,
    collectives=(GRADIENTS, HALO),
    products={"bf16": 300},
)


def test_a_program_that_fits_is_a_row_and_larger_topologies_are_extrapolated() -> None:
    larger = [parse_topology("v5e:16x16")]
    found = compile.findings_of("cityscapes, train", "float32", V5E, STEP, FITS, larger)
    of_16, of_256 = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
    assert of_16["chips"] == "16 v5e:4x4 (data 16)"
    assert of_16["a call"] == "16 clips of 3 frames 769x769"
    assert of_16["peak, GiB a chip"] == "6.12 of 16"
    assert of_16["TFLOP a chip"] == of_256["TFLOP a chip"] == "5.00"
    assert of_16["collectives a chip"].startswith("100 all-reduce among 16, 57.22 MiB (bf16, f32);")
    assert of_256["chips"] == "256 v5e:16x16 (data 256)"
    assert of_256["a call"] == "256 clips of 3 frames 769x769"
    assert str(found).count("extrapolated from v5e:4x4") == 3
    assert "activations, temporaries 6,144.0; peak 6,272.0; the chip has 16,384" in str(found)
    assert "Convolutions and products, kernels apart: 300 of bf16." in str(found)


def test_what_does_not_fit_says_by_how_much_and_what_to_change() -> None:
    outcome = Shortage("20.00G", "15.00G")
    text = str(compile.findings_of("camvid, train", "float32", V5E, STEP, outcome))
    assert "does not fit: needs 20.00G of 15.00G" in text
    for change in ("more chips", "mesh.space", "remat", "accumulate", "bfloat16"):
        assert change in text


def test_the_compilers_refusal_is_read() -> None:
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (25.04G) exceeds available HBM (15.75G). HLO module: jit_f."
    )
    assert compile.parse_shortage(message) == Shortage("25.04G", "15.75G")
    assert compile.parse_shortage("RESOURCE_EXHAUSTED: scoped vmem") is None


@pytest.mark.parametrize("name", ["", "v5e", "v9:2x2", "v5e:2x2x2", "v4:4x4", "v5e:0x4", "v5e:4x"])
def test_an_unknown_topology_is_refused_with_some_that_exist(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "--config=configs/demo.py", f"--topology={name}"]) == 2
    assert "v5e:4x4" in capsys.readouterr().err


def test_the_topologies_that_messages_name_exist() -> None:
    named = [parse_topology(name) for name in EXAMPLES.split(", ")]
    assert {topology.name.split(":")[0] for topology in named} == set(CHIPS)


def test_without_the_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -r requirements-tpu\.txt"):
        compile.topology_devices(V5E)
    assert (processes.PROJECT / "requirements-tpu.txt").is_file()


def test_collectives_take_their_ring_and_their_hops() -> None:
    hops = 2 * (3 + 3)
    expected = 2 * 15 / 16 * 60e6 / 90e9 + 100 * hops * HOP_SECONDS
    assert collective_seconds(GRADIENTS, V5E) == pytest.approx(expected)
    assert collective_seconds(HALO, V5E) == pytest.approx(1e6 / 90e9 + 30 * HOP_SECONDS)
    gather = Collective("all-gather", 2, 1, 90_000_000_000, ("f32",))
    assert collective_seconds(gather, V5E) == pytest.approx(0.5 + HOP_SECONDS)


def test_a_step_is_its_slower_half_and_its_collectives() -> None:
    projection = project(V5E, flops=197e12, traffic=819e9, collectives=[])
    assert projection.step == projection.compute == pytest.approx(1 / EFFICIENCY)
    assert projection.memory == pytest.approx(1.0)
    assert projection.scaling == 1.0
    slowed = project(V5E, flops=1e12, traffic=819e9, collectives=[GRADIENTS])
    assert slowed.step == pytest.approx(1.0 + collective_seconds(GRADIENTS, V5E))
    assert slowed.scaling == pytest.approx(1.0 / slowed.step)


def test_on_more_chips_only_the_groups_of_all_grow() -> None:
    pairs = Collective("all-gather", 2, 1, 10, ("f32",))
    larger = parse_topology("v5e:16x16")
    grown, same_pairs, same_halo = on_more_chips([GRADIENTS, pairs, HALO], V5E, larger)
    assert grown.group_size == 256
    assert (grown.count, grown.bytes) == (GRADIENTS.count, GRADIENTS.bytes)
    assert (same_pairs, same_halo) == (pairs, HALO)
    assert collective_seconds(grown, larger) > collective_seconds(GRADIENTS, V5E)


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
def test_peaks_are_known_by_the_devices_name(kind: str, flops: float | None) -> None:
    assert peak_flops(kind) == flops


def test_slices_are_connected_by_the_hosts_network() -> None:
    topology = parse_topology("v5e:4x4", slices=2)
    assert topology.num_chips == 32
    row = dict(
        zip(
            compile.COLUMNS,
            compile.findings_of("cityscapes, train", "bfloat16", topology, STEP, FITS).rows[0],
            strict=True,
        )
    )
    assert row["chips"] == "2 slices of 16 v5e:4x4 (data 16)"
    sent = Collective("send", 2, 3, 31_250_000, ("f32",))
    assert collective_seconds(sent, topology) == pytest.approx(0.01 + 3 * DCN_SECONDS)
    with pytest.raises(UserError, match="--slices is 2: no bandwidth between slices of v4:2x2x4"):
        parse_topology("v4:2x2x4", slices=2)
