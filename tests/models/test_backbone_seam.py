"""A backbone of one's own, of stride 16 and layer norms: a configuration, a module, a name."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
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
from tmanet_jax.models.layers import Conv, ConvNorm
from tmanet_jax.models.tmanet import TMANet, abstract_model
from tmanet_jax.weights import files, load


@dataclasses.dataclass(frozen=True)
class PatchesConfig(BackboneConfig):
    """Patches of 4x4 pixels, then blocks as ConvNeXt's, one a stage."""

    width: int = 4

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        return (self.width, 2 * self.width, 4 * self.width, 8 * self.width)

    @property
    def stride(self) -> int:
        return 16

    def build(self, *, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs) -> "Patches":
        return Patches(self, dtype, rngs)


class Patches(nnx.Module):
    def __init__(self, config: PatchesConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        first = config.width
        self.patch = ConvNorm(3, first, 3, stride=4, dtype=dtype, rngs=rngs)
        self.down = nnx.List(
            [Conv(first << i, first << i + 1, 1, stride=(2, 2, 1)[i], rngs=rngs) for i in range(3)]
        )
        self.blocks = nnx.List([Block(first << i, dtype, rngs) for i in range(4)])

    def __call__(self, frames_NxHxWx3: jax.Array, *, train: bool, slots: int = 1) -> Stages:
        x = self.blocks[0](self.patch(frames_NxHxWx3, train=train, slots=slots))
        stages = [x]
        for down, block in zip(self.down, self.blocks[1:], strict=True):
            stages.append(block(down(stages[-1])))
        return Stages(*stages)


class Block(nnx.Module):
    def __init__(self, channels: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.depthwise = nnx.Conv(
            channels, channels, (7, 7), feature_group_count=channels, dtype=dtype, rngs=rngs
        )
        self.norm = nnx.LayerNorm(channels, dtype=dtype, rngs=rngs)
        self.wide = Conv(channels, 4 * channels, 1, use_bias=True, dtype=dtype, rngs=rngs)
        self.narrow = Conv(4 * channels, channels, 1, use_bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x_NxHxWxC: jax.Array) -> jax.Array:
        y = self.norm(self.depthwise(x_NxHxWxC))
        return x_NxHxWxC + self.narrow(nnx.gelu(self.wide(y)))


NETWORK = dataclasses.replace(small_config(), backbone=PatchesConfig())


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "patches", PatchesConfig)


def test_it_trains_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    check_trains_and_goes_on_from_a_checkpoint(NETWORK, tmp_path)


def test_its_stream_is_the_whole_clip() -> None:
    check_streams(NETWORK)


def test_its_weights_have_names_of_their_own(tmp_path: Path) -> None:
    check_saves_and_loads(NETWORK, tmp_path)
    names = set(files.read(tmp_path / "model.safetensors").tensors)
    own = {"patch.conv.weight", "patch.norm.num_batches_tracked", "blocks.3.depthwise.kernel"}
    assert {f"backbone.{name}" for name in own} < names
    assert "decode_head.memory_key_conv.0.1.conv.weight" in names


def test_features_are_of_the_stride_that_it_says() -> None:
    model = abstract_model(NETWORK)
    frames = jax.ShapeDtypeStruct((1, 65, 97, 3), jnp.float32)
    stages = nnx.eval_shape(lambda model, x: model.encode(x), model, frames)
    assert stages.stage4.shape[1:3] == NETWORK.feature_size((65, 97)) == (5, 7)


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
