"""What any network must do, whatever backbone and head its configuration builds."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from tests.inference.test_stream import assert_stream_is_clip, no_resets, video
from tests.made.small_networks import initialised
from tests.models.test_tmanet import trained
from tmanet_jax.checkpoints.store import Checkpoints
from tmanet_jax.data.samples import Batch
from tmanet_jax.models.losses import LossConfig
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.parallel.sharding import make_mesh, put_batch, replicated
from tmanet_jax.protocol import Protocol
from tmanet_jax.training.optimizer import OptimizerConfig, make_optimizer
from tmanet_jax.training.step import Recipe, TrainState, compile_train_step, init_state
from tmanet_jax.weights import load


def check_trains_and_goes_on_from_a_checkpoint(config: ModelConfig, tmp_path: Path) -> None:
    """Four steps lower the loss of one batch; the saved state comes back bit by bit."""
    mesh = make_mesh(jax.devices()[:1])
    optimizer = make_optimizer(OptimizerConfig(), num_steps=10)
    graphdef, state = init_state(initialised(config), optimizer)
    state = jax.device_put(state, replicated(mesh))  # as the step gives it: it is traced once
    step = compile_train_step(Recipe(graphdef, optimizer, LossConfig(), True, seed=0), mesh)
    batch = put_batch(noise(config), mesh)
    losses = []
    for _ in range(4):
        state, metrics = step(state, batch)
        losses.append(float(metrics.losses.total))
    assert losses[-1] < losses[0]
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1, model=config)
    checkpoints.save(4, state)
    checkpoints.wait()
    like = jax.tree.map(np.zeros_like, state)
    restored: TrainState = checkpoints.restore(4, like, replicated(mesh))
    checkpoints.close()
    for new, old in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(new, old)
    read = load.load_model(tmp_path / "checkpoints" / "4").model
    head = dataclasses.replace(config.head, dropout=read.config.head.dropout)  # in none
    assert read.config == dataclasses.replace(config, head=head, remat=False)  # nor is remat


def check_streams(config: ModelConfig) -> None:
    """Each frame says what its whole clip says, in windows too."""
    resets_BxL = no_resets(2, 6)
    resets_BxL[1, 3] = True
    for protocol in (Protocol(memory_stride=2), Protocol("slide", (24, 32), (16, 24))):
        assert_stream_is_clip(trained(config), protocol, video(2, 6, (33, 49)), resets_BxL)


def check_saves_and_loads(config: ModelConfig, tmp_path: Path) -> None:
    """A file of weights names the kinds, and gives the network back."""
    path, model = tmp_path / "model.safetensors", trained(config)
    load.save(path, model)
    again = load.load_model(path).model
    assert again.config == config
    of_both = zip(jax.tree.leaves(nnx.state(again)), jax.tree.leaves(nnx.state(model)), strict=True)
    for new, old in of_both:
        np.testing.assert_array_equal(new, old)


def noise(config: ModelConfig) -> Batch:
    """A batch of two clips."""
    rng, size = np.random.default_rng(0), (33, 49)
    return Batch(
        frames=rng.integers(0, 256, (2, config.head.num_memory + 1, *size, 3), np.uint8),
        labels=rng.integers(0, config.head.num_classes, (2, *size), np.uint8),
        sizes=np.full((2, 2), size, np.int32),
        indices=np.arange(2),
    )
