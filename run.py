"""Trains, scores or uses a TMANet.

    python run.py [train] --config=configs/demo.py [--workdir=DIR] [--config.FIELD=VALUE ...]
    python run.py eval|consistency --config=configs/demo.py [--workdir=DIR] [--submit=DIR]
    python run.py [MODE] --workdir=DIR
    python run.py predict --config=configs/demo.py --input=VIDEO|DIR|GLOB|CAMERA --output=DIR

A workdir says what configuration its run has: then --config is not needed.

Several processes as one (docs/pods.md), each started with

    python run.py [train]|eval --config=... --distributed
    python run.py [train]|eval --config=... --coordinator=HOST:PORT --num-processes=N --process-id=I

Exit status: 0 done; 2 bad input or a full disk (the message says what, where, and what to do); 143
or 130 training was told to stop by SIGTERM or SIGINT, finished its step (of an evaluation, the clip
in hand) and wrote a checkpoint: the same command goes on from there, bit for bit; 75 another
process of the run is lost (the message says which): start all again.
"""

import data_prep  # noqa: F401  # first: what is interrupted from here on says so

# isort: split
import dataclasses
import logging
import os
import reprlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from absl import app, flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, config_flags

from data_prep.street.demo import ensure_records
from tmanet_jax import settings
from tmanet_jax.allocator import computes_on_cpu, keep_freed_buffers
from tmanet_jax.compilation_cache import use_compilation_cache
from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.inference.predict import predict, prediction_of
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.sharding import check_devices
from tmanet_jax.scoring.modes import evaluate_consistency, evaluate_workdir
from tmanet_jax.settings import Settings
from tmanet_jax.train.loop import train
from tmanet_jax.workdir import (
    CONFIG_FILE,
    fields_of,
    tell_contradictions,
    with_config_of_workdir,
)

CONFIG_OF_WORKDIR = Path(__file__).with_name("configs") / "workdir.py"

