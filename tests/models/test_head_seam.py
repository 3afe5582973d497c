"""Heads: one of one's own, with a memory, and one of the list that remembers nothing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.typing import DTypeLike

from tests.models.seam_checks import (
    check_saves_and_loads,
    check_streams,
    check_trains_and_goes_on_from_a_checkpoint,
)
from tests.models.test_backbone_seam import NETWORK, PatchesConfig
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.backbones import BACKBONES
from tmanet_jax.models.head import HeadConfig
from tmanet_jax.models.heads import HEADS
from tmanet_jax.models.layers import Conv, ConvNorm
from tmanet_jax.models.psp_head import PSPHeadConfig
from tmanet_jax.weights import files

Remembered = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MeanConfig(HeadConfig):
    """Adds to the query's features the mean of those of the memory."""

    num_memory: int = 2
    channels: int = 8

    def build(
        self, stage_channels: tuple[int, int, int, int], *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> "MeanHead":
        return MeanHead(stage_channels[3], self, dtype, rngs)


class MeanHead(nnx.Module):
    def __init__(self, in_channels: int, config: MeanConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        self.one = ConvNorm(in_channels, config.channels, 1, dtype=dtype, rngs=rngs)
        self.classifier = Conv(config.channels, config.num_classes, 1, dtype=dtype, rngs=rngs)

    def remember(self, features: Stages, position: int, *, train: bool) -> Remembered:
        """The features, and their mean over the frame, which is no picture."""
        x_NxhxwxC = self.one(features.stage4, train=train)
        return {"features": x_NxhxwxC, "mean_NxC": (position + 1) * x_NxhxwxC.mean((1, 2))}

    def read(
        self,
        query: Stages,
        memory: Sequence[Remembered],
        *,
        train: bool,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        x_BxhxwxC = self.one(query.stage4, train=train)
        for frame in memory:
            x_BxhxwxC += frame["features"] - frame["mean_NxC"][:, None, None]
        return self.classifier(x_BxhxwxC / (len(memory) + 1)).astype(jnp.float32)


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "mean", MeanConfig)
    monkeypatch.setitem(BACKBONES, "patches", PatchesConfig)


MEAN, PSP = (
    dataclasses.replace(NETWORK, head=head)  # of a backbone that is soon compiled
    for head in (MeanConfig(5, dropout=0.0), PSPHeadConfig(5, dropout=0.0, channels=8))
)


@pytest.fixture(params=[MEAN, PSP], ids=["mean", "psp"])
def network(request):
    return request.param


def test_it_trains_and_goes_on_from_a_checkpoint(network, tmp_path: Path) -> None:
    check_trains_and_goes_on_from_a_checkpoint(network, tmp_path)


def test_its_stream_is_the_whole_clip(network) -> None:
    check_streams(network)


@pytest.mark.parametrize(
    ("network", "own"),
    [(MEAN, "head.one.conv.weight"), (PSP, "decode_head.psp_modules.3.1.conv.weight")],
    ids=["mean", "psp"],
)
def test_its_weights_have_names_of_their_own(network, own: str, tmp_path: Path) -> None:
    check_saves_and_loads(network, tmp_path)
    names = set(files.read(tmp_path / "model.safetensors").tensors)
    assert {own, "decode_head.conv_seg.weight", "backbone.mixed.kernel"} < names
