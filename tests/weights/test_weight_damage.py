"""Files of weights that are damaged, of strangers, or say what cannot be."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from tests.made.small_networks import SMALL, build, initialised, random_tensors
from tmanet_jax.errors import UserError
from tmanet_jax.protocol import Origin, Protocol
from tmanet_jax.weights import conversion, files, load
from tmanet_jax.weights.names import Tensors, to_tensors, with_tensors
from tmanet_jax.weights.weight_file import WeightFile


@pytest.fixture
def tensors() -> Tensors:
    return random_tensors(SMALL, seed=1)


def described(tensors: Tensors) -> WeightFile:
    """With all that a file can say."""
    return WeightFile(tensors, SMALL, protocol=Protocol(), origin=Origin(3))


def test_equal_weights_are_equal_bytes(tmp_path: Path, tensors: Tensors) -> None:
    path = tmp_path / "file.safetensors"
    contents = set()
    for _ in range(8):
        files.write(path, described(tensors))
        contents.add(path.read_bytes())
    assert len(contents) == 1
    assert safetensors.numpy.load_file(path).keys() == tensors.keys()


def test_the_digest_is_of_the_content_alone(tensors: Tensors) -> None:
    digest = files.content_digest(tensors)
    assert digest == files.content_digest(dict(reversed(tensors.items())))
    name = "decode_head.conv_seg.bias"
    for other in (
        {name: tensors[name][::-1]},
        {name: tensors[name].astype(np.float64)},
        {name: tensors[name][:, None]},
        {"another.name": tensors[name]},
    ):
        assert digest != files.content_digest({**tensors, **other})


@pytest.mark.parametrize("place", [-1, -4_000, -40_001])
def test_a_bit_that_flipped_in_a_tensor_is_told(
    tmp_path: Path, tensors: Tensors, place: int
) -> None:
    path = tmp_path / "file.safetensors"
    files.write(path, described(tensors))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    safetensors.numpy.load_file(path)  # the library does not notice
    with pytest.raises(UserError, match=r"damaged: 1 of \d+ tensors are not what was written"):
        files.read(path)


def test_a_file_of_others_has_no_checksums(tmp_path: Path, tensors: Tensors) -> None:
    path = tmp_path / "file.safetensors"
    safetensors.numpy.save_file(tensors, path)
    assert files.read(path).tensors.keys() == tensors.keys()


def test_a_layer_without_a_name_of_the_originals_is_saved_under_its_own(tmp_path: Path) -> None:
    model: Any = initialised(SMALL)
    model.edge = nnx.Linear(2, 3, rngs=nnx.Rngs(1))
    model.head.classifier.temperature = nnx.Param(np.ones(1, np.float32))
    load.save(tmp_path / "model.safetensors", model)
    saved = files.read(tmp_path / "model.safetensors").tensors
    assert saved["edge.kernel"].shape == (2, 3)
    assert saved["head.classifier.temperature"].shape == (1,)
    doubled = {name: 2 * tensor for name, tensor in saved.items()}
    again = to_tensors(with_tensors(nnx.state(model), doubled))
    for name, tensor in doubled.items():
        np.testing.assert_array_equal(again[name], tensor)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_every_way_to_load_refuses_weights_that_are_not_finite(
    tmp_path: Path, tensors: Tensors, value: float
) -> None:
    path = tmp_path / "file.safetensors"
    name = "auxiliary_head.convs.0.bn.running_var"
    tensors[name][1] = value
    files.write(path, described(tensors))
    for reads in (
        lambda: load.load_model(path),
        lambda: load.load_checkpoint(files.read(path), build(SMALL, tensors)),
        lambda: conversion.convert(path, tmp_path / "copy.safetensors"),
    ):
        with pytest.raises(UserError, match=f"NaN or infinity in {name}"):
            reads()
    assert not (tmp_path / "copy.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"<HTML>", "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a Git-LFS pointer",
        ),
        (b'{"error": "not found"}', "JSON, likely an answer"),
        (b"", "empty"),
    ],
)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt", "A.CKPT", "a.pth.tar"])
def test_what_was_saved_under_the_name_is_told(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is {message}"):
        files.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a\0.pth", "x" * 300 + ".safetensors", "y" * 5_000 + ".pth"])
def test_names_that_no_file_can_have_are_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="No file of weights can have the name"):
        files.read(tmp_path / name)
    with pytest.raises(UserError, match="No file of weights can have the name"):
        files.write(tmp_path / name, WeightFile({}))


def header_with(**fields: object) -> str:
    """A header whose network has these fields of its head in place of its own."""
    model = dataclasses.asdict(SMALL)
    return json.dumps({"model": model | {"head": model["head"] | fields}})


@pytest.mark.parametrize(
    "text",
    [
        *(header_with(num_memory=value) for value in (300, 10**30, -1, 2.0, "2", [2], None, True)),
        header_with(num_classes=0),
        header_with(key_channels=10**9),
        header_with(attention="x"),
        header_with(scale_scores="no"),
        json.dumps({"model": dataclasses.asdict(SMALL) | {"dtype": "int8"}}),
        json.dumps({"model": dataclasses.asdict(SMALL) | {"align_corners": "64"}}),
        json.dumps({"backbone": {"depth": 50, "width": 10**7}}),
        json.dumps({"backbone": {"blocks": [3, 4, 6, -3]}}),
        "[" * 5000,
        "{}",
        "null",
        "",
    ],
)
def test_a_header_of_any_value_is_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.safetensors"
    tensors = {"conv1.weight": np.zeros((2, 3, 7, 7), np.float32)}
    safetensors.numpy.save_file(tensors, path, {"tmanet_jax": text})
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"file\.safetensors, tmanet_jax of its header"):
        files.read(path)
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("num_memory", [0, 1, 64])
def test_a_header_of_another_network_than_the_tensors_is_refused_at_once(
    tmp_path: Path, tensors: Tensors, num_memory: int
) -> None:
    path = tmp_path / "file.safetensors"
    safetensors.numpy.save_file(tensors, path, {"tmanet_jax": header_with(num_memory=num_memory)})
    begin = time.monotonic()
    with pytest.raises(UserError, match=f"num_memory={num_memory} instead of 2"):
        load.load_model(path)
    assert time.monotonic() - begin < 1
