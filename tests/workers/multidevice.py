"""Trains and evaluates on several meshes, and prints what came out of each as JSON."""

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks import hlo
from tests.made import tiny_runs
from tmanet_jax import settings
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.inputs import open_split, random_model
from tmanet_jax.models import upsampling
from tmanet_jax.models.losses import LossConfig, segmentation_loss
from tmanet_jax.models.tmanet import Logits
from tmanet_jax.parallel.sharding import MeshConfig, make_mesh, on_mesh, put_batch, replicated
from tmanet_jax.scoring.clips import compile_segmenter
from tmanet_jax.scoring.evaluate import evaluate
from tmanet_jax.training.setup import initial_state
from tmanet_jax.training.step import compile_train_step

NUM_STEPS = 2

MESHES = ((1, 1), (8, 1), (8, 2), (8, 8))
"""Devices, and how many of them share an image."""


def main(data_dir: str) -> None:
    """One JSON object a mesh: its losses, its average of statistics, its confusion matrices.

    Several devices take logits in blocks of columns, one takes them at once.
    """
    run = settings.from_config(tiny_runs.config(Path(data_dir), batch_size=8, ema_decay=0.5))
    for num_devices, space in MESHES:
        mesh = make_mesh(jax.devices()[:num_devices], MeshConfig(space))
        in_blocks = mock.patch.object(upsampling, "FLOATS_AT_A_TIME", 2**12)
        with in_blocks if num_devices > 1 else contextlib.nullcontext():
            print(json.dumps(results(run, mesh)), flush=True)


def results(run: settings.Settings, mesh: Mesh) -> dict[str, object]:
    """Trains a few steps from the same weights, then scores."""
    recipe, state = initial_state(run, random_model(run), class_weights=None)
    state = jax.device_put(state, replicated(mesh))
    source = open_split(run, "train", memory_range=2)
    batches = train_batches(
        source,
        run.data.augmentation,
        num_memory=2,
        memory_range=2,
        batch_size=run.batch_size,
        seed=0,
    )
    batch = put_batch(next(batches), mesh)
    step_fn = compile_train_step(recipe, mesh).lower(state, batch).compile()
    losses = []
    for _ in range(NUM_STEPS):
        state, metrics = step_fn(state, batch)
        batch = put_batch(next(batches), mesh)
        losses.append(float(metrics.losses.total))
    batches.close()
    program = compile_segmenter(recipe.graphdef, 2, run.evaluation, mesh)
    evaluation = evaluate(
        program.with_weights(*state.scored), open_split(run, "val", memory_range=2)
    )
    statistics = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.scored.batch_stats)])
    costs, text = step_fn.cost_analysis(), step_fn.as_text()
    assert costs and text
    return {
        "losses": losses,
        "of_every_kind": losses_of_every_kind(mesh),
        "statistics": statistics.tolist(),
        "confusion": evaluation.confusion_CxC.tolist(),
        "flops": costs["flops"],
        "collectives": [dataclasses.asdict(one) for one in hlo.Hlo(text).collectives()],
    }


def losses_of_every_kind(mesh: Mesh) -> list[float]:
    """A sum of them of fixed logits, and the norm of its gradient."""
    rng = np.random.default_rng(0)
    logits_BxhxwxC = rng.standard_normal((8, 4, 5, 6), np.float32)
    labels_BxHxW = rng.choice([0, 1, 2, 5, IGNORE], (8, 16, 20)).astype(np.uint8)
    config = LossConfig("ohem", ohem_kept=100, added=("dice=1", "lovasz=1"))

    def loss(logits_BxhxwxC: jax.Array, labels_BxHxW: jax.Array) -> jax.Array:
        logits = Logits(logits_BxhxwxC, logits_BxhxwxC)
        return segmentation_loss(logits, labels_BxHxW, config, align_corners=True).total

    program = jax.jit(on_mesh(jax.value_and_grad(loss), mesh))
    value, gradient = program(*put_batch((logits_BxhxwxC, labels_BxHxW), mesh))
    return [float(value), float(jnp.linalg.norm(gradient.ravel()))]


if __name__ == "__main__":
    main(sys.argv[1])
