"""What the command says of an export before it is written."""

from pathlib import Path
from unittest import mock

import pytest

from tests.made.tiny_weights import write_weights
from tmanet_jax.export import command
from tmanet_jax.export.command import export_weights
from tmanet_jax.protocol import EvalConfig, Protocol


@pytest.mark.parametrize(
    ("size", "is_told"), [((64, 96), True), ((48, 72), False), ((32, 48), False)]
)
def test_a_size_that_predict_would_resize_is_told(
    size: tuple[int, int],
    is_told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = write_weights(
        tmp_path / "tiny.safetensors", protocol=Protocol("whole", train_height=32)
    )
    monkeypatch.setattr(command, "export_network", mock.Mock(return_value="as the network"))
    export_weights(
        weights,
        str(tmp_path / "out"),
        EvalConfig(),
        format="onnx",
        size=size,
        program="stream",
        streams=1,
        calibrate="",
        runtime="",
    )
    told = capsys.readouterr().out
    assert ("--size=32x48" in told) == is_told
    assert "as the network" in told
