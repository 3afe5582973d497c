"""`.pth` files in the shapes that training scripts give them, and damaged ones.

python -m pytest -m torch
"""

import argparse
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.made.small_networks import (
    assert_same,
    build,
    cityscapes_tensors,
    random_tensors,
)
from tests.weights.test_original_config import CONFIG
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.errors import UserError
from tmanet_jax.weights import conversion, files, load

pytestmark = pytest.mark.torch


@pytest.fixture
def torch() -> ModuleType:
    import torch

    return torch


@pytest.fixture
def state_dict(torch: ModuleType) -> dict[str, Any]:
    return {name: torch.tensor(tensor) for name, tensor in cityscapes_tensors().items()}


def prefixed(state_dict: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in state_dict.items()}


def flattened(state_dict: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name.replace('.', '_')}": tensor for name, tensor in state_dict.items()}


@pytest.mark.parametrize("key", [None, "state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pth.tar"])
def test_tensors_are_found_in_any_wrapping(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path, key: str | None, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save({key: state_dict, "epoch": 3} if key else state_dict, path)
    assert_same(files.read(path).tensors, cityscapes_tensors())


@pytest.mark.parametrize(
    "prefix",
    ["module.", "module.module.", "_orig_mod.", "module._orig_mod.", "model.", "net.module."],
)
def test_prefixes_of_wrapped_modules_are_taken_off(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path, prefix: str
) -> None:
    torch.save({"state_dict": prefixed(state_dict, prefix)}, tmp_path / "a.pth")
    assert_same(files.read(tmp_path / "a.pth").tensors, cityscapes_tensors())


def test_two_tensors_of_one_name_are_refused(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path
) -> None:
    torch.save({**state_dict, **prefixed(state_dict, "module.")}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds (\S+) twice, once as module\.\1:"):
        files.read(tmp_path / "a.pth")


def averaged(state_dict: dict[str, Any]) -> dict[str, Any]:
    return {name: 2 * tensor for name, tensor in state_dict.items()}


CONTENT_WITH_AVERAGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "mmcv": lambda own: {"state_dict": own | flattened(averaged(own), "ema_")},
    "mmengine": lambda own: {
        "state_dict": own,
        "ema_state_dict": prefixed(averaged(own), "module."),
    },
    "timm": lambda own: {"state_dict": own, "state_dict_ema": averaged(own)},
    "yolo": lambda own: {"model": own, "ema": averaged(own)},
}


@pytest.mark.parametrize("kind", CONTENT_WITH_AVERAGES)
def test_moving_averages_are_a_choice_and_told(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "a.pth"
    torch.save(CONTENT_WITH_AVERAGES[kind](state_dict), path)
    plain = files.read(path)
    assert_same(plain.tensors, cityscapes_tensors())
    number = len(cityscapes_tensors())
    assert plain.notes == (f"left {number} moving averages (EMA) out: --ema takes them",)
    chosen = files.read(path, ema=True)
    assert_same(chosen.tensors, {name: 2 * tensor for name, tensor in cityscapes_tensors().items()})
    assert chosen.notes == (f"took the {number} moving averages (EMA)",)


def test_averages_that_are_not_there_are_told(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(state_dict, tmp_path / "a.pth")
    conversion.convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        with pytest.raises(UserError, match="no moving averages"):
            conversion.convert(tmp_path / name, tmp_path / "b.safetensors", ema=True)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_types_become_float32_and_it_is_told(
    torch: ModuleType, tmp_path: Path, name: str, suffix: str
) -> None:
    from safetensors.torch import save_file

    half = {
        key: torch.tensor(tensor).to(getattr(torch, name))
        if tensor.dtype == np.float32
        else torch.tensor(tensor)
        for key, tensor in cityscapes_tensors().items()
    }
    path, copy = tmp_path / f"a{suffix}", tmp_path / "b.safetensors"
    (torch.save if suffix == ".pth" else save_file)(half, path)
    told = conversion.convert(path, copy)
    floats = [key for key, tensor in cityscapes_tensors().items() if tensor.dtype == np.float32]
    assert f"{len(floats)} tensors of {name} became float32" in told
    assert_same(
        files.read(copy).tensors,
        {key: tensor.to(torch.float32).numpy() if key in floats else cityscapes_tensors()[key]
         for key, tensor in half.items()},
    )  # fmt: skip


def test_numbers_of_numpy_and_options_in_the_meta_are_read(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    meta = {
        "mIoU": np.float64(0.5), "iter": np.int64(3), "best": np.float32(1), "ok": np.bool_(True),
        "per_class": np.arange(19.0), "args": argparse.Namespace(lr=0.1),
        "CLASSES": CITYSCAPES.names, "PALETTE": np.array(CITYSCAPES.palette_Cx3, np.uint8),
    }  # fmt: skip
    torch.save({"state_dict": state_dict, "meta": meta}, path)
    assert files.read(path).classes == CITYSCAPES
    as_numpy_1(path)
    assert files.read(path).classes == CITYSCAPES


def as_numpy_1(path: Path) -> None:
    """Names NumPy's modules as NumPy 1 does."""
    with zipfile.ZipFile(path) as archive:
        parts = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in parts.items():
            archive.writestr(info, content.replace(b"numpy._core.", b"numpy.core."))


def test_a_training_of_the_original_is_taken_over_whole(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path
) -> None:
    path, copy, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    names = tuple(f"land {index}" for index in range(19))
    palette = [[index, 0, 0] for index in range(19)]
    config = CONFIG.replace("align_corners=True", "align_corners=False")
    meta = {
        "mmseg_version": "0.8.0+e1e2ba0", "config": config, "CLASSES": names, "PALETTE": palette,
    }  # fmt: skip
    torch.save({"meta": meta, "state_dict": state_dict}, path)
    told = conversion.convert(path, copy)
    assert "align_corners=False" in told
    assert "assumed" not in told
    conversion.convert(copy, back)
    for written in (path, copy, back):
        loaded = load.load_model(written)
        assert loaded.model.config.align_corners is False
        assert loaded.classes.names == names
        assert loaded.classes.palette_Cx3[18] == (18, 0, 0)
        assert loaded.protocol is not None and loaded.protocol.crop_size == (640, 640)


def test_a_configuration_that_cannot_be_read_and_classes_of_another_number_are_told(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path
) -> None:
    meta = {"config": "model = dict(", "CLASSES": ("road", "sky"), "PALETTE": None}
    torch.save({"meta": meta, "state_dict": state_dict}, tmp_path / "a.pth")
    told = conversion.convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert "its meta['config'] is no configuration in Python" in told
    assert "its CLASSES name 2 of 19 classes, and are not taken" in told
    assert "align_corners=True, as published for 19 classes" in told


def test_a_file_without_an_auxiliary_head_is_enough(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path
) -> None:
    path, copy = tmp_path / "a.pth", tmp_path / "b.safetensors"
    kept = {name: x for name, x in state_dict.items() if not name.startswith("auxiliary_head.")}
    torch.save({"state_dict": kept}, path)
    assert "no auxiliary head" in conversion.convert(path, copy)
    config = load.load_model(copy).model.config
    assert config.head.num_classes == 19
    report = load.load_checkpoint(files.read(copy), build(config, random_tensors(config, seed=2)))
    assert "left at initial values: auxiliary_head.conv_seg" in str(report)
    assert "the classifiers are new" not in str(report)
    del kept["decode_head.conv_seg.bias"]
    torch.save({"state_dict": kept}, path)
    with pytest.raises(UserError, match=r"missing: decode_head\.conv_seg\.bias"):
        conversion.convert(path, copy)


@pytest.mark.parametrize("mean", [[123.675, 116.28, 103.53], [127.5, 127.5, 127.5]])
def test_a_preprocessor_must_normalise_as_this_project_does(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path, mean: list[float]
) -> None:
    path = tmp_path / "a.pth"
    state_dict["data_preprocessor.mean"] = torch.tensor(mean).reshape(3, 1, 1)
    state_dict["data_preprocessor.std"] = torch.tensor([58.395, 57.12, 57.375]).reshape(3, 1, 1)
    torch.save({"state_dict": state_dict}, path)
    if mean[0] == 127.5:
        with pytest.raises(UserError, match=r"normalises pixels by a mean of \[127\.5"):
            files.read(path)
    else:
        assert_same(files.read(path).tensors, cityscapes_tensors())


def rewritten(path: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in parts.items():
            archive.writestr(info, change(content) if info.filename.endswith(part) else content)


@pytest.mark.parametrize("old_format", [False, True])
def test_damaged_files_end_with_one_message(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path, old_format: bool
) -> None:
    path = tmp_path / "a.pth"
    buffer = io.BytesIO()
    torch.save({"state_dict": state_dict}, buffer, _use_new_zipfile_serialization=not old_format)
    whole = buffer.getvalue()
    rng = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        if rng.random() < 0.4:
            del content[int(rng.integers(1, len(content))) :]
        else:
            first = int(rng.integers(0, 3_000))
            content[first : first + 8] = rng.bytes(int(rng.integers(0, 12)))
        path.write_bytes(content)
        try:
            files.read(path)
        except UserError as error:
            assert len(str(error)) < 600


@pytest.mark.parametrize("kept", [0, 1, 30, 400])
def test_a_cut_pickle_is_told(
    torch: ModuleType, state_dict: dict[str, Any], tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": state_dict}, path)
    rewritten(path, "data.pkl", lambda content: content[:kept])
    with pytest.raises(UserError, match="not a file of tensors that torch wrote, or is damaged"):
        files.read(path)


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"PK\x03\x04", b"\x80\x02."])
def test_what_torch_did_not_write_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pth"):
        files.read(tmp_path / "a.pth")


def test_a_tensor_whose_bytes_changed_is_told_by_the_files_own_checksum(
    state_dict: dict[str, Any], torch: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state_dict, path)
    content = bytearray(path.read_bytes())
    tensor = max(cityscapes_tensors().values(), key=lambda tensor: tensor.nbytes).tobytes()
    content[content.index(tensor) + len(tensor) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth .*is damaged: .*checksum of .*data/"):
        files.read(path)
