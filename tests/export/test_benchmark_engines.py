"""The benchmark of engines, on the smallest network that there is."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.engines import COLUMNS, POINTS_LOST, SPEED_UPS
from tests.made import tiny_runs
from tests.made.small_networks import untrained
from tmanet_jax import settings
from tmanet_jax.export import cache
from tmanet_jax.weights import load

pytestmark = pytest.mark.export

NAMES = [
    *("jax float32", "jax bfloat16", "onnxruntime float32"),
    *("openvino float32", "openvino bfloat16", "openvino int8"),
]


def measured(tmp_path: Path, *words: str) -> dict:
    found = tmp_path / "found.json"
    fields = [flag for flag in tiny_runs.FLAGS if not flag.startswith("--config.eval")]
    assert main(["engines", *fields, "--size=64x128", "--turns=2", f"--json={found}", *words]) == 0
    return json.loads(found.read_text())


def test_every_engine_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "DIRECTORY", tmp_path / "exports")
    found = measured(tmp_path, "--stages")
    rows = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in found["rows"]}
    assert list(rows) == NAMES
    for row in rows.values():
        assert float(row["ms"]) > 0 and float(row["CPU ms"]) > 0 and float(row["on disk, MB"]) > 0
        assert row["mIoU"] == "-"
    assert float(rows["openvino float32"]["labels as ours"].removesuffix("%")) > 99
    assert len(found["targets"]) == len(SPEED_UPS) + 2
    told = capsys.readouterr().out
    for stage in ("decode", "draw", "encode", "resize, segment: jax float32", "all: openvino int8"):
        assert f"| {stage} |" in told


def test_a_trained_network_is_scored_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "DIRECTORY", tmp_path / "exports")
    records, weights = tmp_path / "records", tmp_path / "tmanet.safetensors"
    tiny_runs.render_records(records)
    run = settings.from_config(tiny_runs.config(records))
    load.save(weights, untrained(run.model), protocol=run.evaluation.protocol)
    words = [f"--config.data.dir={records}", f"--config.init.checkpoint={weights}"]
    found = measured(tmp_path, *words)
    of_float32, *others = (float(row[-1]) for row in found["rows"])
    assert len(others) == len(NAMES) - 1
    assert all(0 < other == pytest.approx(of_float32, abs=5) for other in others)
    lost = {target["name"].split()[5]: target["value"] for target in found["targets"]}
    assert len(found["targets"]) == len(POINTS_LOST), lost
