"""The training step that benchmarks compare with is this project's.

python -m pytest -m torch
"""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks import train
from benchmarks.stream import random_model
from benchmarks.train import Case
from configs import demo
from tests.made.small_networks import SMALL
from tmanet_jax import settings
from tmanet_jax.errors import UserError
from tmanet_jax.models.backbones import ResNetConfig
from tmanet_jax.parallel.sharding import make_mesh, put_batch, replicated
from tmanet_jax.settings import Settings
from tmanet_jax.train.recipe import initial_state
from tmanet_jax.train.step import compile_train_step
from tmanet_jax.weights.names import Tensors, to_tensors

pytestmark = pytest.mark.torch

CASE = Case((41, 57), 2)
NUM_STEPS = 2


BACKBONE = ResNetConfig(depth=18, deep_stem=False, width=4, blocks=(1, 1, 1, 1))


def small_settings(**model) -> Settings:
    head = dataclasses.replace(SMALL.head, dropout=0.0)
    run = train.with_case(settings.from_config(demo.get_config()), CASE)
    network = dataclasses.replace(SMALL, backbone=BACKBONE, head=head, **model)
    optimizer = dataclasses.replace(run.optimizer, warmup_steps=0, learning_rate=0.01)
    return dataclasses.replace(run, model=network, optimizer=optimizer)


def steps_here(run: Settings, batch) -> tuple[Tensors, list[tuple[float, float]], Tensors]:
    """The weights before; loss and gradients' norm of each step; the weights after the first."""
    mesh = make_mesh()
    model = random_model(run.model, run.seed)
    before = {name: tensor.copy() for name, tensor in to_tensors(nnx.state(model)).items()}
    recipe, state = initial_state(run, model, None)
    state = jax.device_put(state, replicated(mesh))
    step_fn = compile_train_step(recipe, mesh)
    scalars, after = [], {}
    for step in range(NUM_STEPS):
        state, metrics = step_fn(state, put_batch(batch, mesh))
        scalars.append((float(metrics.losses.total), float(metrics.grad_norm)))
        if step == 0:
            after = to_tensors(nnx.state(nnx.merge(recipe.graphdef, *state.network)))
    return before, scalars, after


@pytest.fixture(scope="module", params=[True, False], ids=["", "no gradient into the memory"])
def run(request) -> Settings:
    return small_settings(memory_gradient=request.param)


@pytest.fixture(scope="module")
def batch(run):
    return train.random_batch(run, CASE)


@pytest.fixture(scope="module")
def here(run, batch):
    return steps_here(run, batch)


@pytest.mark.parametrize(
    "name",
    ["torch, the original's way", "torch, channels last", "torch, channels last, SDPA"],
)
def test_losses_gradients_statistics_and_weights_are_those_of_this_project(run, batch, here, name):
    import torch

    from benchmarks import torch_train

    before, scalars, after = here
    peer = torch_train.TrainStep(run, before, torch_train.VARIANTS[name])
    frames, labels = torch.from_numpy(batch.frames), torch.from_numpy(batch.labels)
    loss = peer.step(frames, labels)
    gradients = [p.grad for p in peer.model.parameters() if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    np.testing.assert_allclose((loss, norm), scalars[0], rtol=1e-4)
    for tensor_name, found in peer.model.state_dict().items():
        expected = after[tensor_name]
        np.testing.assert_allclose(
            found.numpy(), expected, rtol=1e-3, atol=2e-4, err_msg=tensor_name
        )
    np.testing.assert_allclose(peer.step(frames, labels), scalars[1][0], rtol=1e-3)


def test_ignored_pixels_count_as_nothing_or_not_at_all():
    import torch

    from benchmarks.torch_train import cross_entropy

    logits = torch.zeros(1, 4, 2, 2)
    labels = torch.tensor([[[0, 255], [255, 255]]])
    config = settings.from_config(demo.get_config()).loss
    every, valid = (
        cross_entropy(
            logits, labels, dataclasses.replace(config, average=average), align_corners=True
        )
        for average in ("all", "valid")
    )
    np.testing.assert_allclose([every, valid], [np.log(4) / 4, np.log(4)], rtol=1e-6)


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_an_accelerator_is_not_compared_with_a_torch_that_cannot_use_it(monkeypatch, backend):
    import torch

    from benchmarks import torch_train

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: backend == "tpu")
    with pytest.raises(UserError, match=f"JAX runs on a {backend}, this torch"):
        torch_train.device_of_jax()
