"""Every measurement of docs/performance.md that needs a GPU, as one command.

    pip install "jax[cuda12]==0.10.2" && pip install -r requirements-torch.txt
    python -m benchmarks.gpu --out=docs/gpu

Each measurement is a process of its own, so that one that fails or does not fit takes no other with
it, and leaves NAME.json and NAME.log in OUT. Started again, it goes on with those that have no
NAME.log yet. The summary is OUT/README.md: which targets are met, then each table.
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

from tmanet_jax.errors import UserError, ends_with_message

TIMEOUT_S = 1800
"""Of one measurement; the demo's training has no limit."""

_BFLOAT16 = "--config.model.dtype=bfloat16"


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


def _benchmark(name: str, kind: str, config: str, *options: str) -> Run:
    return Run(name, ("run.py", "benchmark", kind, f"--config=configs/{config}.py", *options))


RUNS = (
    _benchmark("train_cityscapes", "train", "cityscapes", _BFLOAT16, "--peer=torch"),
    _benchmark("train_camvid", "train", "camvid", _BFLOAT16, "--peer=torch"),
    _benchmark("train_cityscapes_float32", "train", "cityscapes", "--peer=torch", "--turns=5"),
    *(
        _benchmark(
            f"train_batch_{size}", "train", "cityscapes", _BFLOAT16, f"--batch={size}", "--turns=5"
        )
        for size in (16, 24, 32, 48, 64)
    ),
    *(
        _benchmark(
            f"train_remat_batch_{size}",
            *("train", "cityscapes", _BFLOAT16, "--config.model.remat=True"),
            *(f"--batch={size}", "--turns=5"),
        )
        for size in (8, 32, 64)
    ),
    *(
        _benchmark(
            f"train_whole_frame_batch_{size}",
            *("train", "cityscapes", _BFLOAT16),
            *("--size=1024x2048", f"--batch={size}", "--turns=5"),
        )
        for size in (1, 2, 4)
    ),
    _benchmark("inference_window", "inference", "cityscapes", _BFLOAT16, "--peer=torch"),
    _benchmark(
        *("inference_whole_frame", "inference", "cityscapes", _BFLOAT16),
        *("--size=1024x2048", "--peer=torch"),
    ),
    _benchmark(
        *("stream_bfloat16", "stream", "cityscapes", _BFLOAT16),
        *("--size=1024x2048", "--turns=50"),
    ),
    _benchmark("stream_float32", "stream", "cityscapes", "--size=1024x2048", "--turns=20"),
    *(
        _benchmark(
            f"stream_batch_{size}",
            *("stream", "cityscapes", _BFLOAT16),
            *("--size=1024x2048", f"--batch={size}", "--turns=20"),
        )
        for size in (2, 4, 8, 16)
    ),
    Run(
        "curves",
        (
            *("-m", "benchmarks.curves", "--config=configs/cityscapes.py"),
            *("--sides=257,513,769", "--out={out}/curves.png"),
        ),
    ),
    Run("start", ("-m", "benchmarks.start", "--config=configs/demo.py")),
    *(
        Run(
            f"demo_{dtype}",
            (
                *("run.py", "--config=configs/demo.py", f"--config.model.dtype={dtype}"),
                f"--workdir={{out}}/runs/demo_{dtype}",
            ),
            timeout=None,
            writes_json=False,
        )
        for dtype in ("float32", "bfloat16")
    ),
    Run(
        "demo_both",
        (
            *("-m", "benchmarks.baseline", "--out={out}/runs"),
            "--workdirs={out}/runs/demo_float32,{out}/runs/demo_bfloat16",
        ),
        writes_json=False,
    ),
)
"""In the order of their worth, should the machine be wanted back."""


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("docs/gpu"), help="folder of the results")
    parser.add_argument("--only", help=f"some of: {', '.join(run.name for run in RUNS)}")
    parser.add_argument("--cpu", action="store_true", help="go on without a GPU (takes hours)")
    options = parser.parse_args(arguments)
    if not options.cpu:
        check_gpu()
    perform(chosen(options.only), options.out)
    print(f"summary:  {options.out}/README.md")
    return 0


def check_gpu() -> None:
    """Asks a process of its own, since one that uses a GPU keeps some of its memory.

    Raises:
        UserError: JAX finds none.
    """
    program = "import jax; print(jax.default_backend())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if done.stdout.strip() != "gpu":
        raise UserError(
            f"JAX finds no GPU here, but {done.stdout.strip() or _last_lines(done.stderr)}: "
            'pip install "jax[cuda12]==0.10.2", or --cpu to go on without.'
        )


def chosen(names: str | None) -> list[Run]:
    """Raises UserError for a name that is none."""
    if names is None:
        return list(RUNS)
    known = {run.name: run for run in RUNS}
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


def measure(run: Run, out: Path) -> str:
    """One measurement in a process of its own; returns what became of it, in a few words."""
    words = [argument.format(out=out) for argument in run.arguments]
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
            failure = _last_lines(status.stderr) if status.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"took more than {run.timeout:.0f} s"
        if failure:
            output.write(f"\nFAILED: {failure}\n")
    partial.rename(log)
    return f"{'FAILED, ' if failure else ''}{time.monotonic() - began:.0f} s"


def summary(runs: Sequence[Run], out: Path) -> str:
    """Markdown: the targets of all reports, then what each measurement printed."""
    lines = ["# Measured on a GPU", "", "    python -m benchmarks.gpu", ""]
    lines += [
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
        command = " ".join(["python", *run.arguments]).format(out=out)
        log = _log(run, out)
        told = log.read_text().strip() if log.exists() else "Not measured yet."
        lines += ["", f"## {run.name}", "", f"    {command}", "", told]
    return "\n".join(lines) + "\n"


def _log(run: Run, out: Path) -> Path:
    return out / f"{run.name}.log"


def _last_lines(text: str) -> str:
    """What an error ends with."""
    return " ".join(text.strip().splitlines()[-2:])[-600:]


if __name__ == "__main__":
    sys.exit(main())
