"""The benchmark of training, on the smallest network; its step in PyTorch is this project's."""

import argparse
import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks import command, train
from benchmarks.command import Sizes
from benchmarks.harness import Side, race
from benchmarks.inference import random_model
from configs import demo
from tests.made.small_networks import SMALL
from tmanet_jax import settings
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.errors import UserError
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.parallel.sharding import make_mesh, put_batch, replicated
from tmanet_jax.settings import Settings
from tmanet_jax.training.setup import initial_state
from tmanet_jax.training.step import compile_train_step
from tmanet_jax.weights.names import Tensors, to_tensors

BACKBONE = ResNetConfig(depth=18, deep_stem=False, width=4, blocks=(1, 1, 1, 1))
NUM_STEPS = 2


def small_settings(size: tuple[int, int], **model) -> Settings:
    head = dataclasses.replace(SMALL.head, dropout=0.0)
    run = train.with_sizes(settings.from_config(demo.get_config()), size, 2)
    network = dataclasses.replace(SMALL, backbone=BACKBONE, head=head, **model)
    optimizer = dataclasses.replace(run.optimizer, warmup_steps=0, learning_rate=0.01)
    return dataclasses.replace(run, model=network, optimizer=optimizer)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Sizes((257, 200), 2)),
        ({"full": True}, Sizes((769, 200), 8)),
        ({"batch": 4}, Sizes((257, 200), 4)),
        ({"size": (64, 96)}, Sizes((64, 96), 2)),
    ],
)
def test_a_cpu_takes_less_than_the_configurations_sizes_unless_asked(given, expected):
    options = argparse.Namespace(**{"full": False, "size": None, "batch": None, **given})
    assert command.sizes_of(options, Sizes((769, 200), 8), train.ON_CPU) == expected


def test_random_batches_have_every_class_and_ignored_pixels():
    batch = train.random_batch(small_settings((16, 24)))
    assert batch.frames.shape == (2, 3, 16, 24, 3)
    assert set(np.unique(batch.labels)) == {*range(SMALL.head.num_classes), IGNORE}


def test_the_step_that_is_measured_trains():
    run = small_settings((16, 24))
    step = train.TrainSide(run)
    first, *_, last = (step.step()[0] for _ in range(6))
    assert last < first
    rival = train.TORCH_BEST_ON_GPU
    rivals = {rival: Side(lambda: (first,))}
    found = race(train.OURS, step.side(), rivals, turns=2, tolerance=np.inf)
    values = json.loads(train.findings_of(run, found).to_json())
    assert [row[0] for row in values["rows"]] == [train.OURS, rival]
    assert [target["target"] for target in values["targets"]] == [1.1]
    assert "2 clips of T=2, 16x24, ResNet-18, plain stem, float32" in values["title"]


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


@pytest.mark.torch
@pytest.mark.parametrize("memory_gradient", [True, False])
def test_losses_gradients_statistics_and_weights_in_torch_are_those_of_this_project(
    memory_gradient,
):
    import torch

    run = small_settings((41, 57), memory_gradient=memory_gradient)
    batch = train.random_batch(run)
    before, scalars, after = steps_here(run, batch)
    for way in train.TORCH_WAYS.values():
        if way.compiler != "eager":
            continue
        model, step = train.torch_step(run, before, way)
        frames, labels = torch.from_numpy(batch.frames), torch.from_numpy(batch.labels)
        loss = step(frames, labels)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        np.testing.assert_allclose((loss, norm), scalars[0], rtol=1e-4)
        for name, found in model.state_dict().items():
            np.testing.assert_allclose(
                found.numpy(), after[name], rtol=1e-3, atol=2e-4, err_msg=name
            )
        np.testing.assert_allclose(step(frames, labels), scalars[1][0], rtol=1e-3)


@pytest.mark.torch
def test_ignored_pixels_count_as_nothing_or_not_at_all():
    import torch

    labels = torch.tensor([[[0, 255], [255, 255]]])
    config = settings.from_config(demo.get_config()).loss
    every, valid = (
        train.torch_cross_entropy(
            torch.zeros(1, 4, 2, 2), labels, dataclasses.replace(config, average=average), True
        )
        for average in ("all", "valid")
    )
    np.testing.assert_allclose([every, valid], [np.log(4) / 4, np.log(4)], rtol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_an_accelerator_is_not_compared_with_a_torch_that_cannot_use_it(monkeypatch, backend):
    import torch

    from benchmarks import torch_run

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: backend == "tpu")
    with pytest.raises(UserError, match=f"JAX runs on a {backend}, this torch"):
        torch_run.device_of_jax()
