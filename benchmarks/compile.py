"""Compiles a run's program for TPU chips that are not at hand, and says what it would need.

    python -m benchmarks compile --config=configs/cityscapes.py --topology=v5e:4x4

The compiler is the chips' own (libtpu) and runs on any CPU, for minutes. What it answers is exact:
whether a program fits the chips' memory, and which collectives it runs. How long a step would take
is not known; it is computed from published figures. With `--larger`, so is the same work a chip on
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
from typing import Any

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
from benchmarks.programs import LOWER, Program
from tmanet_jax.command_line import parse_count, parse_size
from tmanet_jax.errors import UserError, counted
from tmanet_jax.parallel.sharding import DATA_AXIS

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


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler made of a program; numbers are those of one chip and one call.

    Attributes:
        memory: bytes, by what they hold; the peak is their sum.
        compiler_flops: operations by the compiler, which counts the body of a loop once.
        traffic: bytes from and to the chip's main memory.
        collectives: what it sends to other chips.
    """

    memory: Mapping[str, int]
    compiler_flops: float
    traffic: int
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class Shortage:
    """A program that does not fit: bytes of one chip that it needs, and that it may use."""

    needed: int
    available: int


def add_command(commands: command.Subparsers) -> None:
    """`compile`."""
    parser = command.add(commands, "compile", __doc__, _run)
    command.add_options(parser, "json")
    parser.add_argument("--topology", default="v5e:4x4", help="TPU chips; default %(default)s")
    parser.add_argument(
        "--larger", default="", help="topologies of more chips, separated by commas"
    )
    parser.add_argument("--program", default="train", choices=LOWER)
    parser.add_argument(
        "--frame-size",
        type=parse_size,
        default=(1024, 2048),
        metavar="HxW",
        help="height x width of the frames of eval and stream; default 1024x2048",
    )
    parser.add_argument(
        "--clips-per-chip",
        type=parse_count,
        metavar="N",
        help="the batch that has so many on each",
    )


def _run(options: argparse.Namespace) -> None:
    topology = parse_topology(options.topology)
    larger = [parse_topology(name) for name in options.larger.split(",") if name]
    settings = command.read_settings(options.config, options.others)
    if options.clips_per_chip:
        batch_size = options.clips_per_chip * topology.num_chips
        settings = dataclasses.replace(settings, batch_size=batch_size)
    devices = topology_devices(topology)
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program cannot be read
    program = LOWER[options.program](settings, devices, options.frame_size)
    start = time.perf_counter()
    outcome = compile_program(program)
    versions = f"jax {jax.__version__}, libtpu {importlib.metadata.version('libtpu')}"
    name = f"{Path(options.config).stem}, {options.program}"
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
    options = {"chip_config_name": "megacore"} if topology.name.startswith("v4:") else {}
    try:
        devices = topologies.get_topology_desc(
            platform="tpu", topology_name=topology.name, **options
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"The TPU compiler refuses --topology={topology.name}: {error}. Some that it knows: "
            f"{EXAMPLES}."
        ) from error
    return devices


def compile_program(program: Program) -> Compiled | Shortage:
    """Compiles a program, or finds out how much memory is missing.

    Raises:
        UserError: the compiler refuses it for another reason.
    """
    try:
        executable = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        shortage = parse_shortage(str(error))
        if shortage is None:
            raise UserError(f"The TPU compiler refuses the program: {error}") from error
        return shortage
    text, costs = executable.as_text(), executable.cost_analysis()
    memory: Any = executable.memory_analysis()
    assert text and costs and memory, "the TPU compiler answers all three"
    hlo, arguments = Hlo(text), program.arguments
    return Compiled(
        memory={
            **arguments,
            "layout": memory.argument_size_in_bytes - sum(arguments.values()),
            "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "activations, temporaries": memory.temp_size_in_bytes,
            "program": memory.generated_code_size_in_bytes,
        },
        compiler_flops=costs["flops"],
        traffic=hlo.memory_traffic(),
        collectives=hlo.collectives(),
    )


