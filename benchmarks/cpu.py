"""Every measurement of docs/performance.md on a CPU, as one command, of half an hour.

    pip install -r requirements-torch.txt
    python -m benchmarks.cpu --out=docs/cpu

Nothing else should run on the machine. Started again, it goes on. The summary is OUT/README.md.
"""

import sys
from collections.abc import Sequence

from benchmarks.suite import Run, benchmark, chosen, options_of, perform
from tmanet_jax.errors import ends_with_message

RUNS = (
    benchmark("train", "train", "cityscapes", "--peer=torch", "--turns=5"),
    benchmark("inference", "inference", "cityscapes", "--peer=torch"),
    benchmark("attention", "attention", "cityscapes", "--peer=torch", "--turns=5"),
    Run("start", ("-m", "benchmarks.start", "--config=configs/demo.py")),
    benchmark("stream_2", "stream", "cityscapes", "--peer=torch", "--turns=7"),
    benchmark("stream_4", "stream", "camvid", "--peer=torch", "--turns=7"),
    Run(
        "curves", ("-m", "benchmarks.curves", "--config=configs/demo.py", "--out={out}/curves.png")
    ),
    benchmark("data", "data", "benchmark"),
    benchmark("train_full_clip", "train", "cityscapes", "--full", "--batch=1", "--turns=3"),
)


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = options_of("benchmarks.cpu", __doc__, RUNS, "docs/cpu").parse_args(arguments)
    perform(chosen(RUNS, options.only), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
