"""Which part of a batch each process reads, on meshes that are made up; what a mesh changes."""

import contextlib
import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from tmanet_jax.errors import UserError
from tmanet_jax.parallel.sharding import (
    DATA_AXIS,
    SPACE_AXIS,
    BatchPart,
    MeshConfig,
    batch_part,
    by_platform,
    check_batch_size,
    check_devices,
    make_mesh,
    on_mesh,
)


@dataclasses.dataclass(frozen=True)
class Device:
    number: int
    process_index: int


def mesh_of(processes: str, space: int) -> Mesh:
    """A mesh of devices, each of the process whose digit stands at its place."""
    devices = [Device(number, int(process)) for number, process in enumerate(processes)]
    return Mesh(np.asarray(devices).reshape(-1, space), (DATA_AXIS, SPACE_AXIS))


@pytest.mark.parametrize(
    ("processes", "space", "parts"),
    [
        ("0000", 2, [(0, 1)]),
        ("0011", 1, [(0, 2), (1, 2)]),
        ("00001111", 2, [(0, 2), (1, 2)]),
        ("0123", 2, [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ("0011", 4, [(0, 1), (0, 1)]),
        ("112200", 2, [(2, 3), (0, 3), (1, 3)]),
    ],
)
def test_processes_read_equal_parts_and_those_that_share_images_the_same(
    monkeypatch: pytest.MonkeyPatch, processes: str, space: int, parts: list[tuple[int, int]]
) -> None:
    for index, part in enumerate(parts):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        assert batch_part(mesh_of(processes, space)) == BatchPart(*part)


@pytest.mark.parametrize(
    ("processes", "space"),
    [("0101", 1), ("0110", 1), ("000111", 2), ("001122", 3), ("00001", 1), ("0122", 1)],
    ids=["interleaved", "around", "no divisor", "no multiple", "unequal", "unequal later"],
)
def test_what_cannot_be_divided_so_is_refused_by_every_process(
    monkeypatch: pytest.MonkeyPatch, processes: str, space: int
) -> None:
    for index in sorted({int(process) for process in processes}):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        with pytest.raises(UserError, match=rf"config\.mesh\.space is {space}: process \d has"):
            batch_part(mesh_of(processes, space))


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError])
def test_a_platform_that_is_not_there_is_one_message(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """As jax raises for JAX_PLATFORMS=tpu without libtpu and JAX_PLATFORMS=cuda without CUDA."""

    def missing() -> None:
        raise kind("no backend")

    monkeypatch.setattr(jax, "local_devices", missing)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=r"JAX_PLATFORMS='cuda'\. Unset it, set it to cpu"):
        check_devices()


def traced_by_platform(mesh: Mesh | None) -> str:
    def program(x: jax.Array) -> jax.Array:
        return by_platform(x, cpu=jnp.sin, tpu=jnp.cos, default=jnp.tan)

    traced = jax.make_jaxpr(on_mesh(program, mesh) if mesh else program)(1.0)
    return " ".join(str(traced).split())


def test_on_a_mesh_its_own_way_alone_is_traced() -> None:
    on_cpu = traced_by_platform(make_mesh())
    assert "sin" in on_cpu and "cos" not in on_cpu and "tan" not in on_cpu


def test_without_a_mesh_a_program_can_be_lowered_for_any_platform() -> None:
    anywhere = traced_by_platform(None)
    assert "platform_index" in anywhere
    assert all(way in anywhere for way in ("sin", "cos", "tan"))


def test_on_a_mesh_of_gpus_their_maker_is_told_apart_when_lowered() -> None:
    device = jax.sharding.AbstractDevice(device_kind="any", num_cores=None, platform="gpu")
    mesh = make_mesh().abstract_mesh.update(abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert "platform_index" in traced_by_platform(None)


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_collected_again_after_a_program_is_traced(fails: bool) -> None:
    was_on = []

    def program(x: jax.Array) -> jax.Array:
        was_on.append(gc.isenabled())
        if fails:
            raise FloatingPointError
        return x

    with pytest.raises(FloatingPointError) if fails else contextlib.nullcontext():
        jax.jit(on_mesh(program, make_mesh())).lower(1.0)
    assert (was_on, gc.isenabled()) == ([False], True)


def test_numbers_of_things_are_spelt() -> None:
    mesh = mesh_of("000", 1)
    with pytest.raises(
        UserError, match=r"A batch of 1 clip cannot be spread evenly over 3 devices"
    ):
        check_batch_size(1, mesh)
    with pytest.raises(UserError, match=r"space is 2: 1 device cannot"):
        make_mesh([Device(0, 0)], MeshConfig(space=2))
