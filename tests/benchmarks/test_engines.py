"""The benchmark of engines: a row and targets of each side, and the stages of a prediction."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import engines, stages
from benchmarks.__main__ import main
from benchmarks.findings import three_digits
from tests.made import tiny_runs
from tests.made.small_networks import SMALL, untrained
from tmanet_jax import settings
from tmanet_jax.data.classes import numbered_classes
from tmanet_jax.data.codec import Size
from tmanet_jax.export import cache
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.weights import load

SVG = "{http://www.w3.org/2000/svg}"
NAMES = [
    *("jax float32", "jax bfloat16", "onnxruntime float32"),
    *("openvino float32", "openvino bfloat16", "openvino int8"),
]
CLASSES = numbered_classes(5)


def test_speed_is_asked_of_a_random_network() -> None:
    def step() -> np.ndarray:
        return np.zeros((4, 4), np.uint8)

    sides = {name: engines.Side(step, None, 1_000_000, None) for name in NAMES[:-1]}
    network = engines.Workload(untrained(SMALL), CLASSES, EvalConfig())
    found = engines.measure(network, (4, 4), sides, {NAMES[-1]: "no such package"}, turns=3)
    rows = {row[0]: dict(zip(engines.COLUMNS, row, strict=True)) for row in found.rows}
    assert list(rows) == NAMES
    assert rows["jax bfloat16"]["labels as ours"] == "100.0%"
    assert rows["openvino int8"]["ms"] == "FAILED: no such package"
    assert [target.target for target in found.targets] == [1.9, 1.0, 1.0]


def test_each_stage_has_a_row() -> None:
    segmenter = Segmenter(untrained(SMALL), CLASSES)
    street = list(np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), np.uint8))
    found = stages.measure({"jax float32": segmenter}, CLASSES, street, Size(48, 80))
    assert [row[0] for row in found.rows] == [
        *("encode", "draw", "decode", "resize, segment: jax float32", "all: jax float32")
    ]
    assert all(float(row[1]) > 0 for row in found.rows)


def test_each_part_of_the_network_has_a_row() -> None:
    street = list(np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), np.uint8))
    found = stages.of_sizes(untrained(SMALL), street, [Size(48, 80)], turns=1)
    assert [row[0] for row in found.rows] == [
        *("backbone", "encoders", "read", "bottleneck, classifier", "up-sampling, arg-max"),
        *("encode", "draw", "decode"),
    ]
    assert all(float(row[1]) > 0 for row in found.rows)
    drawn = ElementTree.fromstring(stages.picture(found))
    widths = [float(part.get("width", 0)) for part in drawn.iter(SVG + "rect") if len(part)]
    times = np.array([float(row[1]) for row in found.rows])
    np.testing.assert_allclose(np.divide(widths, sum(widths)), times / times.sum(), atol=1e-3)


@pytest.mark.parametrize(
    ("value", "told"), [(0.000226, "0.000226"), (99.97, "100"), (999.7, "1000"), (18_724, "18724")]
)
def test_large_numbers_have_no_exponent(value: float, told: str) -> None:
    assert three_digits(value) == told


@pytest.mark.export
def test_a_trained_network_is_scored_by_every_engine(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "DIRECTORY", tmp_path / "exports")
    weights, found = (tmp_path / name for name in ("w.safetensors", "json"))
    run = settings.from_config(tiny_runs.config(data_dir))
    load.save(weights, untrained(run.model), protocol=run.evaluation.protocol)
    words = [f"--config.data.dir={data_dir}", f"--config.init.checkpoint={weights}"]
    words += ["--size=64x128", "--turns=2", f"--json={found}"]
    assert main(["engines", *tiny_runs.FLAGS, *words]) == 0
    report = json.loads(found.read_text())
    rows = {row[0]: dict(zip(engines.COLUMNS, row, strict=True)) for row in report["rows"]}
    assert list(rows) == NAMES
    of_float32 = float(rows["jax float32"]["mIoU"])
    for row in rows.values():
        assert float(row["ms"]) > 0 and float(row["on disk, MB"]) > 0
        assert 0 < float(row["mIoU"]) == pytest.approx(of_float32, abs=5)
    assert rows["openvino float32"]["mIoU"] == rows["jax float32"]["mIoU"]
    assert [target["target"] for target in report["targets"]] == [0.2, 1.0]
