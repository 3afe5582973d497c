"""Compiles a run's training step for TPU chips that are not at hand, and says what it would need.

    python -m benchmarks compile --config=configs/cityscapes.py --topology=v5e:4x4

The compiler is the chips' own (libtpu) and runs on any CPU, for minutes. What it answers is exact:
whether a step fits the chips' memory, and which collectives it runs. How long a step would take is
not known; it is computed from published figures. With `--larger`, so is the same work a chip on
more chips.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental import topologies

from benchmarks import command
from benchmarks.chips import (
    EXAMPLES,
    FORMULA,
    GIB,
    Topology,
    on_more_chips,
    parse_topology,
    project,
)
from benchmarks.findings import Findings, publish
from benchmarks.flops import training_flops
from benchmarks.hlo import Collective, Hlo
from tmanet_jax.errors import UserError, counted
from tmanet_jax.parallel.sharding import DATA_AXIS, make_mesh
from tmanet_jax.settings import Settings
from tmanet_jax.training import summary

MIB = 2**20

_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # no question to a cloud's metadata server
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # beside other processes: no chip is opened
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_MIN_LOG_LEVEL": "3",  # errors alone, which exceptions tell, too
    "TPU_STDERR_LOG_LEVEL": "3",
}

COLUMNS = (
    *("run", "chips", "a call", "peak, GiB a chip", "TFLOP a chip", "HBM traffic, GB a chip"),
    *("collectives a chip", "projected step, ms", "scaling"),
)

SMALLER = (
    "Smaller: more chips of one clip each; the height of the frames over several chips "
    "(--config.mesh.space=2); activations computed again in the backward pass "
    "(--config.model.remat=True); a batch in several parts (--config.accumulate=2); half of "
    "float32's bytes (--config.model.dtype=bfloat16)."
)


class Step(NamedTuple):
    """A training step that the compiler can take.

    Attributes:
        lowered: for the devices of a topology; shapes alone, no arrays.
        mesh: size of each axis, by name.
        frames: over all chips: clips, frames of each, height, width.
        flops: operations on all chips.
    """

    lowered: jax.stages.Lowered
    mesh: Mapping[str, int]
    frames: tuple[int, int, int, int]
    flops: int


class Compiled(NamedTuple):
    """What the compiler made of a step; numbers are those of one chip.

    Attributes:
        memory: bytes, by what they hold; the peak is their sum.
        traffic: bytes from and to the chip's main memory.
        collectives: what it sends to other chips.
    """

    memory: Mapping[str, int]
    traffic: int
    collectives: tuple[Collective, ...]


class Shortage(NamedTuple):
    """A step that does not fit: memory of one chip that it needs, and may use, as in "15.75G"."""

    needed: str
    available: str


def add_command(commands: command.Subparsers) -> None:
    """`compile`."""
    parser = command.add(commands, "compile", __doc__, _run)
    command.add_options(parser, "json")
    parser.add_argument("--topology", default="v5e:4x4", help="TPU chips; default %(default)s")
    parser.add_argument(
        "--larger", default="", help="topologies of more chips, separated by commas"
    )


def _run(options: argparse.Namespace) -> None:
    topology = parse_topology(options.topology)
    larger = [parse_topology(name) for name in options.larger.split(",") if name]
    settings = command.read_settings(options.config, options.others)
    devices = topology_devices(topology)
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program cannot be read
    step = lower_step(settings, devices)
    start = time.perf_counter()
    outcome = compile_step(step.lowered)
    versions = f"jax {jax.__version__}, libtpu {importlib.metadata.version('libtpu')}"
    name = f"{Path(options.config).stem}, train"
    found = findings_of(name, settings.model.dtype, topology, step, outcome, larger)
    told = f"Compiled in {time.perf_counter() - start:.0f} s by {versions}."
    publish(dataclasses.replace(found, notes=[told, *found.notes]), options.json)


def topology_devices(topology: Topology) -> Sequence[jax.Device]:
    """Devices that programs can be compiled for, one a chip; nothing can run on them.

    Raises:
        UserError: libtpu is not installed, or does not know the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("Compiling for TPUs needs libtpu: pip install -r requirements-tpu.txt.")
    jax.config.update("jax_platforms", "cpu")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options = {"chip_config_name": "megacore"} if topology.name.startswith("v4:") else {}
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=topology.name, **options
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"The TPU compiler refuses --topology={topology.name}: {error}. Some that it knows: "
            f"{EXAMPLES}."
        ) from error


