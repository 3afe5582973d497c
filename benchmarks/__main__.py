"""Measures this project, where it can beside the same in PyTorch.

python -m benchmarks train --config=configs/cityscapes.py --torch
python -m benchmarks COMMAND --help
"""

import data_prep  # noqa: F401  # first: what is interrupted from here on says so

# isort: split
import argparse
import sys
from collections.abc import Sequence

from benchmarks import (
    attention,
    compile,
    data,
    engines,
    finetune,
    formats,
    gpu,
    inference,
    memory,
    moving_picture,
    networks,
    stages,
    start,
    stream,
    suites,
    train,
)
from tmanet_jax.errors import ends_with_message


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = parser_of_all()
    options, others = parser.parse_known_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 0
    if others and "config" not in options:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    options.others = others
    options.run(options)
    return 0


def parser_of_all() -> argparse.ArgumentParser:
    """Of every command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for measurement in (
        *(train, inference, stream, stages, engines, attention, data, formats, start),
        *(compile, memory, networks, finetune, suites, gpu, moving_picture),
    ):
        measurement.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
