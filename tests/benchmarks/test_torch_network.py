"""The PyTorch network that benchmarks compare with computes what this project's does.

python -m pytest -m torch
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import inference
from tests.made.small_networks import BACKBONE, HEAD, SMALL, build
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.weights import load
from tmanet_jax.weights.names import to_tensors

pytestmark = pytest.mark.torch


@pytest.fixture
def torch():
    import torch  # here, so that the module can be collected without it

    return torch


@pytest.fixture
def torch_network(torch):
    from benchmarks import torch_network  # it imports torch

    return torch_network


def with_memory(num_memory: int, backbone: ResNetConfig = BACKBONE, **head) -> ModelConfig:
    return dataclasses.replace(
        SMALL,
        backbone=backbone,
        head=dataclasses.replace(HEAD, num_memory=num_memory, **head),
        align_corners=num_memory == 2,
    )


def random_model(config: ModelConfig, seed: int) -> TMANet:
    """Batch norm's gains, shifts and running statistics are random too."""
    rng = np.random.default_rng(seed)
    tensors = to_tensors(nnx.state(inference.random_model(config, seed)))
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
            tensors[name] = rng.uniform(low, 1.5, tensor.shape).astype(np.float32)
    return build(config, tensors)


def loaded(torch, torch_network, path, model: TMANet):
    """The same network in PyTorch, by way of a `.pth` file."""
    load.save(path, model)
    network = torch_network.TMANet(model.config, torch_network.read_memory)
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


PLAIN_BASIC = ResNetConfig(depth=18, deep_stem=False, width=4, blocks=(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (with_memory(2), (50, 71)),
        (with_memory(4, scale_scores=False), (41, 64)),
        (with_memory(0, PLAIN_BASIC), (33, 57)),
    ],
    ids=["T=2", "T=4", "no memory, basic blocks, plain stem"],
)
def test_it_is_this_projects_network(torch, torch_network, tmp_path, config, size):
    model = random_model(config, seed=3)
    network = loaded(torch, torch_network, tmp_path / "model.pth", model)
    frames = clips(config.head.num_memory, size)
    expected = nnx.jit(lambda model, frames: model(frames).main)(model, jnp.asarray(frames))
    full = resize_bilinear(expected, size, align_corners=config.align_corners)
    with torch.inference_mode():
        logits = network(to_torch(torch, frames))
        assert_close(logits, expected)
        assert_close(network.full_logits(logits, size), full)
        torch_network.fold_batch_norm(network)
        assert_close(network(to_torch(torch, frames)), expected)


def test_weights_that_lack_a_tensor_are_refused(torch, torch_network):
    network = torch_network.TMANet(SMALL, torch_network.read_memory)
    tensors = network.state_dict()
    del tensors["decode_head.memory_key_conv.1.0.bn.running_var"]
    with pytest.raises(RuntimeError, match=r"memory_key_conv\.1\.0\.bn\.running_var"):
        network.load_state_dict(tensors, strict=True)
