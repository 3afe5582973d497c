"""One GPU in minutes: what is over the budget waits, what has a result is kept, rehearsals."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from benchmarks import attention, gpu, gpu_parts, kernels, suites, train
from benchmarks.__main__ import main
from benchmarks.findings import Findings
from benchmarks.gpu_parts import REHEARSAL
from benchmarks.harness import columns
from tests.benchmarks.test_suites import FINDINGS
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.settings import Settings

NAMES = ("first", "second", "third")
RUNS = {name: f"gpu --part={name}" for name in NAMES}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Parts take the seconds that they are told, or their limit."""
    clock = SimpleNamespace(now=0.0, seconds=dict.fromkeys(NAMES, 60.0), limits={})
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def measure(name: str, command: list[str], out: Path, timeout_s: float) -> str:
        assert command[-1] == f"--part={name}"
        clock.limits[name] = timeout_s
        clock.now += min(clock.seconds[name], timeout_s)
        if clock.seconds[name] <= timeout_s:
            (out / f"{name}.json").write_text(FINDINGS)
        (out / f"{name}.log").write_text("a row")
        return ""

    monkeypatch.setattr(suites, "measure", measure)
    return clock


def test_what_is_over_the_budget_is_named_and_the_next_call_goes_on(
    tmp_path: Path, clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = dict.fromkeys(NAMES, 100.0)
    clock.seconds["second"] = 500.0
    gpu.perform(RUNS, NAMES, tmp_path, limits, budget_s=170)
    assert clock.limits == {"first": 100, "second": 100}
    assert "third: not measured, the budget of 170 s ends" in capsys.readouterr().out
    told = (tmp_path / "README.md").read_text()
    assert (told.count("a row"), told.count("Not measured yet.")) == (2, 1)

    clock.limits.clear()
    clock.seconds["second"] = 30.0
    gpu.perform(RUNS, NAMES, tmp_path, limits, budget_s=75)
    assert clock.limits == {"second": 75, "third": 45}  # a part ends with the budget


def test_programs_are_kept_where_they_can_be_carried_from(tmp_path: Path) -> None:
    folders = gpu.environment(tmp_path)
    assert folders["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "jax")
    assert "JAX_COMPILATION_CACHE_DIR" not in gpu.environment(None)


def test_without_a_gpu_it_is_told_how_to_rehearse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = SimpleNamespace(stdout="cpu\n", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert main(["gpu", f"--out={tmp_path}"]) == 2
    assert "JAX finds no GPU here, but cpu" in capsys.readouterr().err


def test_a_rehearsal_of_the_read_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_peak", lambda make, sizes, call: None)
    assert main(["gpu", "--rehearse", "--part=attention", f"--json={tmp_path}/a.json"]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["title"].startswith("A REHEARSAL at tiny sizes. Memory read, 25 queries x 50 keys")
    assert [row[0] for row in found["rows"][:2]] == [attention.OURS, "JAX, chunked attention"]
    assert not found["targets"]


def test_the_largest_batch_is_found_by_what_a_clip_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(settings: Settings) -> SimpleNamespace:
        return SimpleNamespace(planned_bytes=lambda: 100 + 10 * settings.batch_size)

    def measure(settings: Settings, turns: int) -> Findings:
        if settings.batch_size > 18:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return Findings("", columns(), [("JAX", "0.1", *"-------")])

    monkeypatch.setattr(train, "TrainSide", planned)
    monkeypatch.setattr(train, "measure", measure)
    found = gpu_parts.measure_largest_batch(REHEARSAL._replace(memory_bytes=305), tmp_path)
    assert [row[:2] for row in found.rows] == [("20 clips", "does not fit"), ("18 clips", "0.1")]
    assert {len(row) for row in found.rows} == {len(found.columns)}


def test_a_trace_becomes_a_table_of_kernels(tmp_path: Path) -> None:
    rows, busy = kernels.table([("small", 0.25), ("a|b", 1.0), ("a|b", 1.25)], calls=2)
    assert rows == [("a/b", "1", "1.12e+03", "90.0%"), ("small", "0.5", "125", "10.0%")]
    assert busy == 1.25

    x = jnp.ones((300, 300))
    product = jax.jit(lambda x: x @ x)
    traced = kernels.measure(lambda: jax.block_until_ready(product(x)), 3, tmp_path)
    assert traced.rows
    assert list(tmp_path.rglob("perfetto_trace.json.gz"))


def test_a_rehearsal_reads_what_the_network_in_torch_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", f"--config={REHEARSAL.config}", "--torch"]) == 2
    assert "add --config.model.neighbourhood=None" in capsys.readouterr().err
    head = REHEARSAL.settings().model.head
    assert isinstance(head, TMAHeadConfig) and head.neighbourhood is None