_CONFIG = config_flags.DEFINE_config_file("config", None, "The configuration file.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Checkpoints, logs, metrics and pictures; default runs/NAME."
)
_SUBMIT = flags.DEFINE_string(
    "submit", None, "eval: a directory for predictions in the format of the data set's server."
)
_INPUT = flags.DEFINE_string(
    "input",
    "",
    "predict: a video, its address (- for standard input), a picture, folder, glob or camera.",
)
_OUTPUT = flags.DEFINE_string("output", "", "predict: folder of the results.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "predict: weights; default the workdir's.")
_FORMAT = flags.DEFINE_list("format", ["video"], "predict: any of video, png (overlays), labels.")
_ON_ERROR = flags.DEFINE_string("on-error", "keep", "predict: at a broken frame, keep or stop.")
_SOUND = flags.DEFINE_string("sound", "keep", "predict: sound of the video, keep or none.")
_MEMORY_STRIDE = flags.DEFINE_integer(
    "memory-stride", None, "Frames between memory frames; default the weights'."
)
_SCALE = flags.DEFINE_string(
    "scale", None, "predict: resize frames before, by a factor or to fit HEIGHTxWIDTH."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes; TPU pod, SLURM or Kubernetes tell which."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where all meet.")
_NUM_PROCESSES = flags.DEFINE_integer("num-processes", None, "With --coordinator: how many.")
_PROCESS_ID = flags.DEFINE_integer("process-id", None, "With --coordinator: which one, from 0.")
_START_TIMEOUT = flags.DEFINE_integer(
    "start-timeout",
    None,
    f"Seconds for all to come; default {distributed.START_TIMEOUT_S}.",
    lower_bound=1,
)
_PEER_TIMEOUT = flags.DEFINE_integer(
    "peer-timeout",
    None,
    "Seconds of silence after which a process is lost and the others end; default "
    f"{distributed.PEER_TIMEOUT_S}.",
    lower_bound=1,
)
_PROCESSES = (
    _DISTRIBUTED,
    _COORDINATOR,
    _NUM_PROCESSES,
    _PROCESS_ID,
    _START_TIMEOUT,
    _PEER_TIMEOUT,
)


def _train(run: Settings, workdir: Path) -> None:
    train(run, workdir, fields_of(_CONFIG.value))


def _evaluate(run: Settings, workdir: Path) -> None:
    evaluate_workdir(run, workdir, Path(_SUBMIT.value) if _SUBMIT.value else None)


def _consistency(run: Settings, workdir: Path) -> None:
    evaluation = run.evaluation.told_besides(memory_stride=_MEMORY_STRIDE.value)
    evaluate_consistency(dataclasses.replace(run, evaluation=evaluation), workdir)


def _predict(run: Settings, workdir: Path) -> None:
    prediction = prediction_of(
        run,
        workdir,
        checkpoint=_CHECKPOINT.value,
        source=_INPUT.value,
        output=_OUTPUT.value,
        formats=_FORMAT.value,
        on_error=_ON_ERROR.value,
        sound=_SOUND.value,
        memory_stride=_MEMORY_STRIDE.value,
        scale=_SCALE.value,
    )
    predict(prediction)


class Mode(NamedTuple):
    """What the first words of a command line choose.

    Attributes:
        start: with the settings and the workdir.
        options: flags that go with this mode; others that are given are refused.
        needs_records: whether a configuration's street is rendered if there are no records.
    """

    start: Callable[[Settings, Path], object]
    options: tuple[flags.FlagHolder, ...] = ()
    needs_records: bool = True


MODES: Mapping[str, Mode] = {
    "train": Mode(_train, _PROCESSES),
    "eval": Mode(_evaluate, (_SUBMIT, *_PROCESSES)),
    "consistency": Mode(_consistency, (_MEMORY_STRIDE,)),
    "predict": Mode(
        _predict,
        (_INPUT, _OUTPUT, _CHECKPOINT, _FORMAT, _ON_ERROR, _SOUND, _MEMORY_STRIDE, _SCALE),
        needs_records=False,
    ),
}


@ends_with_message
def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    mode, config = _parse(argv)
    run = settings.from_config(config, config_flags.get_override_values(flags.FLAGS["config"]))
    _quieten_libraries()
    if computes_on_cpu(os.environ.get("JAX_PLATFORMS")):
        keep_freed_buffers()
    use_compilation_cache()
    with distributed.joined(_launch()):
        check_devices()
        distributed.check_same_fields("configuration", _told(mode, config))
        if MODES[mode].needs_records:
            distributed.in_turn(lambda: _ensure_demo_records(run.data))
        workdir = Path(_WORKDIR.value or f"runs/{config.name}")
        if mode in ("eval", "consistency", "predict"):  # training compares with its checkpoint
            tell_contradictions(workdir, config)
        MODES[mode].start(run, workdir)
    return 0


def _parse(argv: list[str]) -> tuple[str, ConfigDict]:
    """Raises UserError for an unknown mode, configuration, field or type."""
    app.define_help_flags()
    sys.argv = argv = with_config_of_workdir(argv, CONFIG_OF_WORKDIR)
    try:
        words = flags.FLAGS(argv)[1:]
        config = _CONFIG.value
        if config is not None:
            config.lock()  # the first use reports a file that could not be loaded
    except SystemExit as end:  # absl has shown its help, and calls that an error
        raise SystemExit(0) from end
    except Exception as error:  # a configuration is a program: it can fail in any way
        reason = str(error).replace("\\n", " ").replace("\\'", "'")
        if reason[:1] in ("'", '"') and reason.endswith(reason[0]):  # a KeyError quotes its text
            reason = reason[1:-1]
        raise UserError(
            f"The command line or its configuration is wrong: {reason}. Fields and their types: "
            "configs/default.py."
        ) from error
    if config is None:
        raise UserError(
            "Which configuration? For example --config=configs/demo.py, or the --workdir of a run "
            f"that has begun (one with a {CONFIG_FILE})."
        )
    mode = " ".join(words) or "train"
    if mode not in MODES:
        raise UserError(f"{reprlib.repr(mode)} is no mode: choose one of {', '.join(MODES)}.")
    _refuse_options_of_other_modes(mode)
    return mode, config


def _refuse_options_of_other_modes(mode: str) -> None:
    own = {option.name for option in MODES[mode].options}
    for other, (_, options, _) in MODES.items():
        for option in options:
            if option.present and option.name not in own:
                raise UserError(
                    f"--{option.name} goes with mode {other}, not {mode}: python run.py {other} "
                    f"--{option.name}=..."
                )


def _launch() -> distributed.Launch | None:
    return distributed.launch_of(
        detected=_DISTRIBUTED.value,
        coordinator=_COORDINATOR.value,
        num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value,
        start_timeout_s=_START_TIMEOUT.value,
        peer_timeout_s=_PEER_TIMEOUT.value,
    )


def _told(mode: str, config: ConfigDict) -> dict[str, object]:
    """What all processes of a run are told alike; records may lie elsewhere for each."""
    of_each = {option.name for option in _PROCESSES}
    options = [option for option in MODES[mode].options if option.name not in of_each]
    fields = flatten_dict({"config": config.to_dict()}, sep=".")
    del fields["config.data.dir"]
    return {"the mode": mode, **{f"--{option.name}": option.value for option in options}, **fields}


def _ensure_demo_records(data: settings.DataConfig) -> None:
    if data.render is not None:
        ensure_records(
            Path(data.dir),
            size=data.render.size,
            num_train=data.render.num_train,
            num_eval=data.render.num_eval,
            memory_range=data.render.memory_range,
        )


def _quieten_libraries() -> None:
    """When a checkpoint fails, Orbax logs what it raises besides, thread by thread.

    tensorstore's threads then still tell the loop that Orbax closed, which nobody can handle.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = hook


if __name__ == "__main__":
    sys.exit(main(sys.argv))
