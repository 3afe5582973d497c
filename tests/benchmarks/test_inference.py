"""The benchmark of the forward pass, on a small network."""

import pytest

from benchmarks import inference
from tests.benchmarks.test_train import small_settings


def test_backbone_and_clip_are_measured_and_what_bfloat16_changes_is_told():
    findings = inference.measure(small_settings((16, 24)), (16, 24), 2, turns=2)
    assert [row[0] for row in findings.rows] == [inference.BACKBONE, inference.CLIP]
    (told,) = (note for note in findings.notes if note.startswith("bfloat16 against float32"))
    assert "arg-max agrees at" in told


@pytest.mark.torch
def test_torch_makes_the_same_features_and_logits_in_every_way_that_needs_no_compiler(monkeypatch):
    ways = {name: way for name, way in inference.TORCH_WAYS.items() if way.compiler == "eager"}
    monkeypatch.setattr(inference, "TORCH_WAYS", ways)
    findings = inference.measure(small_settings((16, 24)), (41, 57), 2, turns=1, with_torch=True)
    assert len(findings.rows) == 2 * (1 + len(ways) + 1)
    assert not [row for row in findings.rows if "FAILED" in row[1]]
    assert [target.target for target in findings.targets] == [1.0]
