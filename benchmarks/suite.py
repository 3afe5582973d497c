"""Measurements one after the other, each a process of its own, and a summary in Markdown.

One that fails or does not fit takes no other with it. Each leaves NAME.json and NAME.log; started
again, it goes on with those that have no NAME.log yet. The summary is README.md: which targets are
met, then what each measurement printed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tmanet_jax.errors import UserError

TIMEOUT_S = 1800
"""Of one measurement, unless it says otherwise."""


class Run(NamedTuple):
    """A measurement.

    Attributes:
        name: of its files.
        arguments: of Python; `{out}` is the folder of results.
        timeout: seconds.
        writes_json: whether it takes `--json`.
    """

    name: str
    arguments: tuple[str, ...]
    timeout: float | None = TIMEOUT_S
    writes_json: bool = True


def benchmark(name: str, kind: str, config: str, *options: str) -> Run:
    """A command of `benchmarks`, with one of the configurations."""
    return Run(name, ("-m", "benchmarks", kind, f"--config=configs/{config}.py", *options))


def add_options(parser: argparse.ArgumentParser, runs: Sequence[Run], out: str) -> None:
    """`--out` and `--only`."""
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the results")
    parser.add_argument("--only", help=f"some of: {', '.join(run.name for run in runs)}")


def chosen(runs: Sequence[Run], names: str | None) -> Sequence[Run]:
    """Those of the given names, as in "start,curves", or all.

    Raises:
        UserError: a name is none.
    """
    if names is None:
        return runs
    known = {run.name: run for run in runs}
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise UserError(f"--only: {unknown[0]!r} is no measurement: choose of {', '.join(known)}.")
    return [known[name] for name in names.split(",")]


def perform(runs: Sequence[Run], out: Path) -> None:
    """Runs what has not ended yet; the summary is written anew after each."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out} cannot be made: {error.strerror}.") from error
    for run in runs:
        if not _log(run, out).exists():
            print(f"{run.name} ...", end=" ", flush=True)
            print(measure(run, out), flush=True)
            (out / "README.md").write_text(summary(runs, out))
    (out / "README.md").write_text(summary(runs, out))
    print(f"summary:  {out}/README.md")


def measure(run: Run, out: Path) -> str:
    """One measurement in a process of its own; returns what became of it, in a few words."""
    words = [argument.replace("{out}", str(out)) for argument in run.arguments]
    if run.writes_json:
        words.append(f"--json={out / run.name}.json")
    began = time.monotonic()
    log, partial = _log(run, out), out / f"{run.name}.partial"
    with partial.open("w") as output:
        try:
            status = subprocess.run(
                [sys.executable, *words],
                env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # torch wants some
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=run.timeout,
                check=False,
            )
            failure = last_lines(status.stderr) if status.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"took more than {run.timeout:.0f} s"
        if failure:
            output.write(f"\nFAILED: {failure}\n")
    partial.rename(log)
    return f"{'FAILED, ' if failure else ''}{time.monotonic() - began:.0f} s"


def summary(runs: Sequence[Run], out: Path) -> str:
    """Markdown: the targets of all reports, then what each measurement printed."""
    lines = [
        "# Measured",
        "",
        "| measurement | target | found | asked for | met |",
        "| --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        path = out / f"{run.name}.json"
        for target in json.loads(path.read_text())["targets"] if path.exists() else ():
            relation = "at least" if target["at_least"] else "at most"
            lines.append(
                f"| {run.name} | {target['name']} | {target['value']:.3g} "
                f"| {relation} {target['target']:.3g} | {'yes' if target['met'] else 'NO'} |"
            )
    for run in runs:
        command = " ".join(["python", *run.arguments]).replace("{out}", str(out))
        log = _log(run, out)
        told = log.read_text().strip() if log.exists() else "Not measured yet."
        lines += ["", f"## {run.name}", "", f"    {command}", "", told]
    return "\n".join(lines) + "\n"


def _log(run: Run, out: Path) -> Path:
    return out / f"{run.name}.log"


def last_lines(text: str) -> str:
    """What an error ends with."""
    return " ".join(text.strip().splitlines()[-2:])[-600:]
