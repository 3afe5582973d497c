"""Networks of a few channels and random weights, for tests of weight files."""

import dataclasses
import functools
from unittest import mock

import jax
import numpy as np
from flax import nnx

from tmanet_jax.models import initial
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.models.tmanet import AUX_HEAD, ModelConfig, TMANet, abstract_model
from tmanet_jax.weights.names import Tensors, expected_dtype, expected_shapes, with_tensors

BACKBONE = ResNetConfig(depth=50, width=4, blocks=(1, 2, 1, 1))
HEAD = TMAHeadConfig(
    num_classes=5,
    num_memory=2,
    key_channels=3,
    value_channels=6,
    channels=8,
    dropout=0.25,
    scale_scores=True,
)
AUX = dataclasses.replace(AUX_HEAD, channels=7)
SMALL = ModelConfig(BACKBONE, HEAD, AUX, align_corners=False)
SMALL_CITYSCAPES = dataclasses.replace(SMALL, head=dataclasses.replace(HEAD, num_classes=19))


def random_tensors(config: ModelConfig, seed: int) -> Tensors:
    """A whole network's tensors, by the original's names."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(-1000, 1000, shape).astype(expected_dtype(name))
        for name, shape in expected_shapes(config).items()
    }


@functools.cache
def cityscapes_tensors() -> Tensors:
    """Those of `SMALL_CITYSCAPES`."""
    return random_tensors(SMALL_CITYSCAPES, seed=1)


def backbone_of(tensors: Tensors) -> Tensors:
    """The backbone's tensors, named as in a file of a backbone alone."""
    return {
        name.removeprefix("backbone."): tensor
        for name, tensor in tensors.items()
        if name.startswith("backbone.")
    }


def assert_same(tensors: Tensors, others: Tensors) -> None:
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype, name
        np.testing.assert_array_equal(tensor, others[name], name)


def build(config: ModelConfig, tensors: Tensors) -> TMANet:
    """The network of this configuration, with these tensors."""
    graphdef, state = nnx.split(abstract_model(config))
    return nnx.merge(graphdef, with_tensors(state, tensors))


def merged(graphdef: nnx.GraphDef, state: nnx.State) -> TMANet:
    """A network of copies of these weights, which a step of training may be given."""
    return nnx.merge(graphdef, jax.device_put(jax.tree.map(np.array, state)))


def kept(model: TMANet) -> tuple[nnx.GraphDef, nnx.State]:
    """What `merged` takes."""
    graphdef, state = nnx.split(model)
    return graphdef, jax.tree.map(np.asarray, state)


def initialised(config: ModelConfig) -> TMANet:
    """As a run begins, but drawn by numpy: jax compiles its draws anew for every size."""
    return merged(*_initialised(config))


@functools.cache
def _initialised(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    rng = np.random.default_rng(0)

    def drawn_flat(key: jax.Array, size: int) -> np.ndarray:
        return rng.standard_normal(size).astype(np.float32)

    with mock.patch.object(initial, "drawn_flat", drawn_flat):
        return kept(TMANet(config, rngs=nnx.Rngs(0)))


def untrained(config: ModelConfig) -> TMANet:
    """A network of random kernels that keep the size of what they are applied to, made at once."""
    rng = np.random.default_rng(0)

    def weights(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:
            return np.ones(shape, np.float32)
        return rng.standard_normal(shape, np.float32) / np.sqrt(np.float32(np.prod(shape[:-1])))

    graphdef, state = nnx.split(abstract_model(config))
    return nnx.merge(graphdef, jax.device_put(jax.tree.map(lambda x: weights(x.shape), state)))
