"""Backbones alone, by the framework's configuration of them."""

import jax
import numpy as np
from flax import nnx

from tests.parity.goldens import Case, assert_features_close, nchw, with_tuples
from tests.parity.network import cast, compiled, precision
from tmanet_jax.models.backbone import Backbone, BackboneConfig, Stages
from tmanet_jax.weights import original_config
from tmanet_jax.weights.names import to_tensors, with_tensors
from tmanet_jax.weights.networks import backbone_with_said, shown_config


class _Network(nnx.Module):
    """A backbone alone, where a network has it."""

    def __init__(self, config: BackboneConfig, dtype: str):
        self.backbone: Backbone = config.build(dtype=dtype, remat=False, rngs=nnx.Rngs(0))

    def __call__(self, frames_NxHxWx3: jax.Array) -> Stages:
        return self.backbone(frames_NxHxWx3, train=False)


def check_backbone(case: Case, dtype: str) -> None:
    """Features of the four stages, of the configuration that the converter makes of the case's."""
    original = {"model": {"backbone": with_tuples(case.facts["config"])}}
    assert not original_config.backbone_problems(original)
    tensors = case.tensors()
    shown = shown_config(tensors)
    assert isinstance(shown, BackboneConfig)
    config = backbone_with_said(shown, original)
    with precision(dtype):
        network = nnx.eval_shape(lambda: _Network(config, dtype))
        network.set_attributes(precision="highest")
        graphdef, state = nnx.split(network)
        tensors = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
        state = with_tensors(state, tensors)
        assert set(to_tensors(state)) == set(tensors)
        network = nnx.merge(graphdef, jax.tree.map(lambda leaf: cast(leaf, dtype), state))
        frames = np.moveaxis(case.input(case.facts["seed"], case.facts["shape"]), 1, -1)
        stages = compiled(network, _Network.__call__)(frames.astype(dtype))
        suffix = "_f64" if dtype == "float64" else ""
        for number, stage_NxHxWxC in enumerate(stages, start=1):
            name = f"stage{number}{suffix}"
            assert_features_close(nchw(stage_NxHxWxC), case.arrays[name], name)
            assert stage_NxHxWxC.shape[-1] == config.stage_channels[number - 1]
        height, width = case.facts["shape"][2:]
        size = (-(-height // config.stride), -(-width // config.stride))
        assert stages.stage4.shape[1:3] == size
