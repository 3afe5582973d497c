"""Where arrays live: one mesh, the names of its axes, and how everything lies on it.

The mesh has two axes. Over `data` the clips of a batch are spread. The devices along `space` share
each image: they hold rows of it, from top to bottom. Parameters, statistics and optimiser state are
whole on every device.

Inside a compiled program the mesh is the ambient one (`on_mesh`), so that the network can say where
its arrays lie without being handed a mesh; without one, the functions below change nothing.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tmanet_jax.allocator import without_collection
from tmanet_jax.errors import UserError, counted
from tmanet_jax.fields import MOST_AT_ONCE, Checked, field

DATA_AXIS = "data"
"""Mesh axis over which the clips of a batch are spread."""

SPACE_AXIS = "space"
"""Mesh axis over which the rows of each image are spread."""


@dataclasses.dataclass(frozen=True)
class MeshConfig(Checked):
    """How the devices are divided."""

    space: int = field(
        1,
        "devices that share each image, by rows; the others divide the batch",
        low=1,
        high=MOST_AT_ONCE,
    )


@dataclasses.dataclass(frozen=True)
class BatchPart:
    """Which part of every batch a process reads: the index-th of count equal ones."""

    index: int
    count: int


def make_mesh(
    devices: Sequence[jax.Device] | None = None, config: MeshConfig | None = None
) -> Mesh:
    """These devices, by default all of all processes; neighbours share images.

    Raises:
        UserError: `space` does not divide them.
    """
    devices = jax.devices() if devices is None else devices
    space = (config or MeshConfig()).space
    if len(devices) % space:
        raise UserError(
            f"config.mesh.space is {space}: {counted(len(devices), 'device')} cannot be divided "
            f"into groups of {space} that share an image; choose a divisor of {len(devices)}."
        )
    return Mesh(np.asarray(devices).reshape(-1, space), (DATA_AXIS, SPACE_AXIS))


def local_mesh(config: MeshConfig | None = None) -> Mesh:
    """The devices of this process alone; as many share an image as can, up to `space`."""
    devices = jax.local_devices()
    space = math.gcd((config or MeshConfig()).space, len(devices))
    return make_mesh(devices, MeshConfig(space))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters, statistics, optimiser state."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis spread over `data`, the same for all devices along `space`: batches.

    Frames arrive as bytes and whole, since their rows need not divide by `space`; `spread_rows`
    divides them on the devices.
    """
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def batch_part(mesh: Mesh) -> BatchPart:
    """What this process reads of every batch; processes that share images read the same clips.

    Raises:
        UserError: the processes' devices do not divide a batch into equal parts, one behind the
            other.
    """
    process_DxS = np.vectorize(lambda device: device.process_index)(mesh.devices)
    rows_of = {
        int(process): np.flatnonzero((process_DxS == process).any(1)).tolist()
        for process in np.unique(process_DxS)
    }
    size = len(rows_of[jax.process_index()])
    for process, rows in rows_of.items():
        if rows[0] % size or rows != list(range(rows[0], rows[0] + size)):
            of_one = np.count_nonzero(process_DxS == process)
            raise UserError(
                f"config.mesh.space is {mesh.shape[SPACE_AXIS]}: process {process} has {of_one} "
                f"devices, in the groups {rows} of {len(process_DxS)} that share an image. The "
                "devices of a process must be neighbours and config.mesh.space a divisor or a "
                "multiple of their number, so that each process reads an equal part of a batch."
            )
    return BatchPart(rows_of[jax.process_index()][0] // size, len(process_DxS) // size)


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError if the devices do not divide the global batch, or each of its parts."""
    parts = mesh.shape[DATA_AXIS] * accumulate
    if batch_size % parts:
        steps = f", {accumulate} times one after the other" if accumulate > 1 else ""
        shared = f" of {mesh.shape[SPACE_AXIS]} devices" if mesh.shape[SPACE_AXIS] > 1 else ""
        spread = counted(mesh.shape[DATA_AXIS], "group" if shared else "device")
        raise UserError(
            f"A batch of {counted(batch_size, 'clip')} cannot be spread evenly over {spread}"
            f"{shared}{steps}: set --config.batch_size to a "
            f"multiple of {parts}, or let more devices share an image (--config.mesh.space)."
        )


def on_mesh(program: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The program, traced with this mesh as the ambient one."""

    def traced(*args: Any) -> Any:
        with without_collection(), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return program(*args)

    return traced


def space_size() -> int:
    """Devices that share each image in the program that is being traced."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(SPACE_AXIS, 1)


def by_platform(*arguments: Any, default: Callable[..., Any], **ways: Callable[..., Any]) -> Any:
    """The way of the chip that the program is for, as `lax.platform_dependent` chooses it.

    On a mesh of CPUs or TPUs that way alone is traced. Elsewhere all are, with their gradients, and
    the choice falls when the program is lowered: for an export it does, and GPUs have several
    makers, which a mesh does not tell apart.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or device.platform not in ("cpu", "tpu"):
        return lax.platform_dependent(*arguments, default=default, **ways)
    return ways.get(device.platform, default)(*arguments)


def spread_rows(x_NxHx: jax.Array) -> jax.Array:
    """Spreads the second axis, the rows of images, over `space`, and the first over `data`.

    Rows that do not divide are filled up by the partitioner.
    """
    if space_size() == 1:
        return x_NxHx
    return lax.with_sharding_constraint(x_NxHx, PartitionSpec(DATA_AXIS, SPACE_AXIS))


def map_rows(
    program: Callable[..., jax.Array],
    rows_NxHx: jax.Array,
    *whole: jax.Array,
    is_kernel: bool = False,
) -> jax.Array:
    """`program(rows, *whole)` on each device's own rows; what is `whole` is gathered once.

    Args:
        program: row by row independent: NxH'x..., and `whole` -> NxH'x...
        rows_NxHx: is filled up with rows of zeros to divide by `space`; their results are dropped.
        *whole: arrays whose first axis is N; their gradients are summed once.
        is_kernel: the partitioner cannot split the program: the batch is divided here, too.
    """
    space = space_size()
    if space == 1 and not (is_kernel and jax.sharding.get_abstract_mesh().size > 1):
        return program(rows_NxHx, *whole)
    height = rows_NxHx.shape[1]
    filled = [(0, 0), (0, -height % space)] + [(0, 0)] * (rows_NxHx.ndim - 2)

    def on_one_device(rows: jax.Array, *whole: jax.Array) -> jax.Array:
        if is_kernel:
            return program(rows, *whole)
        # Said here, the gradients are summed at the end, and not in every turn of a loop.
        own = [lax.pcast(x, SPACE_AXIS, to="varying") for x in whole]
        return program(rows, *own)

    of_rows, of_whole = PartitionSpec(DATA_AXIS, SPACE_AXIS), PartitionSpec(DATA_AXIS)
    mapped = jax.shard_map(
        on_one_device,
        in_specs=(of_rows, *[of_whole] * len(whole)),
        out_specs=of_rows,
        check_vma=not is_kernel,  # kernels do not say over which axes their results vary
    )
    return mapped(spread_rows(jnp.pad(rows_NxHx, filled)), *whole)[:, :height]


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
    return jax.device_put(jax.tree.map(lambda array: np.array(array.addressable_data(0)), tree))


def check_devices() -> None:
    """Raises UserError if there is none of the kind that was asked for."""
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # jax asserts where a plugin is missing
        wanted = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"There is no device to compute on with JAX_PLATFORMS={wanted!r}. Unset it, set it to "
            f"cpu, or install what the device needs (README, the first lines). {error}"
        ) from error
