"""Compiles a run's programs for TPU chips that are not at hand, and says what they would need.

    python -m benchmarks compile --config=configs/cityscapes.py --topology=v5e:4x4

The compiler is the chips' own (libtpu) and runs on any CPU. What it answers is exact: whether a
program fits the chips' memory, and which collectives it runs. How long a step would take is not
known; `benchmarks/projection.py` computes it from published figures.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from benchmarks import command
from benchmarks.chips import EXAMPLES, Topology, parse_topology
from benchmarks.hlo import Collective, Program
from benchmarks.programs import PROGRAMS, LoweredProgram
from tmanet_jax.errors import UserError
from tmanet_jax.settings import Settings

_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # no question to a cloud's metadata server
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # beside other processes: no chip is opened
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_MIN_LOG_LEVEL": "3",  # errors alone, which exceptions tell, too
    "TPU_STDERR_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip while a program runs.

    Attributes:
        arguments: what goes in, by name.
        padding: what the chip's layout adds to those, less what the program does not use.
        outputs: what comes out and does not take the place of an argument.
        temporaries: the most that activations and the like need at a time.
        code: the program itself.
    """

    arguments: tuple[tuple[str, int], ...]
    padding: int
    outputs: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """The peak, with everything at once."""
        arguments = sum(size for _, size in self.arguments) + self.padding
        return arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler made of a program; numbers are those of one chip and one call.

    Attributes:
        memory: what it needs.
        compiler_flops: operations by the compiler, which counts the body of a loop once.
        memory_traffic: bytes from and to the chip's main memory.
        collectives: what it sends to other chips.
    """

    memory: Memory
    compiler_flops: float
    memory_traffic: int
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class Shortage:
    """A program that does not fit.

    Attributes:
        needed: bytes of one chip.
        available: bytes of one chip that the compiler may use.
    """

    needed: int
    available: int


@dataclasses.dataclass(frozen=True)
class CompileResult:
    """A program, the chips it was compiled for, and the outcome.

    Attributes:
        program: "train", "eval" or "stream".
        topology: as in "v5e:4x4".
        mesh: size of each axis, by name.
        batch_size: clips or frames of one call, over all chips.
        frame_size: height and width of what goes in, in pixels.
        num_memory: memory frames.
        dtype: compute type.
        flops: operations of one chip and one call, by formula.
        outcome: what the compiler made of it, or how much is missing.
        seconds: that lowering and compiling took, by the clock.
        versions: of jax and libtpu.
    """

    program: str
    topology: str
    mesh: tuple[tuple[str, int], ...]
    batch_size: int
    frame_size: tuple[int, int]
    num_memory: int
    dtype: str
    flops: float
    outcome: Compiled | Shortage
    seconds: float
    versions: str

    def to_json(self) -> str:
        """Everything; `from_json` reads it."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "CompileResult":
        """Raises KeyError, TypeError or ValueError for anything but what `to_json` gives."""
        values = json.loads(text)
        outcome = values.pop("outcome")
        return cls(
            **values
            | {
                "mesh": tuple((name, size) for name, size in values["mesh"]),
                "frame_size": tuple(values["frame_size"]),
                "outcome": _compiled(outcome) if "memory" in outcome else Shortage(**outcome),
            }
        )


@dataclasses.dataclass(frozen=True)
class CompileRequest:
    """What to compile.

    Attributes:
        run: its network, batch and mesh.
        topology: the chips.
        program: one of `PROGRAMS`.
        frame_size: height and width of whole frames, for evaluation and streams.
    """

    run: Settings
    topology: Topology
    program: str
    frame_size: tuple[int, int]


def add_command(commands: command.Subparsers) -> None:
    """`compile`."""
    parser = command.add(commands, "compile", __doc__, _run)
    command.add_options(parser, "json")
    parser.add_argument("--topology", default="v5e:4x4", help="TPU chips; default %(default)s")
    parser.add_argument("--program", default="train", choices=PROGRAMS)
    parser.add_argument(
        "--frame-size",
        default="1024x2048",
        help="height x width of the frames of eval and stream; default %(default)s",
    )
    parser.add_argument(
        "--clips-per-chip", type=command.parse_count, help="the batch that has so many on each"
    )


