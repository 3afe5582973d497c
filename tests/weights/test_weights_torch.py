"""`.pth` files, written and read by torch itself.

python -m pytest -m torch
"""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from tests import processes
from tests.made import tiny_runs
from tests.made.small_networks import BACKBONE, HEAD, SMALL, backbone_of, build, random_tensors
from tests.parity.goldens import OWN_GOLDENS
from tmanet_jax.errors import UserError
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weights import conversion, files, load
from tmanet_jax.weights.names import expected_dtype, expected_shapes, to_tensors
from tmanet_jax.weights.weight_file import WeightFile

pytestmark = pytest.mark.torch


@pytest.fixture
def torch():
    import torch  # here, so that the module can be collected without it

    return torch


@pytest.fixture
def state_dict_of(torch):
    return lambda tensors: {name: torch.tensor(tensor) for name, tensor in tensors.items()}


def published(spec):
    """Tensors of every name and shape of a published network; update counts above zero."""
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(-1000, 1000, shape).astype(expected_dtype(name))
        for name, shape in json.loads((OWN_GOLDENS / spec).read_text())
    }


def as_trained(torch, state_dict):
    """A checkpoint as mmcv writes it after training on several devices."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.01, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    return {
        "meta": {"epoch": 3, "iter": 80000, "CLASSES": ("road", "sky"), "env_info": "torch"},
        "state_dict": {f"module.{name}": tensor for name, tensor in state_dict.items()},
        "optimizer": optimizer.state_dict(),
    }


def assert_same_bits(state_dict, tensors):
    assert state_dict.keys() == tensors.keys()
    for name, tensor in tensors.items():
        array = state_dict[name].numpy()
        assert (array.dtype, array.shape) == (tensor.dtype, tensor.shape), name
        assert array.tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize(
    ("spec", "described"),
    [
        ("spec_cityscapes.json", "T=2, 19 classes, align_corners=True"),
        ("spec_camvid.json", "T=4, 12 classes, align_corners=False"),
    ],
)
def test_a_trained_network_survives_the_way_here_and_back(
    torch, state_dict_of, tmp_path, spec, described
):
    source, here, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    tensors = published(spec)
    torch.save(as_trained(torch, state_dict_of(tensors)), source)
    assert described in conversion.convert(source, here)
    assert described in conversion.convert(here, back)
    assert load.model_config_of(files.read(back)) == load.model_config_of(files.read(here))
    assert_same_bits(torch.load(back, weights_only=True)["state_dict"], tensors)


@pytest.mark.parametrize("fc", [{}, {"fc.weight": (1000, 2048), "fc.bias": (1000,)}])
def test_the_published_backbone_survives_the_way_here_and_back(torch, state_dict_of, tmp_path, fc):
    source, here, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    tensors = published("spec_resnet50_v1c.json")
    tensors |= {name: np.full(shape, 0.1, np.float32) for name, shape in fc.items()}
    torch.save({"state_dict": state_dict_of(tensors), "meta": {}}, source)
    conversion.convert(source, here)
    assert files.read(here).config == ResNetConfig()
    conversion.convert(here, back)
    assert_same_bits(torch.load(back, weights_only=True), tensors)


def test_torchvisions_plain_stem_survives_the_way_here_and_back(torch, state_dict_of, tmp_path):
    source, here, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    backbone = ResNetConfig(depth=101, deep_stem=False, width=4)
    tensors = backbone_of(random_tensors(ModelConfig(backbone), seed=1))
    tensors |= {"fc.weight": np.ones((1000, 128), np.float32), "fc.bias": np.ones(1000, np.float32)}
    torch.save(state_dict_of(tensors), source)
    conversion.convert(source, here)
    assert files.read(here).config == backbone
    conversion.convert(here, back)
    assert_same_bits(torch.load(back, weights_only=True), tensors)


def test_a_network_trained_here_goes_to_torch_and_returns(torch, tmp_path):
    path = tmp_path / "model.pth"
    tensors = random_tensors(SMALL, seed=1)
    load.save(path, build(SMALL, tensors))
    assert_same_bits(torch.load(path, weights_only=True)["state_dict"], tensors)
    assert load.model_config_of(files.read(path)) == SMALL
    model = build(SMALL, random_tensors(SMALL, seed=2))
    load.load_checkpoint(files.read(path), model)
    for name, tensor in to_tensors(nnx.state(model)).items():
        np.testing.assert_array_equal(tensor, tensors[name])


def initial(torch, config):
    """A new network's state_dict, made by torch in the original's names."""
    generator = torch.Generator().manual_seed(0)
    state_dict = {}
    for name, shape in expected_shapes(config).items():
        if len(shape) == 4:
            fan_out = shape[0] * shape[2] * shape[3]
            state_dict[name] = torch.randn(shape, generator=generator) * (2 / fan_out) ** 0.5
        elif name.endswith(".num_batches_tracked"):
            state_dict[name] = torch.tensor(80000)
        else:
            state_dict[name] = torch.full(shape, float(name.endswith(("weight", "var"))))
    return state_dict


def test_a_trained_network_is_converted_and_scored_as_the_readme_says(torch, tmp_path):
    source, here = tmp_path / "tmanet.pth", tmp_path / "tmanet.safetensors"
    backbone = dataclasses.replace(BACKBONE, blocks=(1, 1, 1, 1))
    head = dataclasses.replace(HEAD, num_classes=19, scale_scores=False)
    state_dict = initial(torch, ModelConfig(backbone, head))
    torch.save(as_trained(torch, state_dict), source)
    converted = subprocess.run(
        [sys.executable, "-m", "tmanet_jax.weights", source, here],
        cwd=processes.PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert converted.returncode == 0, converted.stderr
    assert "T=2, 19 classes, align_corners=True" in converted.stdout

    tiny_runs.render_records(tmp_path / "records")
    workdir = tmp_path / "run"
    done = tiny_runs.run(
        tmp_path / "records", "eval", f"--config.init.checkpoint={here}", f"--workdir={workdir}"
    )
    assert done.returncode == 0, done.stderr
    assert f"loaded {len(state_dict)} tensors of {here}" in done.stdout + done.stderr
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["clips"] == tiny_runs.NUM_EVAL
    assert 0 <= metrics["mIoU"] <= metrics["aAcc"] <= 1


def test_a_pth_says_how_its_network_was_scored_and_where_it_comes_from(torch, tmp_path):
    path = tmp_path / "tmanet.pth"
    protocol, origin = Protocol("slide", (96, 192), (32, 64), 0.5, train_height=128), Origin(400)
    file = WeightFile(random_tensors(SMALL, seed=1), SMALL, protocol=protocol, origin=origin)
    files.write(path, file)
    again = files.read(path)
    assert (again.protocol, again.origin) == (protocol, origin)


def test_the_original_finds_its_classes_in_a_checkpoint(torch, tmp_path):
    path = tmp_path / "model.pth"
    files.write(path, WeightFile(published("spec_camvid.json"), ModelConfig()))
    meta = torch.load(path, weights_only=True)["meta"]
    assert meta["CLASSES"][0] == "road"
    assert meta["PALETTE"][0] == [128, 64, 128]


def test_a_pretrained_pth_is_loaded_directly(torch, state_dict_of, tmp_path):
    path = tmp_path / "backbone.pth"
    tensors = random_tensors(SMALL, seed=1)
    torch.save(state_dict_of(backbone_of(tensors)), path, _use_new_zipfile_serialization=False)
    model = build(SMALL, random_tensors(SMALL, seed=2))
    report = load.load_pretrained_backbone(path, model)
    loaded = backbone_of(to_tensors(nnx.state(model)))
    for name, tensor in backbone_of(tensors).items():
        np.testing.assert_array_equal(loaded[name], tensor)
    assert len(report.loaded) == len(loaded)


class Trap:
    """Runs a command when it is unpickled, if it is allowed to."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_that_wants_to_run_code_is_refused(torch, tmp_path):
    marker, path, plain = (tmp_path / name for name in ("marker", "trap.pth", "plain.pth"))
    torch.save({"state_dict": {"conv1.weight": torch.ones(3)}, "meta": Trap(marker)}, path)
    plain.write_bytes(pickle.dumps(Trap(marker), protocol=2))
    for trap in (path, plain):
        with pytest.raises(UserError, match=r"refused: .*wants to run"):
            conversion.convert(trap, tmp_path / "out.safetensors")
    assert not marker.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_a_pickled_module_is_refused(torch, tmp_path):
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        files.read(path)


