"""Exports are loaded and compared by what writes them; here, what they are and what is refused."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests import in_process
from tests.made.small_networks import untrained
from tests.made.tiny_weights import write_weights
from tests.models.test_tmanet import small_config
from tests.whole_frames import segment_whole
from tmanet_jax.data.classes import numbered_classes
from tmanet_jax.errors import UserError
from tmanet_jax.export import folder as export_folder
from tmanet_jax.export import network as runner
from tmanet_jax.export import onnx_file, verify
from tmanet_jax.export.folder import export_network
from tmanet_jax.export.names import Format
from tmanet_jax.export.verify import NUM_FRAMES
from tmanet_jax.models.backbone import BackboneConfig
from tmanet_jax.models.convnext import ConvNeXtConfig
from tmanet_jax.models.mobilenet import MobileNetV2Config
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.psp_head import PSPHeadConfig
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.protocol import Protocol

pytestmark = pytest.mark.export

SIZE = (33, 49)
SLIDE = Protocol("slide", crop_size=(24, 32), stride=(16, 24), memory_stride=2)


@pytest.fixture(scope="module")
def model():
    return untrained(small_config(align_corners=False))


def export(model, output: Path, **options: Any):
    options = {"format": "onnx", "size": SIZE} | options
    protocol = options.pop("protocol", Protocol())
    return export_network(model, numbered_classes(5), protocol, output, **options)


@pytest.mark.parametrize(
    ("format", "protocol"),
    [("onnx", Protocol()), ("onnx", SLIDE), ("openvino", SLIDE), ("stablehlo", Protocol())],
    ids=str,
)
def test_the_step_is_verified_and_told(
    model, format: Format, protocol: Protocol, tmp_path: Path
) -> None:
    output = tmp_path / "network"
    agreement = export(model, output, format=format, protocol=protocol, streams=2)
    assert agreement.calls == NUM_FRAMES
    assert agreement.pixels == NUM_FRAMES * 2 * SIZE[0] * SIZE[1]
    about = json.loads((output / "export.json").read_text())
    assert about["verified"]["largest_difference"] == agreement.largest_difference < 1e-4
    assert list(about["classes"]) == list(numbered_classes(5).names)
    assert list(tmp_path.iterdir()) == [output]
    assert not {"video.npz", "result.npz"} & {path.name for path in output.iterdir()}


def test_frames_of_any_size_go_into_stablehlo(model, tmp_path: Path) -> None:
    output = tmp_path / "network"
    agreement = export(model, output, format="stablehlo", size="any", streams=2)
    assert agreement.pixels == NUM_FRAMES * 2 * 136 * 96
    network = runner.Network(output)
    assert network(np.zeros((2, 40, 72, 3), np.uint8)).shape == (2, 40, 72)
    with pytest.raises(ValueError, match=r"exported for uint8 of shape \(2, 40, 72, 3\)"):
        network(np.zeros((2, 44, 72, 3), np.uint8))
    wrong: tuple[dict[str, Any], ...] = ({"format": "onnx"}, {"protocol": SLIDE})
    for options in wrong:
        with pytest.raises(UserError, match="Frames of any size are for format stablehlo"):
            export(model, tmp_path / "other", **{"format": "stablehlo", "size": "any"} | options)


def test_the_whole_clip_is_the_networks(model, tmp_path: Path) -> None:
    output = tmp_path / "network"
    export(model, output, program="clip")
    clip_BxSxHxWx3 = np.random.default_rng(1).integers(0, 256, (1, 3, *SIZE, 3), np.uint8)
    expected = jax.jit(lambda clip: segment_whole(model, normalize(clip)).argmax(-1))(
        clip_BxSxHxWx3
    )
    np.testing.assert_array_equal(runner.Network(output)(clip_BxSxHxWx3), expected)


@pytest.mark.parametrize(
    "backbone",
    [
        MobileNetV2Config(0.1),
        ResNetConfig(18, width=4, blocks=(1, 1, 1, 1), avg_down=True),
        ConvNeXtConfig(8, (1, 1, 1, 1), 16),
    ],
    ids=str,
)
def test_a_head_without_memory_on_another_backbone(
    backbone: BackboneConfig, tmp_path: Path
) -> None:
    config = small_config(backbone=backbone, head=PSPHeadConfig(5, channels=8), align_corners=False)
    agreement = export(untrained(config), tmp_path / "network")
    assert agreement.calls == NUM_FRAMES and agreement.largest_difference < 1e-4


def test_the_readme_runs_without_this_package(model, tmp_path: Path) -> None:
    output = tmp_path / "network"
    export(model, output, streams=2)
    text = (output / "README.md").read_text()
    lines = text.split("```")[1].removeprefix("python\n")
    frames = f"import numpy as np; frames = np.zeros((2, {SIZE[0]}, {SIZE[1]}, 3), np.uint8)\n"
    told = "\nimport sys; print(labels.shape, 'jax' in sys.modules, 'tmanet_jax' in sys.modules)"
    program = f"import sys; sys.path.insert(0, {str(output)!r})\n{frames}{lines}{told}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"(2, {SIZE[0]}, {SIZE[1]}) False False\n"


def test_the_runner_imports_nothing_of_this_package() -> None:
    tree = ast.parse(Path(runner.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert not any(name.startswith("tmanet_jax") for name in names)


def test_an_export_that_differs_leaves_nothing(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_folder, "onnx_of", _wrong(onnx_file.onnx_of))
    with pytest.raises(UserError, match=r"The export is not the network.*Nothing was kept"):
        export(model, tmp_path / "network")
    assert not list(tmp_path.iterdir())


def _wrong(write):
    """A file whose weights are a little off."""

    def write_wrong(program):
        import onnx
        from onnx import numpy_helper

        file = onnx.load_from_string(write(program))
        kernel = next(x for x in file.graph.initializer if len(x.dims) == 4)
        kernel.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(kernel), kernel.name))
        return file.SerializeToString()

    return write_wrong


def test_an_export_that_cannot_be_loaded_leaves_nothing(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_folder, "onnx_of", lambda program: b"no graph")
    with pytest.raises(UserError, match="The export does not run"):
        export(model, tmp_path / "network")
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_within_jax_tells_the_error(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = "import jax; jax.jit(lambda x: {}['no such array'])(1)"
    monkeypatch.setattr(verify, "_RUN", breaks)
    with pytest.raises(UserError, match=r"does not run \(KeyError: 'no such array'\)"):
        export(model, tmp_path / "network")
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(model, tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    with pytest.raises(UserError, match="is there already"):
        export(model, tmp_path / "network")


def test_frames_of_another_size_are_refused(model, tmp_path: Path) -> None:
    export(model, tmp_path / "network")
    network = runner.Network(tmp_path / "network")
    with pytest.raises(ValueError, match=r"exported for uint8 of shape \(1, 33, 49, 3\)"):
        network(np.zeros((1, 33, 50, 3), np.uint8))


def test_the_command_exports_weights_and_predicts(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "tmanet.safetensors")
    output = tmp_path / "network"
    run = ["export", "--config=configs/demo.py", f"--checkpoint={weights}"]
    words = [*run, "--format=onnx", f"--output={output}", "--size=32x64"]
    done = in_process.called(words)
    assert done.returncode == 0, done.stderr
    assert f"{output}: 12 frames in a process of their own" in done.stdout
    for wrong, told in (
        ("--size=32", "'32' is not height x width"),
        ("--size=any", "Frames of any size are for format stablehlo"),
        ("--streams=0", "'0' is no whole number from 1 on"),
        ("--format=tflite", "--format is 'tflite': choose stablehlo or onnx or openvino"),
        ("--program=frame", "--program is 'frame': choose stream or clip"),
        (f"--checkpoint={tmp_path / 'missing.safetensors'}", "missing.safetensors"),
        (f"--calibrate={tmp_path / 'missing.mp4'}", "missing.mp4"),
        (f"--output={tmp_path}", "is there already"),
    ):
        done = in_process.called([*words, f"--output={tmp_path / 'other'}", wrong])
        assert done.returncode == 2, wrong
        assert told in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"tmanet.safetensors", "network"}


def test_openvino_in_8_bits_is_near(model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (2, 3, *SIZE, 3), np.uint8)
    output = tmp_path / "network"
    agreement = export(model, output, format="openvino", calibration=clips)
    assert 1e-4 < agreement.largest_difference < 0.2 * agreement.largest_logit
    assert json.loads((output / "export.json").read_text())["precision"] == "int8"
    assert "int8. Compared with float32 after writing: 12" in (output / "README.md").read_text()
    assert b"FakeQuantize" in (output / "program.xml").read_bytes()
    names = {path.name for path in output.iterdir()}
    assert names == {"README.md", "export.json", "network.py", "program.bin", "program.xml"}


def test_8_bits_are_refused_elsewhere(model, tmp_path: Path) -> None:
    clips = [np.zeros((1, *SIZE, 3), np.uint8)]
    with pytest.raises(UserError, match="8 bits are for format openvino"):
        export(model, tmp_path / "network", calibration=clips)


def test_a_device_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text('{"format": "stablehlo", "file": "program.stablehlo"}')
    with pytest.raises(ValueError, match="device is 'abacus': choose one of cpu"):
        runner.Network(tmp_path, device="abacus")
