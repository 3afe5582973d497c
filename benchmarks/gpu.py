r"""What matters most on one GPU, within minutes: for a machine that is rented by the minute.

    python -m benchmarks gpu --budget=420 --cache=DIR
    JAX_PLATFORMS=cpu python -m benchmarks gpu --rehearse

In this order, each a process of its own with a limit of its own: the golden clips; a training step
of the Cityscapes configuration in bfloat16, beside the strongest one in PyTorch and with chunked
attention; streaming of whole frames; the step's kernels; the largest batch; training on whole
frames; the memory read beside tokamax's; training in float32. Where the budget ends, the rest is
told as not measured. Called again, it goes on with what has no result yet, failed ones included.

Each part leaves OUT/NAME.json and OUT/NAME.log, which is written as the part goes; OUT/README.md is
the summary, OUT/profile the trace. Whatever is compiled is kept in the folder `--cache`: bring it
back and along, and the next call, on another machine like this one, compiles nothing.

`--rehearse` runs the same with tiny sizes, on a CPU too, into a folder of its own and without
limits but the budget; its results say what they are.

A machine without a network: see what it has (`python -m pip list`), and where there is one fetch
the rest of requirements.txt, and what that needs, for its Python:

    python -m pip download --no-deps --only-binary=:all: --python-version=3.12 \
        --platform=manylinux_2_28_x86_64 --platform=manylinux_2_17_x86_64 \
        --platform=manylinux2014_x86_64 -d wheels NAME==VERSION ...
    python -m pip wheel --no-deps -w wheels promise

and there:

    python -m pip install --no-index --no-deps --target=site wheels/*.whl && export PYTHONPATH=site

One with jax, flax, optax, orbax, torch, OpenCV, numba and pandas lacks array_record, av,
googleapis-common-protos, grain, immutabledict, ml_collections, portpicker, promise, simplejpeg,
six, tensorflow-datasets, tensorflow-metadata, toml and zstandard: 50 MB, of which av is 36.
"""

import argparse
import dataclasses
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import command, suites
from benchmarks.findings import Findings, publish, write_text
from benchmarks.gpu_parts import PARTS, PUBLISHED, REHEARSAL
from tmanet_jax.command_line import parse_count
from tmanet_jax.compilation_cache import use_compilation_cache
from tmanet_jax.errors import UserError

LEAST_S = 15
"""With less left no part begins: it would end before its first number."""

CACHES = {
    "JAX_COMPILATION_CACHE_DIR": "jax",
    "TORCHINDUCTOR_CACHE_DIR": "torch",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
}
"""Folders within `--cache`, by the variables that name them."""


def add_command(commands: command.Subparsers) -> None:
    """`gpu`."""
    parser = command.add(commands, "gpu", __doc__, _run)
    parser.add_argument(
        "--budget", type=parse_count, default=420, metavar="S", help="seconds; default %(default)s"
    )
    parser.add_argument("--out", type=Path, help="folder of the results; default docs/gpu")
    parser.add_argument("--cache", type=Path, help="folder of what is compiled")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU too")
    parser.add_argument("--only", metavar="NAMES", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)


def _run(options: argparse.Namespace) -> None:
    out = options.out or Path("runs/gpu-rehearsal" if options.rehearse else "docs/gpu")
    if options.part:
        use_compilation_cache()
        publish(measure(options.part, out, is_rehearsal=options.rehearse), options.json)
        return
    if not options.rehearse:
        check_gpu()
    mode = " --rehearse" if options.rehearse else ""
    runs = {name: f"gpu --part={name} --out={out}{mode}" for name in PARTS}
    os.environ |= environment(options.cache)
    limits = {name: math.inf if options.rehearse else part.limit_s for name, part in PARTS.items()}
    perform(runs, suites.chosen(runs, options.only), out, limits, options.budget)


def environment(cache: Path | None) -> dict[str, str]:
    """Variables of the parts: nearly all memory may be used, and programs are kept in a folder."""
    kept = {name: str(cache.resolve() / folder) for name, folder in CACHES.items()} if cache else {}
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95", **kept}


def measure(name: str, out: Path, *, is_rehearsal: bool) -> Findings:
    """One part, in this process."""
    if not is_rehearsal:
        return PARTS[name].measure(PUBLISHED, out)
    found = PARTS[name].measure(REHEARSAL, out)
    return dataclasses.replace(found, title=f"A REHEARSAL at tiny sizes. {found.title}", targets=())


def perform(
    runs: suites.Runs,
    names: Sequence[str],
    out: Path,
    limits_s: Mapping[str, float],
    budget_s: float,
) -> None:
    """Runs what has no result yet until the budget ends; the summary is written after each."""
    end = time.monotonic() + budget_s
    missing = [name for name in names if not (out / f"{name}.json").exists()]
    write_text(out / "README.md", suites.targets_and_logs(runs, out))
    for name in missing:
        left = end - time.monotonic()
        if left < LEAST_S:
            print(f"{name}: not measured, the budget of {budget_s} s ends")
            continue
        print(f"{name} ...", end=" ", flush=True)
        limit = min(limits_s[name], left)
        print(suites.measure(name, suites.command_line(runs[name]), out, limit), flush=True)
        write_text(out / "README.md", suites.targets_and_logs(runs, out))
    print(f"summary:  {out / 'README.md'}")


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
            f"JAX finds no GPU here, but {done.stdout.strip() or suites.last_lines(done.stderr)}: "
            'pip install "jax[cuda12]==0.10.2"; --rehearse needs none.'
        )
