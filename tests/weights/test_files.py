"""Files of weights without torch: what they say of themselves, what is refused, conversion."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.made.small_networks import SMALL, assert_same, backbone_of, random_tensors
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.errors import UserError
from tmanet_jax.models.psp_head import PSPHeadConfig
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weights import conversion, files, load
from tmanet_jax.weights.weight_file import WeightFile


def test_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"ends in \.safetensors or \.pth"):
        files.read(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="no file of weights at"):
        files.read(tmp_path / "absent.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not tensors")
    with pytest.raises(UserError, match="not a safetensors file, or is damaged"):
        files.read(damaged)
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"embedding": np.zeros(3, np.float32)}, other)
    with pytest.raises(UserError, match="no network of this project"):
        conversion.convert(other, tmp_path / "copy.safetensors")


def test_a_resnet_of_three_stages_is_refused(tmp_path, tensors):
    kept = {n: t for n, t in backbone_of(tensors).items() if not n.startswith("layer4")}
    files.write(tmp_path / "source.safetensors", WeightFile(kept))
    with pytest.raises(UserError, match=r"four stages: blocks \(1, 2, 1, 0\)"):
        conversion.convert(tmp_path / "source.safetensors", tmp_path / "copy.safetensors")


def test_a_configuration_of_another_version_is_refused(tmp_path, tensors):
    path = tmp_path / "model.safetensors"
    metadata = {"tmanet_jax": json.dumps({"model": {"tentacles": 8}})}
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises(UserError, match="tentacles is unknown"):
        files.read(path)


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path, model):
    with pytest.raises(UserError, match="cannot be written"):
        load.save(tmp_path / "absent" / "model.safetensors", model)
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        load.save(tmp_path / "model.safetensors", model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_pth_files_without_torch_say_what_to_install(tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "model.pth"
    with pytest.raises(UserError, match=r"requirements-torch\.txt"):
        load.save(path, model)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"requirements-torch\.txt"):
        files.read(path)


def test_the_command_line_converts(tmp_path, written, tensors, capsys):
    copy = tmp_path / "copy.safetensors"
    assert conversion.main([str(written()), str(copy), "--no-align-corners"]) == 0
    assert "T=2, 5 classes, align_corners=False" in capsys.readouterr().out
    assert_same(files.read(copy).tensors, tensors)
    assert not load.model_config_of(files.read(copy)).align_corners


def test_the_command_line_reports_bad_input(capsys):
    assert conversion.main(["absent.pth", "copy.safetensors"]) == 2
    assert capsys.readouterr().err == "There is no file of weights at absent.pth.\n"


def test_a_backbone_converts_with_its_classifier(tmp_path, tensors):
    source, copy = tmp_path / "source.safetensors", tmp_path / "copy.safetensors"
    fc = {"fc.weight": np.ones((10, 128), np.float32)}
    files.write(source, WeightFile(backbone_of(tensors) | fc))
    assert "ResNet-50, deep stem" in conversion.convert(source, copy)
    assert_same(files.read(copy).tensors, backbone_of(tensors) | fc)
    assert files.read(copy).config == SMALL.backbone


@pytest.mark.parametrize("scale", [None, 0.5, (128, 256)])
def test_a_file_says_how_its_network_was_scored_and_where_it_comes_from(tmp_path, tensors, scale):
    protocol = Protocol("slide", (96, 192), (32, 64), scale, memory_stride=3, train_height=128)
    file = WeightFile(tensors, SMALL, protocol=protocol, origin=Origin(400, 0.25))
    files.write(tmp_path / "file.safetensors", file)
    conversion.convert(tmp_path / "file.safetensors", tmp_path / "again.safetensors")
    again = files.read(tmp_path / "again.safetensors")
    assert (again.protocol, again.origin) == (protocol, Origin(400, 0.25))


def test_a_file_that_says_nothing_of_it_has_no_protocol(written):
    file = files.read(written())
    assert (file.protocol, file.origin) == (None, None)


@pytest.mark.parametrize("text", ["[]", "{", '{"mode": "sideways"}', '{"fov": 3}'])
def test_a_protocol_that_no_version_wrote_is_refused(tmp_path, tensors, text):
    path = tmp_path / "file.safetensors"
    safetensors.numpy.save_file(tensors, path, {"tmanet_jax_protocol": text})
    with pytest.raises(UserError, match=r"file\.safetensors.*protocol"):
        files.read(path)


def test_a_file_says_nothing_of_how_its_network_was_computed_but_the_type(tmp_path, tensors):
    path = tmp_path / "file.safetensors"
    config = dataclasses.replace(
        SMALL, dtype="bfloat16", precision="highest", attention="chunked", remat=True
    )
    files.write(path, WeightFile(tensors, config))
    assert load.model_config_of(files.read(path)) == dataclasses.replace(SMALL, dtype="bfloat16")


def test_a_file_whose_classes_say_what_is_ignored_is_read(tmp_path, tensors):
    path = tmp_path / "old.safetensors"
    text = json.dumps(dataclasses.asdict(CITYSCAPES) | {"ignore": 255})
    safetensors.numpy.save_file(tensors, path, {"tmanet_jax_classes": text})
    assert files.read(path).classes == CITYSCAPES


def test_a_file_of_before_attention_was_no_part_of_the_head_is_read(tmp_path, tensors):
    path = tmp_path / "old.safetensors"
    fields = dataclasses.asdict(SMALL)
    del fields["precision"], fields["attention"]
    fields["head"]["attention"] = "fused"
    safetensors.numpy.save_file(tensors, path, {"tmanet_jax": json.dumps({"model": fields})})
    assert load.model_config_of(files.read(path)) == dataclasses.replace(SMALL, attention="fused")


def test_a_network_without_a_memory_is_called_by_its_name(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.safetensors", tmp_path / "copy.safetensors"
    config = dataclasses.replace(SMALL, head=PSPHeadConfig(5, channels=8))
    files.write(source, WeightFile(random_tensors(config, seed=1), config))
    assert "tensors, PSPNet with ResNet-" in conversion.convert(source, copy)
