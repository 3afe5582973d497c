"""Measurements one after the other, each a process of its own, and a summary in Markdown.

One that fails or does not fit takes no other with it. Each leaves NAME.json and NAME.log; started
again, a suite goes on with those that have neither. The summary is OUT/README.md: which targets are
met, then what each measurement printed; of the programs for TPUs it is one table, OUT/table.md.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command
from benchmarks.chips import FORMULA
from benchmarks.findings import markdown, write_text
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


def _benchmark(name: str, words: str) -> Run:
    """One of this folder."""
    return Run(name, ("-m", "benchmarks", *words.split()))


def _program(config: str, topology: str, options: str = "", kind: str = "train") -> Run:
    """Compiled for TPU chips: 10 to 20 CPU minutes."""
    name = f"{config}-{kind}-{topology.replace(':', '-')}"
    if "mesh.space=2" in options:
        name += "-space-2"
    words = f"{_BFLOAT16} --topology={topology} --program={kind} {options}"
    run = _benchmark(name, f"compile --config=configs/{config}.py {words}")
    return run._replace(timeout=None)


_BFLOAT16 = "--config.model.dtype=bfloat16"
_CITYSCAPES, _CAMVID = "--config=configs/cityscapes.py", "--config=configs/camvid.py"
_TRAIN, _STREAM = f"train {_CITYSCAPES} {_BFLOAT16}", f"stream {_CITYSCAPES} {_BFLOAT16}"
_INFERENCE, _FRAME = f"inference {_CITYSCAPES} {_BFLOAT16} --torch", "--size=1024x2048"
_ONE_CLIP, _LARGER = "--clips-per-chip=1", "--larger=v5e:8x8,v5e:16x16"
_SHARED = "--config.batch_size=8 --config.mesh.space=2"
_OTHER_CHIPS = ("v5p:2x2x4", "v6e:4x4", "v4:2x2x4")

CPU = (
    _benchmark("train", f"train {_CITYSCAPES} --torch --turns=5"),
    _benchmark("inference", f"inference {_CITYSCAPES} --torch"),
    _benchmark("attention", f"attention {_CITYSCAPES} --torch --turns=5"),
    _benchmark("start", "start"),
    _benchmark("stream_2", f"stream {_CITYSCAPES} --torch --turns=7"),
    _benchmark("stream_4", f"stream {_CAMVID} --torch --turns=7"),
    _benchmark("curves", "curves --out={out}/curves.png"),
    _benchmark("data", "data"),
    _benchmark("train_full_clip", f"train {_CITYSCAPES} --full --batch=1 --turns=3"),
)

GPU = (
    _benchmark("train_cityscapes", f"{_TRAIN} --torch"),
    _benchmark("train_camvid", f"train {_CAMVID} {_BFLOAT16} --torch"),
    _benchmark("attention", f"attention {_CITYSCAPES} {_BFLOAT16} --torch"),
    _benchmark("train_cityscapes_float32", f"train {_CITYSCAPES} --torch --turns=5"),
    *(
        _benchmark(f"train_batch_{size}", f"{_TRAIN} --batch={size} --turns=5")
        for size in (16, 24, 32, 48, 64)
    ),
    *(
        _benchmark(
            f"train_remat_batch_{size}",
            f"{_TRAIN} --config.model.remat=True --batch={size} --turns=5",
        )
        for size in (8, 32, 64)
    ),
    *(
        _benchmark(f"train_whole_frame_batch_{size}", f"{_TRAIN} {_FRAME} --batch={size} --turns=5")
        for size in (1, 2, 4)
    ),
    _benchmark("inference_window", _INFERENCE),
    _benchmark("inference_whole_frame", f"{_INFERENCE} {_FRAME}"),
    _benchmark("stream_bfloat16", f"{_STREAM} {_FRAME} --turns=50"),
    _benchmark("stream_float32", f"stream {_CITYSCAPES} {_FRAME} --turns=20"),
    *(
        _benchmark(f"stream_batch_{size}", f"{_STREAM} {_FRAME} --batch={size} --turns=20")
        for size in (2, 4, 8, 16)
    ),
    _benchmark("curves", f"curves {_CITYSCAPES} --sides=257,513,769 --out={{out}}/curves.png"),
    _benchmark("start", "start"),
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
    _benchmark(
        "demo_both",
        "baseline --out={out}/runs --workdirs={out}/runs/demo_float32,{out}/runs/demo_bfloat16",
    )._replace(writes_json=False),
)
"""In the order of their worth, should the machine be wanted back."""

TPU = (
    _program("cityscapes", "v5e:4x4", f"{_ONE_CLIP} {_LARGER}"),
    _program("cityscapes", "v5e:4x4", _SHARED),
    _program("camvid", "v5e:4x4", f"{_ONE_CLIP} {_LARGER}"),
    *(_program("cityscapes", chips, _ONE_CLIP) for chips in _OTHER_CHIPS),
    *(_program("cityscapes", "v5e:1x1", kind=kind) for kind in ("eval", "stream")),
    *(_program("camvid", chips, _ONE_CLIP) for chips in _OTHER_CHIPS),
    _program("camvid", "v5e:4x4", _SHARED),
    *(_program("camvid", "v5e:1x1", "--frame-size=720x960", kind) for kind in ("eval", "stream")),
)
"""The published runs, the most important ones first."""

HELP = {
    "cpu": """Every measurement of docs/performance.md on a CPU, in half an hour.

    pip install -r requirements-torch.txt
    python -m benchmarks cpu --out=docs/cpu

Nothing else should run on the machine. Started again, it goes on. The summary is OUT/README.md.""",
    "gpu": """Every measurement of docs/performance.md that needs a GPU.

    pip install "jax[cuda12]==0.10.2" && pip install -r requirements-torch.txt
    python -m benchmarks gpu --out=docs/gpu

Started again, it goes on. The summary is OUT/README.md.""",
    "tpu": """The published runs, compiled for TPU chips that are not at hand.

    pip install -r requirements-tpu.txt
    python -m benchmarks tpu --out=docs/compile

10 to 20 CPU minutes each; started again, it goes on. The table is OUT/table.md.""",
}


def add_command(commands: command.Subparsers) -> None:
    """`cpu`, `gpu` and `tpu`."""
    for name, runs in (("cpu", CPU), ("gpu", GPU), ("tpu", TPU)):
        parser = command.add(commands, name, HELP[name], functools.partial(_run, name, runs))
        default = Path("docs/compile" if name == "tpu" else f"docs/{name}")
        parser.add_argument("--out", type=Path, default=default, help="folder of the results")
        parser.add_argument("--only", help=f"some of: {', '.join(run.name for run in runs)}")
        if name == "gpu":
            parser.add_argument("--cpu", action="store_true", help="go on without one, for hours")


def _run(name: str, runs: Sequence[Run], options: argparse.Namespace) -> None:
    if name == "gpu" and not options.cpu:
        check_gpu()
    perform(chosen(runs, options.only), options.out, runs)


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


def perform(runs: Sequence[Run], out: Path, suite: Sequence[Run]) -> None:
    """Runs what has not ended yet; the summary of the suite is written anew after each."""
    file, summary = ("table.md", table) if suite is TPU else ("README.md", targets_and_logs)
    write_text(out / file, summary(suite, out))
    for run in runs:
        if not (_log(run, out).exists() or _json(run, out).exists()):
            print(f"{run.name} ...", end=" ", flush=True)
            print(measure(run, out), flush=True)
            write_text(out / file, summary(suite, out))
    print(f"summary:  {out / file}")


def measure(run: Run, out: Path) -> str:
    """One measurement in a process of its own; returns what became of it, in a few words."""
    words = [argument.replace("{out}", str(out)) for argument in run.arguments]
    if run.writes_json:
        words.append(f"--json={_json(run, out)}")
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


def targets_and_logs(runs: Sequence[Run], out: Path) -> str:
    """Markdown: the targets of all measurements, then what each printed."""
    rows = []
    for run in runs:
        for target in _read(run, out).get("targets", ()):
            relation = "at least" if target["at_least"] else "at most"
            asked = f"{relation} {target['target']:.3g}"
            met = "yes" if target["met"] else "NO"
            rows.append((run.name, target["name"], f"{target['value']:.3g}", asked, met))
    columns = ("measurement", "target", "found", "asked for", "met")
    lines = ["# Measured", "", markdown(columns, rows)]
    for run in runs:
        command = " ".join(["python", *run.arguments]).replace("{out}", str(out))
        log = _log(run, out)
        told = log.read_text().strip() if log.exists() else "Not measured yet."
        lines += ["", f"## {run.name}", "", f"    {command}", "", told]
    return "\n".join(lines) + "\n"


def table(runs: Sequence[Run], out: Path) -> str:
    """Markdown: one table of all programs that have been compiled."""
    found = [_read(run, out) for run in runs]
    columns = next((each["columns"] for each in found if each), ["nothing is compiled yet"])
    rows = [row for each in found for row in each.get("rows", ())]
    return f"""\
# The published runs on TPU chips, compiled without one

Memory and collectives are what the TPU's compiler answers, in bfloat16. Step times are
projections by the formula below, from published figures: nothing here ran on a chip.

{markdown(columns, rows)}

Made by `python -m benchmarks tpu`, with the findings beside it.

```
{FORMULA}
```
"""


def _read(run: Run, out: Path) -> dict[str, Any]:
    """What a measurement found; empty before.

    Raises:
        UserError: its file holds something else.
    """
    path = _json(run, out)
    if not path.exists():
        return {}
    try:
        findings = json.loads(path.read_text())
        return {name: findings[name] for name in ("columns", "rows", "targets")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no findings ({error}): delete it, and they are made again."
        ) from error


def _log(run: Run, out: Path) -> Path:
    return out / f"{run.name}.log"


def _json(run: Run, out: Path) -> Path:
    return out / f"{run.name}.json"


def _last_lines(text: str) -> str:
    """What an error ends with."""
    return " ".join(text.strip().splitlines()[-2:])[-600:]
