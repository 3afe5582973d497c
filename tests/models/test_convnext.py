"""ConvNeXt: torchvision's features and weights, timm's names, strides by dilation."""

import dataclasses
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.made.small_networks import SMALL, backbone_of, random_tensors
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.convnext import ConvNeXt, ConvNeXtConfig
from tmanet_jax.models.tmanet import ModelConfig, TMANet, blank_model
from tmanet_jax.weights import conversion, files, load
from tmanet_jax.weights.names import Tensors, to_tensors
from tmanet_jax.weights.weight_file import WeightFile

SMALL_CONVNEXT = ConvNeXtConfig(8, (1, 1, 2, 1))


def network_with(config: ConvNeXtConfig, path: Path) -> TMANet:
    """Begins from a file of the backbone."""
    model = blank_model(dataclasses.replace(SMALL, backbone=config))
    load.load_pretrained_backbone(path, model)
    return model


@nnx.jit
def features(model: TMANet, frames_NxHxWx3: jax.Array) -> Stages:
    return model.encode(frames_NxHxWx3)


def noise(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def random_backbone(config: ConvNeXtConfig) -> Tensors:
    """By torchvision's names, of sizes that keep what they are applied to in range."""
    rng = np.random.default_rng(0)
    shapes = {name: x.shape for name, x in random_tensors(ModelConfig(config), 0).items()}

    def tensor(shape: tuple[int, ...]) -> np.ndarray:
        of_one_output = np.float32(np.prod(shape[1:], initial=1))
        return rng.standard_normal(shape, np.float32) / np.sqrt(of_one_output)

    return backbone_of({name: tensor(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (ConvNeXtConfig(), 27.82),
        (ConvNeXtConfig(128, (3, 3, 27, 3)), 87.57),
    ],
)
def test_it_has_the_parameters_of_its_paper(config: ConvNeXtConfig, millions: float) -> None:
    """28.59 and 88.59 with the norm and the classifier of 1000 classes."""
    backbone = nnx.eval_shape(
        lambda: ConvNeXt(config, dtype=jnp.float32, remat=False, rngs=nnx.Rngs(0))
    )
    count = sum(x.size for x in jax.tree.leaves(nnx.state(backbone, nnx.Param)))
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_strides_become_dilation_at_the_same_taps(tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    files.write(path, WeightFile(random_backbone(SMALL_CONVNEXT), SMALL_CONVNEXT))
    frames = noise(1, 65, 90, 3)
    strided = features(network_with(SMALL_CONVNEXT, path), frames)
    assert [stage.shape[1:3] for stage in strided] == [(17, 23), (9, 12), (5, 6), (3, 3)]
    dense = features(
        network_with(dataclasses.replace(SMALL_CONVNEXT, output_stride=8), path), frames
    )
    assert [stage.shape[1:3] for stage in dense] == [(17, 23), (9, 12), (9, 12), (9, 12)]
    for every, ours, theirs in zip((1, 1, 2, 4), dense, strided, strict=True):
        np.testing.assert_allclose(ours[:, ::every, ::every], theirs, atol=1e-4)


def test_a_whole_networks_other_stride_is_told(tmp_path: Path) -> None:
    path = tmp_path / "strided.safetensors"
    strided = dataclasses.replace(SMALL, backbone=SMALL_CONVNEXT)
    files.write(path, WeightFile(random_tensors(strided, 0), strided))
    backbone = dataclasses.replace(SMALL_CONVNEXT, output_stride=8)
    model = blank_model(dataclasses.replace(SMALL, backbone=backbone))
    report = load.load_checkpoint(files.read(path), model)
    assert "it was trained at stride 32, this run's is 8" in str(report)


def as_timm_names_them(tensors: Tensors) -> Tensors:
    """Tensors of one block a stage, but two of the third, by timm's names."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        _, number, *inner, parameter = name.split(".")
        stage = int(number) // 2
        if number == "0":
            name = f"stem.{inner[0]}.{parameter}"
        elif int(number) % 2 == 0:
            name = f"stages.{stage}.downsample.{inner[0]}.{parameter}"
        elif parameter == "layer_scale":
            name, tensor = f"stages.{stage}.blocks.{inner[0]}.gamma", tensor[:, 0, 0]
        else:
            layer = {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}[inner[2]]
            name = f"stages.{stage}.blocks.{inner[0]}.{layer}.{parameter}"
        renamed[name] = tensor
    classifier = {"head.norm.weight": (64,), "head.norm.bias": (64,), "head.fc.weight": (10, 64)}
    return renamed | {name: np.ones(shape, np.float32) for name, shape in classifier.items()}


def test_timms_weights_are_torchvisions(tmp_path: Path) -> None:
    source, converted = tmp_path / "timm.safetensors", tmp_path / "backbone.safetensors"
    tensors = random_backbone(SMALL_CONVNEXT)
    files.write(source, WeightFile(as_timm_names_them(tensors)))
    assert "timm's names became torchvision's" in conversion.convert(source, converted)
    read = files.read(converted)
    assert read.config == SMALL_CONVNEXT
    classifier = {"classifier.0.weight", "classifier.0.bias", "classifier.2.weight"}
    assert read.tensors.keys() == tensors.keys() | classifier
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)
    for path in (source, converted):
        loaded = backbone_of(to_tensors(nnx.state(network_with(SMALL_CONVNEXT, path))))
        np.testing.assert_equal(loaded, tensors)


@pytest.mark.torch
def test_features_and_weights_are_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    operators = "torchvision._meta_registrations"  # of detection; a CPU's torch has none of them
    monkeypatch.setitem(sys.modules, operators, types.ModuleType(operators))
    from torchvision.models import convnext

    blocks = [
        convnext.CNBlockConfig(width, after, count)
        for width, after, count in ((8, 16, 1), (16, 32, 1), (32, 64, 2), (64, None, 1))
    ]
    theirs = convnext.ConvNeXt(blocks, num_classes=10).eval()
    tensors = random_backbone(SMALL_CONVNEXT)
    state_dict = theirs.state_dict() | {name: torch.tensor(x) for name, x in tensors.items()}
    theirs.load_state_dict(state_dict)

    source, here, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    torch.save(theirs.state_dict(), source)
    conversion.convert(source, here)
    assert files.read(here).config == SMALL_CONVNEXT
    conversion.convert(here, back)
    again = torch.load(back, weights_only=True)
    assert again.keys() == state_dict.keys()
    assert all(torch.equal(again[name], state_dict[name]) for name in state_dict)

    frames = noise(2, 64, 96, 3)
    ours = features(network_with(SMALL_CONVNEXT, here), frames)
    x = torch.tensor(np.asarray(frames)).permute(0, 3, 1, 2)
    with torch.no_grad():
        for number, layer in enumerate(theirs.features):
            x = layer(x)
            if number % 2:
                np.testing.assert_allclose(
                    ours[number // 2], x.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4
                )
