"""What the memory is worth: the same network without memory and with it, side by side.

    python -m benchmarks.baseline --config=configs/demo.py
    python -m benchmarks.baseline --workdirs=runs/a,runs/b

The first trains both in OUT/per_frame and OUT/memory with `run.py`; other options are handed to it.
A run that has ended is not repeated, one that was stopped goes on. The second compares two runs
that are there. The table is printed and written to OUT/comparison.md and OUT/comparison.csv.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.scoring.compare import compare, comparison_csv, comparison_table
from tmanet_jax.scoring.report import METRICS_FILE

PER_FRAME = "--config.model.num_memory=0"


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baseline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", default="configs/demo.py", help="of both runs")
    parser.add_argument("--out", type=Path, default=Path("runs/baseline"))
    parser.add_argument("--workdirs", help="two runs to compare, FIRST,SECOND; trains none")
    options, of_run = parser.parse_known_args(arguments)
    if options.workdirs:
        if of_run:
            parser.error(f"unrecognized arguments: {' '.join(of_run)}")
        workdirs = [Path(name) for name in options.workdirs.split(",")]
        if len(workdirs) != 2:
            raise UserError(f"--workdirs must name two runs, not {options.workdirs!r}.")
        first, second = workdirs
    else:
        first, second = options.out / "per_frame", options.out / "memory"
        train(first, options.config, [*of_run, PER_FRAME])
        train(second, options.config, of_run)
    rows, names = compare(first, second), (first.name, second.name)
    table = comparison_table(rows, names)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "comparison.md").write_text(table + "\n")
    (options.out / "comparison.csv").write_text(comparison_csv(rows, names))
    print(f"{table}\n\ntables:   {options.out}/comparison.md, comparison.csv")
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
