"""Evaluates a small random network, in one process or as one of several, and prints JSON.

    python -m tests.workers.evaluation RECORDS MESHES [COORDINATOR COUNT INDEX]

MESHES is e.g. '[[1, 4], [8, 1]]': devices, and clips at a time on each.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
from flax import nnx

from tests.made import tiny_runs
from tests.made.small_networks import untrained
from tmanet_jax import settings
from tmanet_jax.inputs import open_split
from tmanet_jax.parallel.sharding import make_mesh, replicated
from tmanet_jax.scoring.clips import compile_segmenter
from tmanet_jax.scoring.evaluate import evaluate


def main(data_dir: str, meshes: str, *distributed: str) -> None:
    """One line a mesh: the sums of each group, and the mIoU of every clip."""
    if distributed:
        coordinator, count, index = distributed
        jax.distributed.initialize(coordinator, int(count), int(index))
    config = tiny_runs.config(
        Path(data_dir), eval__ratios=(0.75,), eval__crop_size=(48, 80), eval__stride=(32, 64)
    )
    run = settings.from_config(config)
    graphdef, *state = nnx.split(untrained(run.model), nnx.Param, nnx.BatchStat)
    # on the devices of all processes, as after training
    state = jax.device_put(state, replicated(make_mesh()))
    source = open_split(run, "val", memory_range=2)
    for num_devices, batch_size in json.loads(meshes):
        program = compile_segmenter(
            graphdef,
            2,
            dataclasses.replace(run.evaluation, batch_size=batch_size),
            make_mesh(jax.local_devices()[:num_devices]),
        )
        evaluation = evaluate(program.with_weights(*state), source)
        sums = {name: part.tolist() for name, part in evaluation.confusion_of_group.items()}
        print(json.dumps({"sums": sums, "mIoU": evaluation.mean_iou_N.tolist()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
