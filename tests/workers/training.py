"""Trains a tiny network as one of several processes; ends as `run.py` does.

python -m tests.workers.training RECORDS WORKDIR STEPS COORDINATOR COUNT INDEX
"""

import sys
from pathlib import Path

import jax

from tests.made import tiny_runs
from tmanet_jax import settings
from tmanet_jax.errors import ends_with_message
from tmanet_jax.training.loop import train


@ends_with_message
def main(data_dir: str, workdir: str, steps: str, coordinator: str, count: str, index: str) -> int:
    """Returns the exit status."""
    jax.distributed.initialize(coordinator, int(count), int(index))
    config = tiny_runs.config(Path(data_dir), num_steps=int(steps), eval__every=int(steps))
    train(settings.from_config(config), Path(workdir))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
