"""What the memory is worth: the same network without memory and with it, side by side.

    python -m benchmarks baseline --config=configs/demo.py
    python -m benchmarks baseline --workdirs=runs/a,runs/b

The first trains both in OUT/per_frame and OUT/memory with `run.py`; other options are handed to it.
A run that has ended is not repeated, one that was stopped goes on. The second compares two runs
that are there. The table is printed and written to OUT/comparison.md and OUT/comparison.csv.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.compare import compare, comparison_csv, comparison_table
from tmanet_jax.scoring.report import METRICS_FILE

PER_FRAME = "--config.model.num_memory=0"


def add_command(commands: command.Subparsers) -> None:
    """`baseline`."""
    parser = command.add(commands, "baseline", __doc__, _run)
    command.add_options(parser, config="configs/demo.py")
    parser.add_argument("--out", type=Path, default=Path("runs/baseline"))
    parser.add_argument("--workdirs", help="two runs to compare, FIRST,SECOND; trains none")


def _run(options: argparse.Namespace) -> None:
    if options.workdirs:
        workdirs = [Path(name) for name in options.workdirs.split(",")]
        if len(workdirs) != 2 or options.others:
            raise UserError(f"--workdirs must name two runs alone, not {options.workdirs!r}.")
        first, second = workdirs
    else:
        first, second = options.out / "per_frame", options.out / "memory"
        train(first, options.config, [*options.others, PER_FRAME])
        train(second, options.config, options.others)
    rows, names = compare(first, second), (first.name, second.name)
    table = comparison_table(rows, names)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "comparison.md").write_text(table + "\n")
    (options.out / "comparison.csv").write_text(comparison_csv(rows, names))
    print(f"{table}\n\ntables:   {options.out}/comparison.md, comparison.csv")


def train(workdir: Path, config: str, flags: Sequence[str]) -> None:
    """Trains in a process of its own, unless the run has ended.

    Raises:
        UserError: the run failed; it has said why.
    """
    if (workdir / METRICS_FILE).exists():
        return
    command = [sys.executable, "run.py", f"--config={config}", *flags, f"--workdir={workdir}"]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"The run in {workdir} failed: see above. Started again, it goes on.")
