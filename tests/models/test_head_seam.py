"""Heads of one's own: what a position remembers, and how it is read."""

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
from tests.models.test_tmanet import small_config
from tmanet_jax.models.backbone import Stages
from tmanet_jax.models.head import HeadConfig
from tmanet_jax.models.heads import HEADS
from tmanet_jax.models.layers import Conv, ConvNorm
from tmanet_jax.weights import files

Remembered = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MeanConfig(HeadConfig):
    """Adds to the query's features the mean of those of the memory; T = 0 has no memory."""

    num_memory: int = 2
    channels: int = 8

    def build(
        self, stage_channels: tuple[int, int, int, int], *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> "MeanHead":
        return MeanHead(stage_channels[3], self, dtype, rngs)


class MeanHead(nnx.Module):
    def __init__(self, in_channels: int, config: MeanConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = ConvNorm(in_channels, config.channels, 1, dtype=dtype, rngs=rngs)
        self.classifier = Conv(config.channels, config.num_classes, 1, dtype=dtype, rngs=rngs)

    def remember(self, features: Stages, position: int, *, train: bool) -> Remembered:
        """The features, and their mean over the frame, which is no picture."""
        x_NxhxwxC = self.conv(features.stage4, train=train)
        return {"features": x_NxhxwxC, "mean_NxC": (position + 1) * x_NxhxwxC.mean((1, 2))}

    def read(
        self,
        query: Stages,
        memory: Sequence[Remembered],
        *,
        train: bool,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        x_BxhxwxC = self.conv(query.stage4, train=train)
        for frame in memory:
            x_BxhxwxC += frame["features"] - frame["mean_NxC"][:, None, None]
        return self.classifier(x_BxhxwxC / (len(memory) + 1)).astype(jnp.float32)


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "mean", MeanConfig)


NETWORKS = [
    dataclasses.replace(
        small_config(), head=MeanConfig(5, num_memory=num_memory, aux_channels=8, dropout=0.0)
    )
    for num_memory in (2, 0)
]


@pytest.fixture(params=NETWORKS, ids=["with memory", "without memory"])
def network(request):
    return request.param


def test_it_trains_and_goes_on_from_a_checkpoint(network, tmp_path: Path) -> None:
    check_trains_and_goes_on_from_a_checkpoint(network, tmp_path)


def test_its_stream_is_the_whole_clip(network) -> None:
    check_streams(network)


def test_its_weights_have_names_of_their_own(network, tmp_path: Path) -> None:
    check_saves_and_loads(network, tmp_path)
    names = set(files.read(tmp_path / "model.safetensors").tensors)
    assert {"head.conv.conv.weight", "decode_head.conv_seg.weight"} < names
    assert "backbone.layer4.0.conv1.weight" in names
