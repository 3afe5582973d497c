"""Evaluates a small random network, in one process or as one of several, and prints JSON.

    python -m tests.evaluation_worker RECORDS MESHES [COORDINATOR COUNT INDEX]

MESHES is e.g. '[[1, 4], [8, 1]]': devices, and clips at a time on each.
"""

import dataclasses
import json
import sys

import jax
import numpy as np
from flax import nnx

from configs import demo
from tests import tiny_runs
from tmanet_jax import settings
from tmanet_jax.inference.evaluate import evaluate
from tmanet_jax.inference.segment import compile_segmenter
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.sharding import make_mesh, replicated
from tmanet_jax.train.start import open_split


def main(data_dir: str, meshes: str, *distributed: str) -> None:
    """One line a mesh: the confusion matrix of every clip."""
    if distributed:
        coordinator, count, index = distributed
        jax.distributed.initialize(coordinator, int(count), int(index))
    config = demo.get_config()
    config.data.dir = data_dir
    config.data.crop_size = (48, 80)
    config.model.width = tiny_runs.WIDTH
    config.eval.crop_size, config.eval.stride = (48, 80), (32, 64)
    config.eval.ratios = (0.75, 1.0)
    run = settings.from_config(config)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: TMANet(run.model, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: weights(leaf.shape, rng), state)
    state = jax.device_put(state, replicated(make_mesh()))  # on the devices of all processes
    params, batch_stats = nnx.split_state(state, nnx.Param, ...)
    source = open_split(run, "val", memory_range=2)
    for num_devices, batch_size in json.loads(meshes):
        program = compile_segmenter(
            graphdef,
            2,
            dataclasses.replace(run.evaluation, batch_size=batch_size),
            make_mesh(jax.local_devices()[:num_devices]),
        )
        evaluation = evaluate(program.with_weights(params, batch_stats), source)
        print(json.dumps(evaluation.confusion_NxCxC.tolist()), flush=True)


def weights(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random kernels that keep the size of what they are applied to; 1 for everything else."""
    if len(shape) < 2:
        return np.ones(shape, np.float32)
    return rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[:-1]), dtype=np.float32)


if __name__ == "__main__":
    main(*sys.argv[1:])
