"""Evaluates a small random network, in one process or as one of several, and prints JSON.

    python -m tests.evaluation_worker RECORDS MESHES [COORDINATOR COUNT INDEX]

MESHES is e.g. '[[1, 4], [8, 1]]': devices, and clips at a time on each.
"""

import dataclasses
import json
import sys

import jax

from configs import demo
from tests import tiny_runs
from tmanet_jax import settings
from tmanet_jax.inference.evaluate import evaluate
from tmanet_jax.inference.segment import compile_segmenter
from tmanet_jax.sharding import make_mesh, replicated
from tmanet_jax.train.start import initial_state, open_split, random_model


def main(data_dir: str, meshes: str, *distributed: str) -> None:
    """One line a mesh: the confusion matrix of every clip."""
    if distributed:
        coordinator, count, index = distributed
        jax.distributed.initialize(coordinator, int(count), int(index))
    config = demo.get_config()
    config.data.dir = data_dir
    config.data.crop_size = (48, 80)
    config.model.width = tiny_runs.WIDTH
    config.eval.crop_size, config.eval.stride = (48, 80), (16, 48)
    config.eval.ratios, config.eval.flip = (0.75, 1.0), True
    run = settings.from_config(config)
    recipe, state = initial_state(run, random_model(run), class_weights=None)
    state = jax.device_put(state, replicated(make_mesh()))  # on the devices of all processes
    source = open_split(run, "val", memory_range=2)
    for num_devices, batch_size in json.loads(meshes):
        program = compile_segmenter(
            recipe.graphdef,
            2,
            dataclasses.replace(run.evaluation, batch_size=batch_size),
            make_mesh(jax.local_devices()[:num_devices]),
        )
        evaluation = evaluate(program.with_weights(*state.network), source)
        print(json.dumps(evaluation.confusion_NxCxC.tolist()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
