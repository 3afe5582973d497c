"""Joins other processes and sums batches with them for ever, without a network: quick to start.

python -m tests.workers.joined RECORDS COORDINATOR COUNT INDEX PEER_TIMEOUT
"""

import sys
from pathlib import Path

import jax

from tests.made import tiny_runs
from tmanet_jax import settings
from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.errors import ends_with_message
from tmanet_jax.inputs import open_split
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.distributed import Launch
from tmanet_jax.parallel.sharding import batch_part, make_mesh, put_batch


@ends_with_message
def main(data_dir: str, coordinator: str, count: str, index: str, peer_timeout: str) -> int:
    """Prints the steps that are done."""
    with distributed.joined(Launch(coordinator, int(count), int(index), 120, int(peer_timeout))):
        run = settings.from_config(tiny_runs.config(Path(data_dir)))
        mesh = make_mesh()
        part = batch_part(mesh)
        total = jax.jit(lambda batch: batch.labels.sum())
        with train_batches(
            open_split(run, "train", memory_range=2),
            run.data.augmentation,
            num_memory=2,
            memory_range=2,
            batch_size=2,
            seed=0,
            part_index=part.index,
            part_count=part.count,
            num_workers=1,
        ) as batches:
            for step, batch in enumerate(batches):
                print(f"step {step}: {int(total(put_batch(batch, mesh)))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
