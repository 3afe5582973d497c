"""Measurements that the README quotes."""

import os

from tmanet_jax.program import tell_loading

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle threads leave the cores alone
tell_loading()
