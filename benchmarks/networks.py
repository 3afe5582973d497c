"""Small networks on the rendered street: what they score after the same steps, and their time.

    python -m benchmarks networks [--steps=2500]

Each is trained by `run.py` in runs/networks/, unless it has been; then all of them segment one
stream of frames in turns, with one pass of the backbone a frame.
"""

import argparse
from pathlib import Path

from benchmarks import command
from benchmarks.findings import load_note, markdown
from benchmarks.memory import scores_of, train
from benchmarks.stream import frame_milliseconds
from tmanet_jax.command_line import parse_count
from tmanet_jax.models.tmanet import abstract_model, num_parameters

CONFIGS = ("demo", "tmanet_mobile")
RUNS = Path("runs/networks")
SIZE = (128, 256)
TURNS = 50


def add_command(commands: command.Subparsers) -> None:
    """`networks`."""
    parser = command.add(commands, "networks", __doc__, _run)
    parser.add_argument(
        "--steps", type=parse_count, default=2500, help="of each run; default %(default)s"
    )


def _run(options: argparse.Namespace) -> None:
    workdirs = {name: RUNS / f"{name}-{options.steps}" for name in CONFIGS}
    fields = [f"--config.num_steps={options.steps}", f"--config.eval.every={options.steps}"]
    for name, workdir in workdirs.items():
        train(workdir, f"configs/{name}.py", fields)
    models = {name: command.read_settings(f"configs/{name}.py", []).model for name in CONFIGS}
    taken = frame_milliseconds(models, SIZE, TURNS)
    rows = [
        [
            name,
            f"{num_parameters(abstract_model(models[name])) / 1e6:.2f}",
            *(f"{100 * score:.1f}" for score in scores_of(workdir)),
            f"{taken[name]:.1f}",
        ]
        for name, workdir in workdirs.items()
    ]
    print(f"After {options.steps} steps; a frame of {SIZE[0]}x{SIZE[1]}, the median of {TURNS}:\n")
    columns = ("configuration", "M parameters", "mIoU", "clean", "spoilt", "ms a frame")
    print(f"{markdown(columns, rows)}\n\n{load_note()}")