def lower_step(run: Settings, devices: Sequence[jax.Device]) -> Step:
    """One step of training.

    Raises:
        UserError: the devices do not divide the batch.
    """
    mesh, size = make_mesh(devices, run.mesh), run.data.augmentation.crop_size
    return Step(
        lowered=summary.lower_step(run, mesh),
        mesh=dict(mesh.shape),
        frames=(run.batch_size, run.model.head.num_memory + 1, *size),
        flops=training_flops(run.model, size, run.batch_size),
    )


def compile_step(lowered: jax.stages.Lowered) -> Compiled | Shortage:
    """Compiles a step, or finds out how much memory is missing.

    Raises:
        UserError: the compiler refuses it for another reason.
    """
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        shortage = parse_shortage(str(error))
        if shortage is None:
            raise UserError(f"The TPU compiler refuses the step: {error}") from error
        return shortage
    hlo = Hlo(executable.as_text() or "")
    return Compiled(summary.memory_of(executable), hlo.memory_traffic(), hlo.collectives())


def parse_shortage(message: str) -> Shortage | None:
    """What the compiler says of a program that is too large; None if it says something else.

    What it calls HLO temporaries is everything, arguments and results as well.
    """
    match = re.search(r"HLO temporaries \((.+?)\) exceeds available HBM \((.+?)\)", message)
    return Shortage(*match.groups()) if match else None


def findings_of(
    name: str,
    dtype: str,
    topology: Topology,
    step: Step,
    outcome: Compiled | Shortage,
    larger: Sequence[Topology] = (),
) -> Findings:
    """A row of `COLUMNS`, and one for each larger topology; what they add up from as notes."""
    title = f"{name} on {topology.name}, {dtype}"
    if isinstance(outcome, Shortage):
        missing = f"does not fit: needs {outcome.needed} of {outcome.available}"
        tera = f"{step.flops / topology.num_chips / 1e12:.2f}"
        row = [*_first_cells(name, topology, step), missing, tera, *["-"] * 4]
        return Findings(title, COLUMNS, [row], notes=[SMALLER])
    rows = [_row(name, topology, each, step, outcome) for each in (topology, *larger)]
    memory = {**outcome.memory, "peak": sum(outcome.memory.values())}
    parts = "; ".join(f"{part} {size / MIB:,.1f}" for part, size in memory.items())
    told = f"Memory of each chip, MiB: {parts}; the chip has {topology.chip.memory / MIB:,.0f}."
    return Findings(title, COLUMNS, rows, notes=[told, FORMULA])


def _row(
    name: str, compiled_for: Topology, topology: Topology, step: Step, compiled: Compiled
) -> list[str]:
    """Each chip does the same work on more chips as on those that it was compiled for."""
    more = topology.num_chips // compiled_for.num_chips
    flops = step.flops / compiled_for.num_chips
    collectives = on_more_chips(compiled.collectives, compiled_for, topology)
    took = project(topology, flops=flops, traffic=compiled.traffic, collectives=collectives)
    mark = "" if topology == compiled_for else f" (extrapolated from {compiled_for.name})"
    peak = sum(compiled.memory.values())
    return [
        *_first_cells(name, topology, step, more),
        f"{peak / GIB:.2f} of {topology.chip.memory / GIB:.0f}{mark}",
        f"{flops / 1e12:.2f}",
        f"{compiled.traffic / 1e9:.1f}",
        "; ".join(map(str, collectives)) or "none",
        f"{1e3 * took.step:.1f} = max({1e3 * took.compute:.1f}, {1e3 * took.memory:.1f}) + "
        f"{1e3 * took.collectives:.1f}{mark}",
        f"{100 * took.scaling:.1f}%{mark}",
    ]


def _first_cells(name: str, topology: Topology, step: Step, more: int = 1) -> list[str]:
    """Of a step, or of so many times its clips on as many times the chips."""
    sizes = {axis: size * (more if axis == DATA_AXIS else 1) for axis, size in step.mesh.items()}
    mesh = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1)
    clips, length, height, width = step.frames
    return [
        name,
        f"{topology.num_chips} {topology.name}" + (f" ({mesh})" if mesh else ""),
        f"{counted(clips * more, 'clip')} of {counted(length, 'frame')} {height}x{width}",
    ]
