"""Every measurement of docs/performance.md that needs a GPU, as one command.

    pip install "jax[cuda12]==0.10.2" && pip install -r requirements-torch.txt
    python -m benchmarks gpu --out=docs/gpu

Started again, it goes on. The summary is OUT/README.md.
"""

import argparse
import subprocess
import sys

from benchmarks import command
from benchmarks.suite import Run, add_options, benchmark, chosen, last_lines, perform
from tmanet_jax.errors import UserError

_BFLOAT16 = "--config.model.dtype=bfloat16"

RUNS = (
    benchmark("train_cityscapes", "train", "cityscapes", _BFLOAT16, "--torch"),
    benchmark("train_camvid", "train", "camvid", _BFLOAT16, "--torch"),
    benchmark("attention", "attention", "cityscapes", _BFLOAT16, "--torch"),
    benchmark("train_cityscapes_float32", "train", "cityscapes", "--torch", "--turns=5"),
    *(
        benchmark(
            f"train_batch_{size}", "train", "cityscapes", _BFLOAT16, f"--batch={size}", "--turns=5"
        )
        for size in (16, 24, 32, 48, 64)
    ),
    *(
        benchmark(
            f"train_remat_batch_{size}",
            *("train", "cityscapes", _BFLOAT16, "--config.model.remat=True"),
            *(f"--batch={size}", "--turns=5"),
        )
        for size in (8, 32, 64)
    ),
    *(
        benchmark(
            f"train_whole_frame_batch_{size}",
            *("train", "cityscapes", _BFLOAT16),
            *("--size=1024x2048", f"--batch={size}", "--turns=5"),
        )
        for size in (1, 2, 4)
    ),
    benchmark("inference_window", "inference", "cityscapes", _BFLOAT16, "--torch"),
    benchmark(
        *("inference_whole_frame", "inference", "cityscapes", _BFLOAT16),
        *("--size=1024x2048", "--torch"),
    ),
    benchmark(
        *("stream_bfloat16", "stream", "cityscapes", _BFLOAT16),
        *("--size=1024x2048", "--turns=50"),
    ),
    benchmark("stream_float32", "stream", "cityscapes", "--size=1024x2048", "--turns=20"),
    *(
        benchmark(
            f"stream_batch_{size}",
            *("stream", "cityscapes", _BFLOAT16),
            *("--size=1024x2048", f"--batch={size}", "--turns=20"),
        )
        for size in (2, 4, 8, 16)
    ),
    benchmark("curves", "curves", "cityscapes", "--sides=257,513,769", "--out={out}/curves.png"),
    benchmark("start", "start", "demo"),
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
            *("-m", "benchmarks", "baseline", "--out={out}/runs"),
            "--workdirs={out}/runs/demo_float32,{out}/runs/demo_bfloat16",
        ),
        writes_json=False,
    ),
)
"""In the order of their worth, should the machine be wanted back."""


def add_command(commands: command.Subparsers) -> None:
    """`gpu`."""
    parser = command.add(commands, "gpu", __doc__, _run)
    add_options(parser, RUNS, "docs/gpu")
    parser.add_argument("--cpu", action="store_true", help="go on without a GPU (takes hours)")


def _run(options: argparse.Namespace) -> None:
    if not options.cpu:
        check_gpu()
    perform(chosen(RUNS, options.only), options.out)


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
            f"JAX finds no GPU here, but {done.stdout.strip() or last_lines(done.stderr)}: "
            'pip install "jax[cuda12]==0.10.2", or --cpu to go on without.'
        )
