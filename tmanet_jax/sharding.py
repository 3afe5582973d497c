"""Where arrays live: one mesh, its axis names, and how batches and parameters lie on it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tmanet_jax.errors import UserError

DATA_AXIS = "data"
"""Mesh axis over which the clips of a batch are spread."""


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """These devices in one axis; by default all of all processes."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (DATA_AXIS,))


def local_mesh() -> Mesh:
    """The devices of this process alone."""
    return make_mesh(jax.local_devices())


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters, statistics, optimiser state."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis spread over the devices: batches."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises UserError if the devices do not divide the global batch."""
    if batch_size % mesh.size:
        raise UserError(
            f"A batch of {batch_size} clips cannot be spread evenly over {mesh.size} devices: set "
            f"--config.batch_size to a multiple of {mesh.size}."
        )


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a batch (a pytree of numpy arrays) -> global arrays on the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def put_locally(tree: Any, mesh: Mesh) -> Any:
    """Arrays that are whole on every device -> the same on this process's mesh alone."""

    def put(array: jax.Array) -> jax.Array:
        mine = array if array.is_fully_addressable else array.addressable_data(0)
        return jax.device_put(mine, replicated(mesh))

    return jax.tree.map(put, tree)


def to_default_device(tree: Any) -> Any:
    """Arrays that are whole on every device -> the same on this process's first device, unbound.

    A program whose weights are bound to a device gives results that are, and is compiled once more
    when they are handed back to it.
    """
    return jax.tree.map(lambda array: jnp.asarray(np.asarray(array.addressable_data(0))), tree)
