"""Joins other processes and sums with them for ever; the second one is in trouble before.

python -m tests.workers.disturbed COORDINATOR COUNT INDEX PEER_TIMEOUT memory|stops
"""

import os
import signal
import sys
import time

import jax
import jax.numpy as jnp

from tmanet_jax.errors import ends_with_message
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.distributed import Launch
from tmanet_jax.parallel.sharding import make_mesh, put_batch


@ends_with_message
def main(coordinator: str, count: str, index: str, peer_timeout: str, trouble: str) -> int:
    """Never returns."""
    launch = Launch(coordinator, int(count), int(index), 120, int(peer_timeout))
    with distributed.joined(launch):
        joined = time.monotonic()
        mesh, total = make_mesh(), jax.jit(jnp.sum)
        one = put_batch(jnp.ones(1), mesh)
        distributed.wait_for_all("ready")
        total(one).block_until_ready()
        if index == "1" and trouble == "memory":
            jnp.zeros(2**44).block_until_ready()
        if index == "1" and trouble == "stops":
            beat_s = distributed.JAX_TIMEOUTS * launch.peer_timeout_s / 2
            time.sleep(joined + beat_s - 0.2 - time.monotonic())
            os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            total(one).block_until_ready()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
