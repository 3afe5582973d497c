"""All of the compile check but the compiler: its words, its numbers, its refusals."""

import importlib.util
from pathlib import Path

import pytest

from benchmarks import compile
from benchmarks.chips import CHIPS, EXAMPLES, GIB, parse_topology
from benchmarks.compile import (
    Compiled,
    CompileRequest,
    CompileResult,
    Shortage,
    parse_shortage,
    request_of,
)
from benchmarks.compile_report import publish, report
from benchmarks.hlo import Collective
from benchmarks.projection import (
    EFFICIENCY,
    HOP_SECONDS,
    collective_seconds,
    on_more_chips,
    project,
)
from configs import demo
from tests import processes
from tests.benchmarks.small_compile_results import FITS, GRADIENTS, HALO, TOO_LARGE, result
from tmanet_jax import settings
from tmanet_jax.errors import UserError

V5E = parse_topology("v5e:4x4")


@pytest.mark.parametrize("outcome", [FITS, TOO_LARGE])
def test_a_result_survives_its_file(
    outcome: Compiled | Shortage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    publish(result(outcome), file)
    assert CompileResult.from_json(file.read_text()) == result(outcome)
    assert capsys.readouterr().out == report(result(outcome)) + "\n"
    with pytest.raises(UserError, match="cannot be written"):
        publish(result(outcome), tmp_path / "nowhere" / "result.json")


def test_the_report_adds_up() -> None:
    total = sum(size for _, size in FITS.memory.arguments) + 1_000_000 + 4_000_000
    assert FITS.memory.total == total + 6 * GIB + 200_000_000
    text = report(result())
    assert f"{FITS.memory.total / 2**20:,.1f} MiB of 16,384: fits" in text
    assert "100 all-reduce among 16, 57.22 MiB (bf16, f32)" in text
    assert "5 TFLOP by formula" in text
    assert "projected step" in text


def test_what_does_not_fit_says_by_how_much_and_what_to_change() -> None:
    text = report(result(TOO_LARGE))
    assert "needs 20.00 of 15.00 GiB on each chip, 5.00 too much" in text
    for change in ("more chips", "mesh.space", "remat", "accumulate", "bfloat16"):
        assert change in text


def test_the_compilers_refusal_is_read() -> None:
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (25.04G) exceeds available HBM (15.75G). HLO module: jit_f."
    )
    assert parse_shortage(message) == Shortage(round(25.04 * GIB), round(15.75 * GIB))
    assert parse_shortage("RESOURCE_EXHAUSTED: scoped vmem") is None


@pytest.mark.parametrize("name", ["", "v5e", "v9:2x2", "v5e:2x2x2", "v4:4x4", "v5e:0x4", "v5e:4x"])
def test_an_unknown_topology_is_refused_with_some_that_exist(name: str) -> None:
    with pytest.raises(UserError, match="v5e:4x4"):
        parse_topology(name)


def test_the_topologies_that_messages_name_exist() -> None:
    named = [parse_topology(name) for name in EXAMPLES.split(", ")]
    assert {topology.chip.name for topology in named} == set(CHIPS)


def test_clips_per_chip_set_the_batch() -> None:
    config = demo.get_config()
    run = settings.from_config(config)

    def request(frame_size: str, clips_per_chip: int | None = None) -> CompileRequest:
        return request_of(
            run,
            topology="v5p:2x2x4",
            program="train",
            frame_size=frame_size,
            clips_per_chip=clips_per_chip,
        )

    assert request("720x960").run.batch_size == config.batch_size
    assert request("720x960").frame_size == (720, 960)
    assert request("720x960", clips_per_chip=2).run.batch_size == 32
    with pytest.raises(UserError, match="--frame-size is '720'"):
        request("720")


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
    projection = project(V5E, flops=197e12, memory_traffic=819e9, collectives=[])
    assert projection.step == projection.compute == pytest.approx(1 / EFFICIENCY)
    assert projection.memory == pytest.approx(1.0)
    assert projection.scaling == 1.0
    slowed = project(V5E, flops=1e12, memory_traffic=819e9, collectives=[GRADIENTS])
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
