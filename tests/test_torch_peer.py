"""The PyTorch network that benchmarks compare with computes what this project's does.

python -m pytest -m torch
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.small_networks import SMALL
from tmanet_jax import weights
from tmanet_jax.inference.windows import segment_whole
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.weight_names import expected_shapes, to_tensors, with_tensors

pytestmark = pytest.mark.torch


@pytest.fixture
def torch():
    import torch  # here, so that the module can be collected without it

    return torch


@pytest.fixture
def peer(torch):
    from benchmarks import torch_peer  # it imports torch

    return torch_peer


def with_memory(num_memory: int, backbone: ResNetConfig = SMALL.backbone, **head) -> ModelConfig:
    return dataclasses.replace(
        SMALL,
        backbone=backbone,
        head=dataclasses.replace(SMALL.head, num_memory=num_memory, **head),
        align_corners=num_memory == 2,
    )


def random_model(config: ModelConfig, seed: int) -> TMANet:
    """Initial convolutions; gains, shifts and running statistics drawn, so that all of them count."""
    model = TMANet(config, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    tensors = to_tensors(nnx.state(model))
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            positive = name.endswith(("weight", "running_var"))
            tensors[name] = rng.uniform(0.5 if positive else -0.5, 1.5, tensor.shape)
    nnx.update(model, with_tensors(nnx.state(model), tensors))
    return model


def loaded(torch, peer, path, model: TMANet):
    """The same network in PyTorch, by way of a `.pth` file."""
    weights.save(path, model)
    network = peer.TMANet(model.config)
    network.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
    return network


def clips(num_memory: int, size: tuple[int, int]) -> np.ndarray:
    shape = (2, num_memory + 1, *size, 3)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def to_torch(torch, frames: np.ndarray):
    return torch.from_numpy(np.moveaxis(frames, -1, -3).copy())


def assert_close(torch_NxCxHxW, jax_NxHxWxC) -> None:
    expected = np.asarray(jax_NxHxWxC)
    found = np.moveaxis(torch_NxCxHxW.numpy(), 1, -1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (with_memory(2), (50, 71)),
        (with_memory(4, scale_scores=False), (41, 64)),
        (with_memory(0), (40, 48)),
        (with_memory(2, ResNetConfig(depth=18, deep_stem=False, width=4)), (33, 57)),
    ],
    ids=["T=2", "T=4", "no memory", "basic blocks, plain stem"],
)
def test_the_original_way_is_this_network(torch, peer, tmp_path, config, size):
    model = random_model(config, seed=3)
    network = loaded(torch, peer, tmp_path / "model.pth", model)
    frames = clips(config.head.num_memory, size)
    expected = model(jnp.asarray(frames)).main
    with torch.inference_mode():
        logits = network(to_torch(torch, frames))
        assert_close(logits, expected)
        full = segment_whole(model, jnp.asarray(frames))
        labels = network.labels(logits, size)
    assert (labels.numpy() == np.asarray(full.argmax(-1))).mean() > 0.999
