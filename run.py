"""Trains, evaluates or measures a TMANet.

    python run.py [train|eval] --config=configs/demo.py [--workdir=DIR] [--config.FIELD=VALUE ...]
    python run.py benchmark data --config=configs/benchmark.py [--json=FILE]
    python run.py benchmark stream --config=configs/cityscapes.py [--peer=torch] [--size=256x512]

Exit status: 0 done, 2 bad input (the message says what, where, and what to do).
"""

import sys
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from data_prep.demo import ensure_records
from tmanet_jax import settings
from tmanet_jax.deploy import benchmark, benchmark_data, benchmark_stream
from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.train.loop import evaluate_workdir, train

CACHE_DIR = Path("~/.cache/tmanet_jax/compilation").expanduser()
MODES = {"train": train, "eval": evaluate_workdir}

_CONFIG = config_flags.DEFINE_config_file("config", None, "The configuration file.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Checkpoints, logs, metrics and pictures; default runs/NAME."
)
_JSON = flags.DEFINE_string("json", None, "A benchmark's report goes to this file, too.")
_SIZE = flags.DEFINE_string("size", "256x512", "Height x width of benchmark stream's frames.")
_TURNS = flags.DEFINE_integer("turns", 10, "Frames that benchmark stream counts.", lower_bound=1)
_PEER = flags.DEFINE_enum("peer", None, ["torch"], "Another program for benchmark stream.")


def _measure_stream(run_settings: settings.Settings) -> benchmark.Report:
    return benchmark_stream.measure(
        run_settings,
        size=benchmark_stream.parse_size(_SIZE.value),
        turns=_TURNS.value,
        peer=_torch_peer() if _PEER.value else None,
    )


def _torch_peer() -> benchmark_stream.Peer:
    """Raises UserError if torch is not installed."""
    try:
        from benchmarks.torch_video import video_sides  # torch is optional
    except ModuleNotFoundError as error:
        raise UserError(
            f"--peer=torch needs {error.name}: pip install -r requirements-torch.txt."
        ) from error
    return video_sides


BENCHMARKS = {"benchmark data": benchmark_data.measure, "benchmark stream": _measure_stream}


@ends_with_message
def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    mode, config = _parse(argv)
    run_settings = settings.from_config(config)
    _ensure_demo_records(run_settings.data)
    _use_compilation_cache()
    if mode in BENCHMARKS:
        benchmark.publish(BENCHMARKS[mode](run_settings), _JSON.value)
    else:
        MODES[mode](run_settings, Path(_WORKDIR.value or f"runs/{config.name}"))
    return 0


def _parse(argv: list[str]) -> tuple[str, ConfigDict]:
    """Raises UserError for an unknown mode, configuration, field or type."""
    app.define_help_flags()
    try:
        words = flags.FLAGS(argv)[1:]
        config = _CONFIG.value
        if config is not None:
            config.lock()  # the first use reports a file that could not be loaded
    except Exception as error:  # a configuration is a program: it can fail in any way
        reason = str(error).strip("'\"").replace("\\n", " ").replace("\\'", "'")
        raise UserError(
            f"The command line or its configuration is wrong: {reason}. Fields and their types: "
            "configs/default.py."
        ) from error
    if config is None:
        raise UserError("Which configuration? For example --config=configs/demo.py.")
    mode = " ".join(words) or "train"
    if mode not in MODES | BENCHMARKS:
        raise UserError(f"{mode!r} is no mode: choose one of {', '.join(MODES | BENCHMARKS)}.")
    return mode, config


def _ensure_demo_records(data: settings.DataConfig) -> None:
    if data.render is not None:
        ensure_records(
            Path(data.dir),
            size=data.render.size,
            num_train=data.render.num_train,
            num_eval=data.render.num_eval,
            memory_range=data.render.memory_range,
        )


def _use_compilation_cache() -> None:
    """Every program is kept on disk, so that the second start compiles nothing."""
    jax.config.update("jax_compilation_cache_dir", str(CACHE_DIR))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
