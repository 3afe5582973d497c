"""What a compile check found, for people: memory, work, collectives, and a projected step."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chips import GIB, parse_topology
from benchmarks.compile import Compiled, CompileResult, Shortage
from benchmarks.hlo import Collective
from benchmarks.projection import FORMULA, Projection, project
from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError, counted

MIB = 2**20


def publish(result: CompileResult, json_path: Path | None) -> None:
    """Writes a result as JSON, if there is a path, and prints its report.

    Raises:
        UserError: the file cannot be written; the report has been printed.
    """
    print(report(result))
    if json_path:
        try:
            write_whole(json_path, (result.to_json() + "\n").encode())
        except OSError as error:
            raise UserError(f"{json_path} cannot be written: {error.strerror}.") from error


def report(result: CompileResult) -> str:
    """All of it, one fact a line."""
    topology = parse_topology(result.topology)
    axes = " x ".join(f"{name} {size}" for name, size in result.mesh) or "one chip"
    lines = [
        f"{result.program} on {result.topology} ({math.prod(topology.axes)} chips; mesh {axes})",
        f"  {clips(result)}, "
        f"{result.dtype}; compiled in {result.seconds:.0f} s by {result.versions}",
    ]
    if isinstance(result.outcome, Shortage):
        return "\n".join([*lines, *_shortage_lines(result, result.outcome)])
    return "\n".join([*lines, *_compiled_lines(result, result.outcome)])


def clips(result: CompileResult) -> str:
    """What goes in at each call."""
    height, width = result.frame_size
    if result.program == "stream":
        return f"{result.batch_size} new frame of {height}x{width}, T = {result.num_memory}"
    clips, frames = counted(result.batch_size, "clip"), counted(result.num_memory + 1, "frame")
    return f"{clips} of {frames} {height}x{width}"


def projection_of(result: CompileResult, compiled: Compiled) -> Projection:
    """The step as `projection` computes it, from the operations by formula."""
    return project(
        parse_topology(result.topology),
        flops=result.flops,
        memory_traffic=compiled.memory_traffic,
        collectives=compiled.collectives,
    )


def advice(result: CompileResult) -> str:
    """What makes a program smaller."""
    changes = ["more chips of one clip each"]
    if result.program == "train":
        changes += [
            "the height of the frames over several chips (--config.mesh.space=2)",
            "activations computed again in the backward pass (--config.model.remat=True)",
            "a batch in several parts (--config.accumulate=2)",
        ]
    if result.program == "eval":
        changes = ["windows (--config.eval.mode=slide)", "fewer of them at a time"]
    if result.dtype == "float32":
        changes.append("--config.model.dtype=bfloat16")
    return "Smaller: " + "; ".join(changes) + "."


def _compiled_lines(result: CompileResult, compiled: Compiled) -> list[str]:
    chip = parse_topology(result.topology).chip
    memory = compiled.memory
    rows = [*memory.arguments, ("layout", memory.padding), ("outputs", memory.outputs)]
    rows += [("activations, temporaries", memory.temporaries), ("program", memory.code)]
    rows.append(("peak", memory.total))
    lines = ["memory, each chip:"]
    lines += [f"  {name:<26}{size / MIB:>10,.1f} MiB" for name, size in rows]
    lines[-1] += f" of {chip.memory / MIB:,.0f}: fits"
    lines += [
        "work, each chip:",
        f"  {result.flops / 1e12:.4g} TFLOP by formula; {compiled.compiler_flops / 1e12:.4g} by "
        "the compiler, which counts the body of a loop once",
        f"  {compiled.memory_traffic / 1e9:.4g} GB from and to HBM",
        "collectives, each chip:" if compiled.collectives else "collectives: none",
    ]
    lines += [f"  {collective_line(one)}" for one in compiled.collectives]
    return [*lines, *_projection_lines(projection_of(result, compiled)), FORMULA]


def collective_line(one: Collective) -> str:
    """Kind, groups, count and bytes."""
    unknown = ""
    if one.in_unknown_loops:
        unknown = f"; {one.in_unknown_loops} in loops of unknown length, counted once"
    groups = "" if one.kind == "collective-permute" else f" among {one.group_size}"
    return (
        f"{one.count} {one.kind}{groups}, {one.bytes / MIB:.2f} MiB "
        f"({', '.join(one.element_types)}){unknown}"
    )


def _projection_lines(projection: Projection) -> Sequence[str]:
    return [
        f"projected step: {1e3 * projection.step:.1f} ms = max(compute "
        f"{1e3 * projection.compute:.1f}, memory {1e3 * projection.memory:.1f}) + collectives "
        f"{1e3 * projection.collectives:.1f}; scaling {100 * projection.scaling:.1f}%",
    ]


def _shortage_lines(result: CompileResult, shortage: Shortage) -> list[str]:
    missing = (shortage.needed - shortage.available) / GIB
    return [
        f"does not fit: needs {shortage.needed / GIB:.2f} of {shortage.available / GIB:.2f} GiB on "
        f"each chip, {missing:.2f} too much.",
        advice(result),
    ]
