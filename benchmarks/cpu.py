"""Every measurement of docs/performance.md on a CPU, as one command, of half an hour.

    pip install -r requirements-torch.txt
    python -m benchmarks cpu --out=docs/cpu

Nothing else should run on the machine. Started again, it goes on. The summary is OUT/README.md.
"""

import argparse

from benchmarks import command
from benchmarks.suite import add_options, benchmark, chosen, perform

RUNS = (
    benchmark("train", "train", "cityscapes", "--torch", "--turns=5"),
    benchmark("inference", "inference", "cityscapes", "--torch"),
    benchmark("attention", "attention", "cityscapes", "--torch", "--turns=5"),
    benchmark("start", "start", "demo"),
    benchmark("stream_2", "stream", "cityscapes", "--torch", "--turns=7"),
    benchmark("stream_4", "stream", "camvid", "--torch", "--turns=7"),
    benchmark("curves", "curves", "demo", "--out={out}/curves.png"),
    benchmark("data", "data", "benchmark"),
    benchmark("train_full_clip", "train", "cityscapes", "--full", "--batch=1", "--turns=3"),
)


def add_command(commands: command.Subparsers) -> None:
    """`cpu`."""
    parser = command.add(commands, "cpu", __doc__, _run)
    add_options(parser, RUNS, "docs/cpu")


def _run(options: argparse.Namespace) -> None:
    perform(chosen(RUNS, options.only), options.out)
