"""Compiles the published runs for TPU topologies, and writes what they need as a table.

    pip install -r requirements-tpu.txt
    python -m benchmarks.compile_table --out=docs/compile [--extrapolate] [--rows=4]

Each row is `python -m benchmarks compile` in a process of its own: 10 to 20 CPU-minutes. Its result
is kept as JSON in the folder, rows that are there are not compiled again, and the table is written
anew after each, so that a table that was stopped goes on. With --extrapolate, rows of the same work
a chip on more chips are computed from their smaller ones, and marked, until they are compiled.
"""

import argparse
import dataclasses
import math
import subprocess
import sys
from pathlib import Path

from benchmarks.chips import GIB, parse_topology
from benchmarks.compile import Compiled, CompileResult, Shortage
from benchmarks.compile_report import clips, collective_line, projection_of
from benchmarks.projection import FORMULA, on_more_chips
from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError, ends_with_message

TABLE = "table.md"
COLUMNS = (
    "run",
    "chips",
    "a call",
    "peak, GiB a chip",
    "TFLOP a chip",
    "HBM traffic, GB a chip",
    "collectives a chip",
    "projected step, ms",
    "scaling",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A program, the chips that it is compiled for, and how.

    Attributes:
        config: "cityscapes" or "camvid".
        topology: as in "v5e:4x4".
        options: further words of the command line.
        program: of the run.
        title: what is special about it.
        smaller: a topology of the same work a chip, from which the row can be extrapolated.
    """

    config: str
    topology: str
    options: tuple[str, ...] = ("--clips-per-chip=1",)
    program: str = "train"
    title: str = ""
    smaller: str = ""

    @property
    def name(self) -> str:
        """Of its file."""
        words = [self.config, self.program, self.topology.replace(":", "-"), *self.title.split()]
        return "-".join(words)

    @property
    def command(self) -> list[str]:
        """What compiles it, but for where the result goes."""
        return [
            *("-m", "benchmarks", "compile", f"--config=configs/{self.config}.py"),
            *("--config.model.dtype=bfloat16", f"--topology={self.topology}"),
            *(f"--program={self.program}", *self.options),
        ]


_CAMVID_FRAMES = ("--frame-size=720x960",)
_SHARED = ("--config.batch_size=8", "--config.mesh.space=2")

ROWS = (
    Row("cityscapes", "v5e:4x4"),
    Row("cityscapes", "v5e:4x4", _SHARED, title="space 2"),
    Row("camvid", "v5e:4x4"),
    Row("cityscapes", "v5e:16x16", smaller="v5e:4x4"),
    Row("cityscapes", "v5p:2x2x4"),
    Row("cityscapes", "v6e:4x4"),
    Row("cityscapes", "v4:2x2x4"),
    Row("cityscapes", "v5e:1x1", (), program="eval"),
    Row("cityscapes", "v5e:1x1", (), program="stream"),
    Row("cityscapes", "v5e:8x8", smaller="v5e:4x4"),
    Row("camvid", "v5e:16x16", smaller="v5e:4x4"),
    Row("camvid", "v5p:2x2x4"),
    Row("camvid", "v6e:4x4"),
    Row("camvid", "v4:2x2x4"),
    Row("camvid", "v5e:4x4", _SHARED, title="space 2"),
    Row("camvid", "v5e:1x1", _CAMVID_FRAMES, program="eval"),
    Row("camvid", "v5e:1x1", _CAMVID_FRAMES, program="stream"),
    Row("camvid", "v5e:8x8", smaller="v5e:4x4"),
)
"""The most important ones first."""


@ends_with_message
def main(arguments: list[str] | None = None) -> int:
    """Compiles what is missing, row after row; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("docs/compile"), help="folder of results")
    parser.add_argument("--rows", type=int, default=len(ROWS), help="so many, from the first")
    parser.add_argument(
        "--extrapolate", action="store_true", help="fill in larger topologies from smaller ones"
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.rows <= len(ROWS):
        raise UserError(f"--rows is {options.rows}: from 0 (what is there) to {len(ROWS)}.")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={options.out} cannot be made: {error.strerror}.") from error
    failed = []
    write_table(options.out, extrapolate=options.extrapolate)
    for row in ROWS[: options.rows]:
        if not _file(options.out, row).exists():
            print(" ".join(["python", *row.command]), flush=True)
            if not compile_row(options.out, row):
                failed.append(row.name)
            write_table(options.out, extrapolate=options.extrapolate)
    print((options.out / TABLE).read_text())
    if failed:
        raise UserError(f"Not compiled, see above: {', '.join(failed)}. All others are there.")
    return 0


def compile_row(folder: Path, row: Row) -> bool:
    """Compiles a row in a process of its own; whether it left a result."""
    file = _file(folder, row)
    subprocess.run([sys.executable, *row.command, f"--json={file}"], check=False)
    return file.exists()


def write_table(folder: Path, *, extrapolate: bool) -> None:
    """The table in Markdown, of all rows that there are results for.

    Raises:
        UserError: a result cannot be read, or the table cannot be written.
    """
    cells = [table_cells(row, *found) for row in ROWS if (found := _find(folder, row, extrapolate))]
    lines = [
        "# The published runs on TPU chips, compiled without one",
        "",
        "Memory and collectives are what the TPU's compiler answers, in bfloat16. Step times are",
        "projections by the formula below, from published figures: nothing here ran on a chip.",
        "",
        *("| " + " | ".join(line) + " |" for line in (COLUMNS, ["---"] * len(COLUMNS), *cells)),
        "",
        "Made by `python -m benchmarks.compile_table --extrapolate`, with the results beside it.",
        "",
        *("```", FORMULA, "```"),
        "",
    ]
    try:
        write_whole(folder / TABLE, "\n".join(lines).encode())
    except OSError as error:
        raise UserError(f"{folder / TABLE} cannot be written: {error.strerror}.") from error


def table_cells(row: Row, result: CompileResult, source: str) -> list[str]:
    """A row of the table; `source` is the topology that it was extrapolated from, or ''."""
    topology = parse_topology(result.topology)
    shape = " x ".join(f"{name} {size}" for name, size in result.mesh if size > 1)
    cells = [
        f"{row.config}, {row.program}",
        f"{math.prod(topology.axes)} {result.topology}" + (f" ({shape})" if shape else ""),
        clips(result),
    ]
    if isinstance(result.outcome, Shortage):
        needed, available = result.outcome.needed / GIB, result.outcome.available / GIB
        return [
            *cells,
            f"does not fit: needs {needed:.2f} of {available:.2f}",
            f"{result.flops / 1e12:.2f}",
            *["-"] * 4,
        ]
    projection = projection_of(result, result.outcome)
    mark = f" (extrapolated from {source})" if source else ""
    return [
        *cells,
        f"{result.outcome.memory.total / GIB:.2f} of {topology.chip.memory / GIB:.0f}{mark}",
        f"{result.flops / 1e12:.2f}",
        f"{result.outcome.memory_traffic / 1e9:.1f}",
        "; ".join(collective_line(one) for one in result.outcome.collectives) or "none",
        f"{1e3 * projection.step:.1f} = max({1e3 * projection.compute:.1f}, "
        f"{1e3 * projection.memory:.1f}) + {1e3 * projection.collectives:.1f}{mark}",
        f"{100 * projection.scaling:.1f}%{mark}",
    ]


def extrapolated(result: CompileResult, topology: str) -> CompileResult | None:
    """The same work a chip on more chips; None if it does not fit on fewer."""
    if not isinstance(result.outcome, Compiled):
        return None
    smaller, larger = parse_topology(result.topology), parse_topology(topology)
    factor = math.prod(larger.axes) // math.prod(smaller.axes)
    collectives = on_more_chips(result.outcome.collectives, smaller, larger)
    return dataclasses.replace(
        result,
        topology=topology,
        mesh=tuple((name, size * factor if name == "data" else size) for name, size in result.mesh),
        batch_size=result.batch_size * factor,
        outcome=dataclasses.replace(result.outcome, collectives=collectives),
        seconds=0.0,
    )


def _find(folder: Path, row: Row, extrapolate: bool) -> tuple[CompileResult, str] | None:
    """A row's result, and the topology that it was extrapolated from, or ''."""
    if (compiled := _read(_file(folder, row))) is not None:
        return compiled, ""
    if not (extrapolate and row.smaller):
        return None
    smaller = _read(_file(folder, dataclasses.replace(row, topology=row.smaller)))
    result = None if smaller is None else extrapolated(smaller, row.topology)
    return None if result is None else (result, row.smaller)


def _file(folder: Path, row: Row) -> Path:
    return folder / f"{row.name}.json"


def _read(file: Path) -> CompileResult | None:
    if not file.exists():
        return None
    try:
        return CompileResult.from_json(file.read_text())
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} is no result of `python -m benchmarks compile` ({error}): delete it, and the "
            "row is compiled again."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
