"""One training step: a pure function of the state and a batch."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh

from tmanet_jax.data.samples import Batch
from tmanet_jax.models.losses import LossConfig, Losses, segmentation_loss
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tmanet import TMANet, Weights, split
from tmanet_jax.parallel.sharding import batch_sharding, on_mesh, replicated
from tmanet_jax.training.rates import without_frozen


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
        params: the network's parameters.
        batch_stats: running statistics of its batch norms.
        opt_state: of the optax transformation.
        step: updates done so far; also the data position and the dropout's seed.
        ema: moving average of parameters and statistics; None: none is kept.
    """

    params: nnx.State
    batch_stats: nnx.State
    opt_state: Any
    step: jax.Array
    ema: Weights | None = None

    @property
    def network(self) -> Weights:
        """Those that train."""
        return Weights(self.params, self.batch_stats)

    @property
    def scored(self) -> Weights:
        """Those that are scored and kept: the moving average, if there is one."""
        return self.network if self.ema is None else self.ema


class StepMetrics(NamedTuple):
    """Scalars of one step, before its update."""

    losses: Losses
    grad_norm: jax.Array
    """L2 over all parameters that train, before any clipping."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What stays the same from step to step.

    Attributes:
        graphdef: structure of the network, from `nnx.split`.
        optimizer: from gradients to updates.
        loss: how the loss is computed.
        align_corners: how logits are up-sampled to the labels.
        seed: of the dropout.
        frozen: patterns of parameters without a gradient.
        ema_decay: of the moving average, if the state has one.
        accumulate: parts of a batch that go through the network one after the other.
        skips_not_finite: a step whose loss or gradient is not finite changes counters alone.
    """

    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    loss: LossConfig
    align_corners: bool
    seed: int
    frozen: tuple[str, ...] = ()
    ema_decay: float = 0.0
    accumulate: int = 1
    skips_not_finite: bool = False


def init_state(
    model: TMANet, optimizer: optax.GradientTransformation
) -> tuple[nnx.GraphDef, TrainState]:
    """Splits a freshly made (or loaded) network into its structure and the state of step 0."""
    graphdef, weights = split(model)
    step = jnp.zeros((), jnp.int32)
    return graphdef, TrainState(*weights, jax.jit(optimizer.init)(weights.params), step)


def train_step(state: TrainState, batch: Batch, recipe: Recipe) -> tuple[TrainState, StepMetrics]:
    """Forward, backward and update on one global batch."""
    dropout_key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
    if recipe.accumulate == 1:
        result = _gradients(state.params, state.batch_stats, batch, dropout_key, recipe)
    else:
        result = _accumulated_gradients(state, batch, dropout_key, recipe)
    updates, opt_state = recipe.optimizer.update(result.grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = StepMetrics(result.losses, optax.global_norm(result.grads))
    ema = state.ema
    if ema is not None:
        ema = moved_average(ema, Weights(params, result.batch_stats), state.step, recipe.ema_decay)
    new = TrainState(params, result.batch_stats, opt_state, state.step + 1, ema)
    return (if_finite(metrics, new, state) if recipe.skips_not_finite else new), metrics


def moved_average(average: Weights, new: Weights, step: jax.Array, decay: float) -> Weights:
    """The average + (1 - d) * (new - average) with d = min(decay, (1 + step) / (10 + step)).

    The first steps of a run weigh more, so that its random weights are soon forgotten; counts of
    updates are the new ones.

    Source: `tf.train.ExponentialMovingAverage` with `num_updates`; of statistics, too, as timm's
    `ModelEmaV2`.
    """
    share = jnp.maximum(1 - decay, 9 / (10 + step))

    def move(average: jax.Array, new: jax.Array) -> jax.Array:
        if jnp.issubdtype(new.dtype, jnp.integer):
            return new
        return average + share.astype(new.dtype) * (new - average)

    return jax.tree.map(move, average, new)


def if_finite(metrics: StepMetrics, new: TrainState, old: TrainState) -> TrainState:
    """The new state; or the old one, but for counters: the step's and the schedule's go on."""
    is_finite = jnp.isfinite(metrics.losses.total) & jnp.isfinite(metrics.grad_norm)

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        is_counter = jnp.issubdtype(new.dtype, jnp.integer)
        return new if is_counter else jnp.where(is_finite, new, old)

    return jax.tree.map(choose, new, old)


class _Gradients(NamedTuple):
    """What a batch, or a part of one, says."""

    grads: nnx.State
    losses: Losses
    batch_stats: nnx.State
    """Running statistics, moved by this batch."""


def _gradients(
    params: nnx.State,
    batch_stats: nnx.State,
    batch: Batch,
    dropout_key: jax.Array,
    recipe: Recipe,
) -> _Gradients:
    frames_BxSxHxWx3 = normalize(jnp.asarray(batch.frames), jnp.asarray(batch.sizes))

    def loss_of(params: nnx.State) -> tuple[jax.Array, tuple[Losses, nnx.State]]:
        model = nnx.merge(recipe.graphdef, params, batch_stats, copy=True)
        logits = model(frames_BxSxHxWx3, train=True, dropout_key=dropout_key)
        losses = segmentation_loss(
            logits, jnp.asarray(batch.labels), recipe.loss, align_corners=recipe.align_corners
        )
        return losses.total, (losses, nnx.state(model, nnx.BatchStat))

    (_, (losses, moved)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return _Gradients(without_frozen(grads, recipe.frozen), losses, moved)


def _accumulated_gradients(
    state: TrainState, batch: Batch, dropout_key: jax.Array, recipe: Recipe
) -> _Gradients:
    """The mean over the parts of a batch, of which one at a time is in memory.

    As in torch, batch norm sees one part at a time, and the running statistics move with each. Part
    i takes clips i, i + accumulate, ..., so that no clip leaves its device.
    """
    parts_AxB = jax.tree.map(
        lambda x: x.reshape(-1, recipe.accumulate, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def add(total: _Gradients, index_and_part: tuple[jax.Array, Batch]) -> tuple[_Gradients, None]:
        index, part = index_and_part
        key = jax.random.fold_in(dropout_key, index)
        new = _gradients(state.params, total.batch_stats, part, key, recipe)
        grads, losses = jax.tree.map(
            lambda a, b: a + b / recipe.accumulate,
            (total.grads, total.losses),
            (new.grads, new.losses),
        )
        return _Gradients(grads, losses, new.batch_stats), None

    nothing = _Gradients(
        jax.tree.map(jnp.zeros_like, state.params),
        Losses(*[jnp.zeros(())] * len(Losses._fields)),
        state.batch_stats,
    )
    total, _ = lax.scan(add, nothing, (jnp.arange(recipe.accumulate), parts_AxB))
    return total


def compile_train_step(recipe: Recipe, mesh: Mesh) -> jax.stages.Wrapped:
    """`train_step` for a mesh, (state, batch): batch spread, state replicated and donated."""
    whole, spread = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        on_mesh(lambda state, batch: train_step(state, batch, recipe), mesh),
        in_shardings=(whole, spread),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )
