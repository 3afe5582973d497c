"""Measurements one after the other, each a process of its own, and a summary in Markdown.

One that fails or does not fit takes no other with it. Each leaves NAME.json and NAME.log; started
again, a suite goes on with those that have neither. The summary is OUT/README.md: which targets are
met, then what each measurement printed; of the steps for TPUs it is one table, OUT/table.md.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.chips import FORMULA
from benchmarks.findings import Target, markdown, write_text
from tmanet_jax.errors import UserError

TIMEOUT_S = {"cpu": 1800, "tpu": None}
"""Of one measurement."""

ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # torch wants some
    "JAX_TRACEBACK_FILTERING": "off",  # an error's last lines are the error then, not a note of jax
}
"""Of every measurement's process."""

Runs = Mapping[str, str]
"""What follows `python -m benchmarks`, by the name of its files."""

_BFLOAT16 = "--config.model.dtype=bfloat16"
_CITYSCAPES, _CAMVID = "--config=configs/cityscapes.py", "--config=configs/camvid.py"
_STREAM = f"stream {_CITYSCAPES}"

CPU: Runs = {
    "train": f"train {_CITYSCAPES} --torch --turns=5",
    "inference": f"inference {_CITYSCAPES} --torch",
    "attention": f"attention {_CITYSCAPES} --torch --turns=5",
    "start": "start",
    "stream_2": f"{_STREAM} --torch --turns=7",
    "stream_4": f"stream {_CAMVID} --torch --turns=7",
    "data": "data",
    "train_full_clip": f"train {_CITYSCAPES} --full --batch=1 --turns=3",
}


def _compiled(
    config: str, topology: str, *options: str, of: str = "train", name: str = ""
) -> dict[str, str]:
    """A program, compiled for TPU chips: of training 6 to 12 CPU minutes, of the others 2 to 5.

    Args:
        config: of the run.
        topology: chips.
        options: further ones.
        of: which program.
        name: what tells it from others of the same topology.
    """
    parts = (config, of, topology.replace(":", "-"), name)
    words = (f"--of={of} --config=configs/{config}.py", _BFLOAT16, f"--topology={topology}")
    return {"-".join(filter(None, parts)): " ".join(["compile", *words, *options])}


def _clips(count: int) -> str:
    return f"--config.batch_size={count}"


_SPACE = "--config.mesh.space=2"
_WHOLE = "--config.eval.mode=whole"
_CAMVID_FRAME = "--size=720x960"

TPU: Runs = {
    **_compiled("cityscapes", "v5e:4x4", _clips(16)),
    **_compiled("cityscapes", "v5e:8x8", _clips(64)),
    **_compiled("cityscapes", "v5e:16x16", _clips(256)),
    **_compiled("cityscapes", "v5e:4x4", _clips(8), _SPACE, name="space-2"),
    **_compiled("cityscapes", "v5e:4x4", _clips(32), name="2-a-chip"),
    **_compiled("cityscapes", "v6e:4x4", _clips(16)),
    **_compiled("cityscapes", "v6e:4x4", _clips(64), name="4-a-chip"),
    **_compiled("cityscapes", "v5p:2x2x4", _clips(16)),
    **_compiled("cityscapes", "v4:2x2x4", _clips(16)),
    **_compiled("cityscapes", "v5e:4x4", _clips(32), "--slices=2", name="2-slices"),
    **_compiled("camvid", "v5e:4x4", _clips(16), "--larger=v5e:8x8,v5e:16x16"),
    **_compiled("camvid", "v5e:4x4", _clips(8), _SPACE, name="space-2"),
    **_compiled("camvid", "v5p:2x2x4", _clips(16)),
    **_compiled("camvid", "v6e:4x4", _clips(16)),
    **_compiled("camvid", "v4:2x2x4", _clips(16)),
    **_compiled("cityscapes", "v5e:2x2", of="eval"),
    **_compiled("camvid", "v5e:2x2", _CAMVID_FRAME, of="eval"),
    **_compiled("cityscapes", "v5e:1x1", _WHOLE, of="stream"),
    **_compiled("cityscapes", "v5e:1x1", _WHOLE, "--int8", of="stream", name="int8"),
    **_compiled("camvid", "v5e:1x1", _WHOLE, _CAMVID_FRAME, of="stream"),
}
"""The published runs, the most important ones first."""

SUITES: Mapping[str, Runs] = {"cpu": CPU, "tpu": TPU}

HELP = {
    "cpu": """Every measurement of docs/performance.md on a CPU, in half an hour.

    pip install -r requirements-torch.txt
    python -m benchmarks cpu --out=docs/cpu

Nothing else should run on the machine. Started again, it goes on. The summary is OUT/README.md.""",
    "tpu": """The published runs, compiled for TPU chips that are not at hand.

    pip install -r requirements-tpu.txt
    python -m benchmarks tpu --out=docs/compile

2 to 12 CPU minutes each; started again, it goes on. The table is OUT/table.md.""",
}


def add_command(commands: command.Subparsers) -> None:
    """`cpu` and `tpu`."""
    for name, runs in SUITES.items():
        parser = command.add(commands, name, HELP[name], functools.partial(_run, name))
        default = Path("docs/compile" if name == "tpu" else f"docs/{name}")
        parser.add_argument("--out", type=Path, default=default, help="folder of the results")
        parser.add_argument("--only", help=f"some of: {', '.join(runs)}")


def _run(name: str, options: argparse.Namespace) -> None:
    runs = SUITES[name]
    perform(runs, chosen(runs, options.only), options.out, TIMEOUT_S[name])


def chosen(runs: Runs, names: str | None) -> Sequence[str]:
    """Those of the given names, as in "start,data", or all.

    Raises:
        UserError: a name is none.
    """
    wanted = list(runs) if names is None else names.split(",")
    for name in wanted:
        if name not in runs:
            raise UserError(f"--only: {name!r} is no measurement: choose of {', '.join(runs)}.")
    return wanted


def perform(runs: Runs, names: Sequence[str], out: Path, timeout_s: float | None) -> None:
    """Runs what has not ended yet; the summary of the suite is written anew after each."""
    file, summary = ("table.md", table) if runs is TPU else ("README.md", targets_and_logs)
    write_text(out / file, summary(runs, out))
    for name in names:
        if not ((out / f"{name}.log").exists() or (out / f"{name}.json").exists()):
            print(f"{name} ...", end=" ", flush=True)
            print(measure(name, command_line(runs[name]), out, timeout_s), flush=True)
            write_text(out / file, summary(runs, out))
    print(f"summary:  {out / file}")


def command_line(words: str) -> list[str]:
    """Of a measurement."""
    return ["python", "-m", "benchmarks", *words.split()]


def measure(name: str, command: Sequence[str], out: Path, timeout_s: float | None) -> str:
    """One measurement in a process of its own; returns what became of it, in a few words."""
    began, partial = time.monotonic(), out / f"{name}.partial"
    with partial.open("w") as output:
        try:
            status = subprocess.run(
                [sys.executable, *command[1:], f"--json={out / name}.json"],
                env=os.environ | ENVIRONMENT,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
            failure = last_lines(status.stderr) if status.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"took more than {timeout_s:.0f} s"
        if failure:
            output.write(f"\nFAILED: {failure}\n")
    partial.rename(out / f"{name}.log")
    return f"{'FAILED, ' if failure else ''}{time.monotonic() - began:.0f} s"


def targets_and_logs(runs: Runs, out: Path) -> str:
    """Markdown: the targets of all measurements, then what each printed."""
    rows = []
    for name in runs:
        for target in _read(name, out).get("targets", ()):
            met = "yes" if target.pop("met") else "NO"
            found = Target(**target)
            asked = f"{found.relation} {found.target:.3g}"
            rows.append((name, found.name, f"{found.value:.3g}", asked, met))
    columns = ("measurement", "target", "found", "asked for", "met")
    lines = ["# Measured", "", markdown(columns, rows)]
    for name, words in runs.items():
        log = out / f"{name}.log"
        told = log.read_text().strip() if log.exists() else "Not measured yet."
        lines += ["", f"## {name}", "", f"    {' '.join(command_line(words))}", "", told]
    return "\n".join(lines) + "\n"


def table(runs: Runs, out: Path) -> str:
    """Markdown: one table of all steps that have been compiled."""
    found = [_read(name, out) for name in runs]
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


def _read(name: str, out: Path) -> dict[str, Any]:
    """What a measurement found; empty before.

    Raises:
        UserError: its file holds something else.
    """
    path = out / f"{name}.json"
    if not path.exists():
        return {}
    try:
        findings = json.loads(path.read_text())
        return {key: findings[key] for key in ("columns", "rows", "targets")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no findings ({error}): delete it, and they are made again."
        ) from error


def last_lines(text: str) -> str:
    """What an error ends with."""
    return " ".join(text.strip().splitlines()[-2:])[-600:]