def parse_shortage(message: str) -> Shortage | None:
    """What the compiler says of a program that is too large; None if it says something else.

    What it calls HLO temporaries is everything, arguments and results as well.
    """
    size = r"\(([\d.]+)([KMGT]?)\)"
    match = re.search(rf"HLO temporaries {size} exceeds available HBM {size}", message)
    if match is None:
        return None

    def num_bytes(number: str, unit: str) -> int:
        return round(float(number) * 1024 ** (" KMGT".index(unit) if unit else 0))

    return Shortage(num_bytes(match[1], match[2]), num_bytes(match[3], match[4]))


def findings_of(
    name: str,
    dtype: str,
    topology: Topology,
    program: Program,
    outcome: Compiled | Shortage,
    larger: Sequence[Topology] = (),
) -> Findings:
    """A row of `COLUMNS`, and one for each larger topology; what they add up from as notes."""
    title = f"{name} on {topology.name}, {dtype}"
    if isinstance(outcome, Shortage):
        cells = [
            *_first_cells(name, topology, program.mesh, program.frames),
            f"does not fit: needs {outcome.needed / GIB:.2f} of {outcome.available / GIB:.2f}",
            f"{program.flops / topology.num_chips / 1e12:.2f}",
            *["-"] * 4,
        ]
        return Findings(title, COLUMNS, [cells], notes=[_advice(dtype)])
    rows = [_row(name, topology, topology, program, outcome)]
    rows += [_row(name, topology, each, program, outcome) for each in larger]
    memory = {**outcome.memory, "peak": sum(outcome.memory.values())}
    notes = [
        "Memory of each chip, MiB: "
        + "; ".join(f"{part} {size / MIB:,.1f}" for part, size in memory.items())
        + f"; the chip has {topology.chip.memory / MIB:,.0f}.",
        f"The compiler counts {outcome.compiler_flops / 1e12:.4g} TFLOP a chip, the body of a loop "
        "once.",
        FORMULA,
    ]
    return Findings(title, COLUMNS, rows, notes=notes)


def _row(
    name: str, compiled_for: Topology, topology: Topology, program: Program, compiled: Compiled
) -> list[str]:
    """Of these chips, or as many as there were when it was compiled: the same work on each."""
    more = topology.num_chips // compiled_for.num_chips
    clips, *rest = program.frames
    mesh = {axis: size * (more if axis == DATA_AXIS else 1) for axis, size in program.mesh.items()}
    flops = program.flops / compiled_for.num_chips
    collectives = on_more_chips(compiled.collectives, compiled_for, topology)
    step = project(topology, flops=flops, traffic=compiled.traffic, collectives=collectives)
    mark = "" if topology == compiled_for else f" (extrapolated from {compiled_for.name})"
    peak = sum(compiled.memory.values())
    return [
        *_first_cells(name, topology, mesh, (clips * more, *rest)),
        f"{peak / GIB:.2f} of {topology.chip.memory / GIB:.0f}{mark}",
        f"{flops / 1e12:.2f}",
        f"{compiled.traffic / 1e9:.1f}",
        "; ".join(map(str, collectives)) or "none",
        f"{1e3 * step.step:.1f} = max({1e3 * step.compute:.1f}, {1e3 * step.memory:.1f}) + "
        f"{1e3 * step.collectives:.1f}{mark}",
        f"{100 * step.scaling:.1f}%{mark}",
    ]


def _first_cells(
    name: str, topology: Topology, mesh: Mapping[str, int], frames: Sequence[int]
) -> list[str]:
    shape = " x ".join(f"{axis} {size}" for axis, size in mesh.items() if size > 1)
    clips, length, height, width = frames
    return [
        name,
        f"{topology.num_chips} {topology.name}" + (f" ({shape})" if shape else ""),
        f"{counted(clips, 'clip')} of {counted(length, 'frame')} {height}x{width}",
    ]


def _advice(dtype: str) -> str:
    changes = [
        "more chips of one clip each",
        "the height of the frames over several chips (--config.mesh.space=2)",
        "activations computed again in the backward pass (--config.model.remat=True)",
        "a batch in several parts (--config.accumulate=2)",
        "windows in evaluation (--config.eval.mode=slide)",
    ]
    if dtype == "float32":
        changes.append("--config.model.dtype=bfloat16")
    return "Smaller: " + "; ".join(changes) + "."