def _run(options: argparse.Namespace) -> None:
    request = request_of(
        command.read_settings(options.config, options.others),
        topology=options.topology,
        program=options.program,
        frame_size=options.frame_size,
        clips_per_chip=options.clips_per_chip,
    )
    from benchmarks.compile_report import publish  # which imports this module

    publish(compile_for(request), options.json)


def request_of(
    run: Settings,
    *,
    topology: str,
    program: str,
    frame_size: str,
    clips_per_chip: int | None = None,
) -> CompileRequest:
    """Checks the words of a command line.

    Args:
        run: its network, batch and mesh.
        topology: as in "v5e:4x4".
        program: one of `PROGRAMS`.
        frame_size: as in "1024x2048".
        clips_per_chip: sets the batch to so many on each chip.

    Raises:
        UserError: there is no such topology, or no such size.
    """
    chips = parse_topology(topology)
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", frame_size)
    if match is None:
        raise UserError(
            f"--frame-size is {frame_size!r}: height x width in pixels, as in 1024x2048."
        )
    if clips_per_chip is not None:
        run = dataclasses.replace(run, batch_size=clips_per_chip * math.prod(chips.axes))
    return CompileRequest(run, chips, program, (int(match[1]), int(match[2])))


def compile_for(request: CompileRequest) -> CompileResult:
    """Compiles a program; minutes for a whole network.

    Raises:
        UserError: there is no libtpu or no such topology, or the chips do not divide the batch.
    """
    devices = topology_devices(request.topology)
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program cannot be read
    start = time.perf_counter()
    program = PROGRAMS[request.program](request.run, devices, request.frame_size)
    outcome = compile_program(program)
    return CompileResult(
        program=request.program,
        topology=request.topology.name,
        mesh=tuple(program.mesh.items()),
        batch_size=program.batch_size,
        frame_size=program.frame_size,
        num_memory=request.run.model.head.num_memory,
        dtype=request.run.model.dtype,
        flops=program.flops / math.prod(program.mesh.values()),
        outcome=outcome,
        seconds=time.perf_counter() - start,
        versions=f"jax {jax.__version__}, libtpu {importlib.metadata.version('libtpu')}",
    )


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
    options = {"chip_config_name": "megacore"} if topology.chip.name == "v4" else {}
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


def compile_program(program: LoweredProgram) -> Compiled | Shortage:
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
    text, costs, memory = (
        executable.as_text(),
        executable.cost_analysis(),
        executable.memory_analysis(),
    )
    assert text and costs and memory, "the TPU compiler answers all three"
    hlo = Program(text)
    return Compiled(
        memory=_memory(memory, program.arguments),
        compiler_flops=costs["flops"],
        memory_traffic=hlo.memory_traffic(),
        collectives=hlo.collectives(),
    )


def _memory(analysis: Any, arguments: Mapping[str, int]) -> Memory:
    return Memory(
        arguments=tuple(arguments.items()),
        padding=analysis.argument_size_in_bytes - sum(arguments.values()),
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )


def parse_shortage(message: str) -> Shortage | None:
    """What the compiler says of a program that is too large; None if it says something else.

    What it calls HLO temporaries is everything, arguments and results as well.
    """
    match = re.search(
        r"HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
        message,
    )
    if match is None:
        return None
    needed, needed_unit, available, available_unit = match.groups()
    return Shortage(_to_bytes(needed, needed_unit), _to_bytes(available, available_unit))


def _to_bytes(number: str, unit: str) -> int:
    return round(float(number) * 1024 ** ("KMGT".index(unit) + 1 if unit else 0))


def _compiled(values: dict[str, Any]) -> Compiled:
    memory = values["memory"] | {
        "arguments": tuple((name, size) for name, size in values["memory"]["arguments"])
    }
    collectives = tuple(
        Collective(**one | {"element_types": tuple(one["element_types"])})
        for one in values["collectives"]
    )
    return Compiled(**values | {"memory": Memory(**memory), "collectives": collectives})
