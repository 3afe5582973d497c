"""Compiles a run's programs for TPU chips that are not at hand, and says what they would need.

    python -m benchmarks compile --config=configs/cityscapes.py --topology=v5e:4x4
    python -m benchmarks compile --config=configs/cityscapes.py --topology=v5e:1x1 --of=stream

The compiler is the chips' own (libtpu) and runs on any CPU, for minutes. What it answers is exact:
whether a program fits the chips' memory, and which collectives it runs. How long it would take is
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
from typing import Any, NamedTuple

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
from benchmarks.hlo import Collective, Hlo
from benchmarks.programs import Program, scoring_step, stream_step, training_step
from tmanet_jax.command_line import parse_count
from tmanet_jax.errors import UserError, counted
from tmanet_jax.parallel.sharding import DATA_AXIS
from tmanet_jax.settings import Settings
from tmanet_jax.training import summary

MIB = 2**20

FRAMES = (1024, 2048)
"""Of Cityscapes."""

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


class Compiled(NamedTuple):
    """What the compiler made of a program; numbers are those of one chip.

    Attributes:
        memory: bytes, by what they hold; the peak is their sum.
        traffic: bytes from and to the chip's main memory.
        collectives: what it sends to other chips.
        products: convolutions and matrix products, by element type; kernels of others left out.
    """

    memory: Mapping[str, int]
    traffic: int
    collectives: tuple[Collective, ...]
    products: Mapping[str, int]


class Shortage(NamedTuple):
    """A program does not fit: what it needs of a chip's memory, and may use, as in "15.75G"."""

    needed: str
    available: str


def add_command(commands: command.Subparsers) -> None:
    """`compile`."""
    parser = command.add(commands, "compile", __doc__, _run)
    command.add_options(parser, "size", "json")
    parser.add_argument(
        "--of",
        choices=("train", "eval", "stream"),
        default="train",
        help="a training step, a batch of scoring on one host, or a frame of one stream on one "
        "chip; of the last two, --size is that of the frames, by default 1024x2048",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="of stream: all convolutions in int8, with the scales of each frame (qwix)",
    )
    parser.add_argument("--topology", default="v5e:4x4", help="TPU chips; default %(default)s")
    parser.add_argument(
        "--slices",
        type=parse_count,
        default=1,
        metavar="N",
        help="so many of the topology, connected by the data centre's network alone",
    )
    parser.add_argument(
        "--larger", default="", help="topologies of more chips, separated by commas"
    )


def _run(options: argparse.Namespace) -> None:
    topology = parse_topology(options.topology, options.slices)
    larger = [parse_topology(name) for name in options.larger.split(",") if name]
    settings = command.read_settings(options.config, options.others)
    devices = topology_devices(topology)
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program cannot be read
    program = _program(options, settings, devices)
    start = time.perf_counter()
    outcome = compile_program(program.lowered)
    versions = f"jax {jax.__version__}, libtpu {importlib.metadata.version('libtpu')}"
    name = f"{Path(options.config).stem}, {options.of}{', int8' if options.int8 else ''}"
    found = findings_of(name, settings.model.dtype, topology, program, outcome, larger)
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
    options: dict[str, Any] = {"num_slices": topology.slices}
    if topology.name.startswith("v4:"):
        options["chip_config_name"] = "megacore"
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=topology.name, **options
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"The TPU compiler refuses --topology={topology.name}: {error}. Some that it knows: "
            f"{EXAMPLES}."
        ) from error


def _program(
    options: argparse.Namespace, settings: Settings, devices: Sequence[jax.Device]
) -> Program:
    size = options.size or FRAMES
    if options.int8 and options.of != "stream":
        raise UserError(f"--int8 is for --of=stream: leave it out with {options.of}.")
    if options.of == "stream":
        return stream_step(settings, devices, size, int8=options.int8)
    if options.of == "eval":
        return scoring_step(settings, devices, size)
    return training_step(settings, devices)


def compile_program(lowered: jax.stages.Lowered) -> Compiled | Shortage:
    """Compiles it, or finds out how much memory is missing.

    Raises:
        UserError: the compiler refuses it for another reason.
    """
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        shortage = parse_shortage(str(error))
        if shortage is None:
            raise UserError(f"The TPU compiler refuses the program: {error}") from error
        return shortage
    hlo = Hlo(executable.as_text() or "")
    return Compiled(
        summary.memory_of(executable), hlo.memory_traffic(), hlo.collectives(), hlo.products()
    )


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
    program: Program,
    outcome: Compiled | Shortage,
    larger: Sequence[Topology] = (),
) -> Findings:
    """A row of `COLUMNS`, and one for each larger topology; what they add up from as notes."""
    title = f"{name} on {topology}, {dtype}"
    if isinstance(outcome, Shortage):
        missing = f"does not fit: needs {outcome.needed} of {outcome.available}"
        tera = f"{program.flops / topology.num_chips / 1e12:.2f}"
        row = [*_first_cells(name, topology, program), missing, tera, *["-"] * 4]
        return Findings(title, COLUMNS, [row], notes=[SMALLER])
    rows = [_row(name, topology, each, program, outcome) for each in (topology, *larger)]
    memory = {**outcome.memory, "peak": sum(outcome.memory.values())}
    parts = "; ".join(f"{part} {size / MIB:,.1f}" for part, size in memory.items())
    told = f"Memory of each chip, MiB: {parts}; the chip has {topology.chip.memory / MIB:,.0f}."
    products = ", ".join(f"{count} of {name}" for name, count in outcome.products.items())
    counted_products = f"Convolutions and products, kernels apart: {products or 'none'}."
    return Findings(title, COLUMNS, rows, notes=[told, counted_products, FORMULA])


def _row(
    name: str, compiled_for: Topology, topology: Topology, program: Program, compiled: Compiled
) -> list[str]:
    """Each chip does the same work on more chips as on those that it was compiled for."""
    more = topology.num_chips // compiled_for.num_chips
    flops = program.flops / compiled_for.num_chips
    collectives = on_more_chips(compiled.collectives, compiled_for, topology)
    took = project(topology, flops=flops, traffic=compiled.traffic, collectives=collectives)
    mark = "" if topology == compiled_for else f" (extrapolated from {compiled_for.name})"
    peak = sum(compiled.memory.values())
    return [
        *_first_cells(name, topology, program, more),
        f"{peak / GIB:.2f} of {topology.chip.memory / GIB:.0f}{mark}",
        f"{flops / 1e12:.2f}",
        f"{compiled.traffic / 1e9:.1f}",
        "; ".join(map(str, collectives)) or "none",
        f"{1e3 * took.step:.1f} = max({1e3 * took.compute:.1f}, {1e3 * took.memory:.1f}) + "
        f"{1e3 * took.collectives:.1f}{mark}",
        f"{100 * took.scaling:.1f}%{mark}",
    ]


def _first_cells(name: str, topology: Topology, program: Program, more: int = 1) -> list[str]:
    """Of a program, or of so many times its clips on as many times the chips."""
    sizes = {axis: size * (more if axis == DATA_AXIS else 1) for axis, size in program.mesh.items()}
    mesh = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1)
    unit, what = program.each
    return [
        name,
        f"{topology}" + (f" ({mesh})" if mesh else ""),
        f"{counted(program.count * more, unit)} {what}",
    ]
