"""One training step: a pure function of the state and a batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from tmanet_jax.data.pipeline import Batch
from tmanet_jax.losses import LossConfig, Losses, segmentation_loss
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.normalize import normalize
from tmanet_jax.sharding import batch_sharding, replicated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
        params: the network's parameters.
        batch_stats: running statistics of its batch norms.
        opt_state: of the optax transformation.
        step: updates done so far; also the data position and the dropout's seed.
    """

    params: nnx.State
    batch_stats: nnx.State
    opt_state: Any
    step: jax.Array

    @property
    def network(self) -> tuple[nnx.State, nnx.State]:
        """Parameters and statistics, as `nnx.merge` takes them after the structure."""
        return self.params, self.batch_stats


class StepMetrics(NamedTuple):
    """Scalars of one step, before its update."""

    losses: Losses
    grad_norm: jax.Array
    """L2 over all parameters."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What stays the same from step to step.

    Attributes:
        graphdef: structure of the network, from `nnx.split`.
        optimizer: from gradients to updates.
        loss: how the loss is computed.
        align_corners: how logits are up-sampled to the labels.
        seed: of the dropout.
    """

    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    loss: LossConfig
    align_corners: bool
    seed: int


def init_state(
    model: TMANet, optimizer: optax.GradientTransformation
) -> tuple[nnx.GraphDef, TrainState]:
    """Splits a freshly made (or loaded) network into its structure and the state of step 0."""
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = states
    step = jnp.zeros((), jnp.int32)
    return graphdef, TrainState(params, batch_stats, optimizer.init(params), step)


def train_step(state: TrainState, batch: Batch, recipe: Recipe) -> tuple[TrainState, StepMetrics]:
    """Forward, backward and update on one global batch."""
    dropout_key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
    frames_BxSxHxWx3 = normalize(jnp.asarray(batch.frames), jnp.asarray(batch.sizes))

    def loss_of(params: nnx.State) -> tuple[jax.Array, tuple[Losses, nnx.State]]:
        model = nnx.merge(recipe.graphdef, params, state.batch_stats, copy=True)
        logits = model(frames_BxSxHxWx3, train=True, dropout_key=dropout_key)
        losses = segmentation_loss(
            logits, jnp.asarray(batch.labels), recipe.loss, align_corners=recipe.align_corners
        )
        return losses.total, (losses, nnx.state(model, nnx.BatchStat))

    (_, (losses, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = recipe.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = StepMetrics(losses, optax.global_norm(grads))
    return TrainState(params, batch_stats, opt_state, state.step + 1), metrics


def compile_train_step(
    recipe: Recipe, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """`train_step` for a mesh: batch spread, state replicated and donated."""
    whole, spread = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        lambda state, batch: train_step(state, batch, recipe),
        in_shardings=(whole, spread),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )
