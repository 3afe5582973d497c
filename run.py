"""Trains or evaluates a TMANet, or segments a video with it.

    python run.py [train|eval|consistency] --config=configs/demo.py [--workdir=DIR]
        [--config.FIELD=VALUE ...]
    python run.py predict --config=configs/demo.py --input=VIDEO|DIR|GLOB|CAMERA --output=DIR

Exit status: 0 done, 2 bad input (the message says what, where, and what to do).
"""

import sys
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from data_prep.demo import ensure_records
from tmanet_jax import settings
from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.inference.predict import Prediction, predict, prediction_of
from tmanet_jax.train.assess import evaluate_consistency, evaluate_workdir
from tmanet_jax.train.loop import train

CACHE_DIR = Path("~/.cache/tmanet_jax/compilation").expanduser()
PREDICT = "predict"

_CONFIG = config_flags.DEFINE_config_file("config", None, "The configuration file.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Checkpoints, logs, metrics and pictures; default runs/NAME."
)
_SUBMIT = flags.DEFINE_string(
    "submit", None, "Mode eval: a directory for predictions in the format of the data set's server."
)
_INPUT = flags.DEFINE_string("input", "", "predict: a video, folder or glob, or camera number.")
_OUTPUT = flags.DEFINE_string("output", "", "predict: folder of the results.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "predict: weights; default the workdir's.")
_FORMAT = flags.DEFINE_list("format", ["video"], "predict: any of video, png (overlays), labels.")
_ON_ERROR = flags.DEFINE_string("on-error", "keep", "predict: at a broken frame, keep or stop.")
_MEMORY_STRIDE = flags.DEFINE_integer("memory-stride", 1, "predict: frames between memory frames.")


def _evaluate(run_settings: settings.Settings, workdir: Path) -> None:
    evaluate_workdir(run_settings, workdir, Path(_SUBMIT.value) if _SUBMIT.value else None)


MODES = {"train": train, "eval": _evaluate, "consistency": evaluate_consistency}


@ends_with_message
def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    mode, config = _parse(argv)
    workdir = Path(_WORKDIR.value or f"runs/{config.name}")
    run_settings = settings.from_config(config)
    _use_compilation_cache()
    if mode == PREDICT:
        predict(_prediction(run_settings, workdir))
        return 0
    _ensure_demo_records(run_settings.data)
    MODES[mode](run_settings, workdir)
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
    mode = words[0] if words else "train"
    modes = (*MODES, PREDICT)
    if mode not in modes or len(words) > 1:
        raise UserError(f"{' '.join(words)!r} is no mode: choose one of {', '.join(modes)}.")
    if _SUBMIT.value and mode != "eval":
        raise UserError(
            f"--submit goes with mode eval, not {mode}: python run.py eval --submit=DIR."
        )
    return mode, config


def _prediction(run_settings: settings.Settings, workdir: Path) -> Prediction:
    return prediction_of(
        run_settings,
        workdir,
        checkpoint=_CHECKPOINT.value,
        source=_INPUT.value,
        output=_OUTPUT.value,
        formats=_FORMAT.value,
        on_error=_ON_ERROR.value,
        memory_stride=_MEMORY_STRIDE.value,
    )


def _ensure_demo_records(data: settings.DataConfig) -> None:
    if data.render is not None:
        ensure_records(
            Path(data.dir),
            size=data.render.size,
            num_train=data.render.num_train,
            num_eval=data.render.num_eval,
        )


def _use_compilation_cache() -> None:
    """Every program is kept on disk, so that the second start compiles nothing."""
    jax.config.update("jax_compilation_cache_dir", str(CACHE_DIR))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
