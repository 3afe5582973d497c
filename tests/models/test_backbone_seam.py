"""ConvNeXt, of stride 16 and layer norms, and a backbone of one's own through the seam."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest
import safetensors
from flax import nnx
from jax.typing import DTypeLike

from tests.models.seam_checks import (
    check_saves_and_loads,
    check_streams,
    check_trains_and_goes_on_from_a_checkpoint,
)
from tests.models.test_tmanet import small_config
from tmanet_jax.errors import UserError
from tmanet_jax.models.backbone import BackboneConfig, Stages
from tmanet_jax.models.backbones import BACKBONES
from tmanet_jax.models.convnext import ConvNeXtConfig
from tmanet_jax.models.layers import ConvNorm
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.weights import files, load

CONVNEXT = small_config(backbone=ConvNeXtConfig(8, (1, 1, 1, 1), output_stride=16))


def test_convnext_trains_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    check_trains_and_goes_on_from_a_checkpoint(dataclasses.replace(CONVNEXT, remat=True), tmp_path)


def test_convnexts_stream_is_the_whole_clip() -> None:
    check_streams(CONVNEXT)


def test_convnext_saves_and_loads(tmp_path: Path) -> None:
    check_saves_and_loads(CONVNEXT, tmp_path)


@dataclasses.dataclass(frozen=True)
class PatchesConfig(BackboneConfig):
    """Patches of 4x4 pixels."""

    width: int = 4

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        return (self.width,) * 4

    @property
    def stride(self) -> int:
        return 4

    def build(self, *, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs) -> "Patches":
        return Patches(self, dtype, rngs)


class Patches(nnx.Module):
    def __init__(self, config: PatchesConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        self.patch = ConvNorm(3, config.width, 3, stride=4, dtype=dtype, rngs=rngs)
        self.mixed = nnx.Linear(config.width, config.width, dtype=dtype, rngs=rngs)

    def __call__(self, frames_NxHxWx3: jax.Array, *, train: bool, slots: int = 1) -> Stages:
        x = self.mixed(self.patch(frames_NxHxWx3, train=train, slots=slots))
        return Stages(x, x, x, x)


NETWORK = dataclasses.replace(small_config(), backbone=PatchesConfig())


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "patches", PatchesConfig)


def test_its_weights_have_names_of_their_own(tmp_path: Path) -> None:
    check_saves_and_loads(NETWORK, tmp_path)
    names = set(files.read(tmp_path / "model.safetensors").tensors)
    own = {"patch.conv.weight", "patch.norm.num_batches_tracked", "mixed.kernel"}
    assert {f"backbone.{name}" for name in own} < names
    assert "decode_head.memory_key_conv.0.1.conv.weight" in names


def test_a_kind_that_is_in_no_list_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    load.save(path, TMANet(NETWORK, rngs=nnx.Rngs(0)))
    with safetensors.safe_open(path, framework="numpy") as file:
        said = json.loads(file.metadata()["tmanet_jax"])["model"]
    assert said["backbone"] == {"kind": "patches", "width": 4}
    assert said["head"]["kind"] == "tma"
    monkeypatch.delitem(BACKBONES, "patches")
    with pytest.raises(UserError, match=r"backbone: its kind is 'patches', known are resnet, "):
        load.load_model(path)
    with pytest.raises(ValueError, match="PatchesConfig is neither in BACKBONES"):
        load.save(path, TMANet(NETWORK, rngs=nnx.Rngs(0)))