def test_content_that_is_no_state_dict_is_refused(torch, tmp_path):
    path = tmp_path / "other.pth"
    for content, message in (
        ([torch.ones(2)], "holds a list"),
        ({"state_dict": {}}, "no tensors"),
        ({"state_dict": {"conv1.weight": "text"}}, "'conv1.weight' is a str"),
        ({"conv1.weight": torch.ones(2).to_sparse()}, r"torch\.sparse_coo tensor"),
        ({"conv1.weight": torch.ones(2), 7: torch.ones(2)}, "7 is a int, not a tensor's name"),
        ({7: torch.ones(2)}, "7 is a int, not a tensor's name"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            files.read(path)
    path.write_bytes(b"not a pickle")
    with pytest.raises(UserError, match="not a file of tensors"):
        files.read(path)


def test_what_does_not_fit_is_named(torch, state_dict_of, tmp_path):
    path = tmp_path / "model.pth"
    tensors = random_tensors(SMALL, seed=1)
    del tensors["backbone.layer1.0.bn2.bias"]
    tensors["backbone.layer1.0.conv2.weight"] = np.zeros((4, 4, 1, 1), np.float32)
    tensors["decode_head.extra.weight"] = np.zeros(3, np.float32)
    torch.save({"state_dict": state_dict_of(tensors)}, path)
    with pytest.raises(UserError) as error:
        load.load_checkpoint(files.read(path), build(SMALL, random_tensors(SMALL, seed=2)))
    assert "missing: backbone.layer1.0.bn2.bias" in str(error.value)
    assert "unexpected: decode_head.extra.weight" in str(error.value)
    assert "backbone.layer1.0.conv2.weight (4, 4, 1, 1) instead of (4, 4, 3, 3)" in str(error.value)


def test_a_pth_that_cannot_be_written_leaves_nothing(torch, tmp_path):
    model = build(SMALL, random_tensors(SMALL, seed=1))
    with pytest.raises(UserError, match="cannot be written"):
        load.save(tmp_path / "absent" / "model.pth", model)
    assert not list(tmp_path.iterdir())
