"""Trains, scores or uses a TMANet.

    python run.py [train] --config=configs/demo.py [--workdir=DIR] [--config.FIELD=VALUE ...]
    python run.py eval|consistency --config=configs/demo.py [--workdir=DIR] [--submit=DIR]
    python run.py [MODE] --workdir=DIR
    python run.py predict --config=configs/demo.py --input=VIDEO|DIR|GLOB|CAMERA --output=DIR
    python run.py predict --config=configs/demo.py --input=VIDEO|CAMERA --serve=PORT
    python run.py export --config=configs/demo.py --format=onnx --size=HxW --output=DIR
    python run.py publish --workdir=DIR --output=DIR
    python run.py explain --config=configs/demo.py --input=VIDEO --frame=N --pixel=Y,X --output=DIR
    python run.py report --workdir=DIR [--workdir=OTHER ...]
    python run.py config --config=configs/demo.py [--summary]
    python run.py doctor
    python run.py [MODE] --help

A workdir says what configuration its run has: then --config is not needed.

Several processes as one (docs/pods.md), each started with

    python run.py [train]|eval|consistency|predict --config=... --distributed
    python run.py [train]|eval|consistency|predict --config=... --coordinator=HOST:PORT
        --num-processes=N --process-id=I

Exit status: 0 done; 2 bad input or a full disk (the message says what, where, and what to do); 143
or 130 training was told to stop by SIGTERM or SIGINT, finished its step (of an evaluation, the clip
in hand) and wrote a checkpoint: the same command goes on from there, bit for bit; 75 another
process of the run is lost (the message says which): start all again.
"""

import data_prep  # noqa: F401  # first: what is interrupted from here on says so

# isort: split
import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tmanet_jax import command_line
from tmanet_jax.allocator import computes_on_cpu, keep_freed_buffers
from tmanet_jax.command_line import Command, Mode, Options, option
from tmanet_jax.data.codec import parse_size
from tmanet_jax.errors import UserError, ends_with_message, quieten_libraries
from tmanet_jax.export.cache import DIRECTORY, LIMIT_BYTES
from tmanet_jax.export.names import WRITTEN, AnySize, Engine, Precision
from tmanet_jax.parallel.peers import PEER_TIMEOUT_S, START_TIMEOUT_S

if TYPE_CHECKING:
    from tmanet_jax.inference.engine import Computation

_SECONDS = {"metavar": "SECONDS", "type": command_line.parse_count}
_PROCESSES: Options = {
    "distributed": option(
        "TPU pod, SLURM or Kubernetes tell which", action="store_true", default=False
    ),
    "coordinator": option("of process 0, where all meet", metavar="HOST:PORT"),
    "num-processes": option("with --coordinator: how many", metavar="N", type=int),
    "process-id": option("with --coordinator: which, from 0", metavar="I", type=int),
    "start-timeout": option(f"for all to come; default {START_TIMEOUT_S}", **_SECONDS),
    "peer-timeout": option(
        f"of silence after which a process is lost and the others end; default {PEER_TIMEOUT_S}",
        **_SECONDS,
    ),
}
_SUBMIT = {"submit": option("predictions in the format of the data set's server", metavar="DIR")}
_MEMORY_STRIDE = {
    "memory-stride": option(
        "frames from one memory frame to the next; default the weights'", metavar="N", type=int
    )
}
_CALIBRATE = "a video, folder or glob of pictures, or folder of clip records"
_COMPUTATION: Options = {
    "engine": option(
        f"what computes: {', '.join(get_args(Engine))}; exports of the network for it are kept, up "
        f"to {LIMIT_BYTES // 2**30} GiB, in {DIRECTORY}",
        metavar="NAME",
        default="jax",
    ),
    "precision": option(
        f"{', '.join(get_args(Precision))}; default the configuration's", metavar="NAME"
    ),
    "calibrate": option(f"for int8: {_CALIBRATE}", metavar="SOURCE"),
    "device": option(
        "by the engine's name, as in cpu or gpu; default its usual one", metavar="NAME"
    ),
}
_PREDICTION: Options = {
    "input": option(
        "a video, its address (- for standard input), a picture, folder, glob or camera; again for "
        "further ones, which get a folder of DIR each, as do the videos of a glob",
        metavar="SOURCE",
        action="append",
        default=(),
    ),
    "output": option("folder of the results", metavar="DIR", default=""),
    "checkpoint": option("weights; default the workdir's", metavar="FILE", default=""),
    "format": option(
        "any of video, png (overlays), labels, with commas; default video",
        metavar="LIST",
        default="video",
    ),
    "on-error": option("at a broken frame: keep or stop", metavar="WAY", default="keep"),
    "sound": option("of the video: keep or none", metavar="WAY", default="keep"),
    **_MEMORY_STRIDE,
    "scale": option("resize frames before, by a factor or to fit HEIGHTxWIDTH", metavar="SCALE"),
    **_COMPUTATION,
    "serve": option(
        "a browser of this machine sees the newest overlay at this port; --output may then be left "
        "out; 0: any port",
        metavar="PORT",
        type=command_line.parse_port,
    ),
}


def _parse_frame_size(text: str) -> tuple[int, int] | AnySize:
    return "any" if text == "any" else parse_size(text)


_EXPORT: Options = {
    "output": option("a folder that is made", metavar="DIR", default=""),
    "checkpoint": _PREDICTION["checkpoint"],
    "format": option(", ".join(WRITTEN), metavar="NAME", default=""),
    "size": option(
        "height x width of the frames in pixels; any (multiples of 8): for stablehlo",
        metavar="HxW",
        type=_parse_frame_size,
    ),
    "program": option(
        "stream (from frame to frame) or clip (all at once); default stream",
        metavar="NAME",
        default="stream",
    ),
    "streams": option(
        "videos, or clips, at a time; default 1",
        metavar="N",
        type=command_line.parse_count,
        default=1,
    ),
    "calibrate": option(
        f"OpenVINO in 8 bits, calibrated on {_CALIBRATE}",
        metavar="SOURCE",
        default="",
    ),
    "runtime": option(
        "folder or tarball of the npm package onnxruntime-web, for format web; default npm "
        "fetches it",
        metavar="PATH",
        default="",
    ),
}

_EXPLAIN: Options = {
    **{name: _PREDICTION[name] for name in ("input", "output", "checkpoint")},
    "frame": option(
        "which one, from 0; default 0", metavar="N", type=command_line.parse_index, default=0
    ),
    "pixel": option(
        "row and column of the frame's pixel that is shown first; default the middle",
        metavar="Y,X",
        type=command_line.parse_pixel,
    ),
}


def _train(command: Command) -> None:
    from tmanet_jax.training.loop import train  # each mode loads what it needs, and no more

    train(command.settings, command.workdir)


def _evaluate(command: Command) -> None:
    from tmanet_jax.scoring.modes import evaluate_run

    evaluate_run(
        command.settings,
        command.workdir,
        submit=command.options["submit"] or None,
        computation=_computation(command),
    )


def _consistency(command: Command) -> None:
    from tmanet_jax.scoring.modes import evaluate_consistency

    run = command.settings
    evaluation = run.evaluation.override(memory_stride=command.options["memory-stride"])
    evaluate_consistency(dataclasses.replace(run, evaluation=evaluation), command.workdir)


def _computation(command: Command) -> "Computation":
    from tmanet_jax.inference.engine import Computation

    chosen = {name: command.options[name] for name in _COMPUTATION}
    chosen["precision"] = chosen["precision"] or command.settings.model.dtype
    return Computation(**chosen)


def _predict(command: Command) -> None:
    from tmanet_jax.inference.predict import predict
    from tmanet_jax.inference.prediction import prediction_of

    options = command.options
    prediction = prediction_of(
        command.settings,
        command.workdir,
        checkpoint=options["checkpoint"],
        sources=options["input"],
        output=options["output"],
        formats=[name.strip() for name in options["format"].split(",") if name],
        on_error=options["on-error"],
        sound=options["sound"],
        memory_stride=options["memory-stride"],
        scale=options["scale"],
        computation=_computation(command),
        serve=options["serve"],
    )
    predict(prediction)


def _export(command: Command) -> None:
    from tmanet_jax.export.command import export_weights
    from tmanet_jax.weights import hub, load

    options = command.options
    checkpoint = options["checkpoint"]
    export_weights(
        hub.fetched(checkpoint) if checkpoint else load.weights_of_run(command.workdir),
        options["output"],
        command.settings.evaluation,
        **{name: options[name] for name in _EXPORT if name not in ("output", "checkpoint")},
    )


def _explain(command: Command) -> None:
    from tmanet_jax.inference.explain import explain
    from tmanet_jax.inference.prediction import source_of
    from tmanet_jax.weights import hub, load

    options = command.options
    if len(options["input"]) != 1 or not options["output"]:
        raise UserError("Mode explain needs one --input and an --output.")
    checkpoint = options["checkpoint"]
    weights = hub.fetched(checkpoint) if checkpoint else load.weights_of_run(command.workdir)
    network = load.load_model(weights)
    frame = source_of(options["input"][0]), options["frame"], options["pixel"]
    print(explain(network, command.settings.evaluation, *frame, Path(options["output"])))


def _publish(command: Command) -> None:
    from tmanet_jax.publish.folder import publish_run

    publish_run(command.workdir, command.options["output"])


def _report(command: Command) -> None:
    from tmanet_jax.scoring.runs import report_runs

    print(report_runs(command.workdirs))


def _examine(command: Command) -> None:
    from tmanet_jax.doctor import examine_machine

    del command
    examine_machine()


def _show_config(command: Command) -> None:
    if command.options["summary"]:
        from tmanet_jax.training.summary import print_summary

        print_summary(command.settings)
    else:
        from tmanet_jax.settings import described

        print(described(command.settings))


MODES: Mapping[str, Mode] = {
    "train": Mode(_train, "trains, and scores what it has trained", of_processes=_PROCESSES),
    "eval": Mode(
        _evaluate,
        "scores weights on a split of clips",
        {**_SUBMIT, **_COMPUTATION},
        of_processes=_PROCESSES,
    ),
    "predict": Mode(
        _predict,
        "segments videos, pictures or a camera",
        _PREDICTION,
        of_processes=_PROCESSES,
        needs_records=False,
    ),
    "consistency": Mode(
        _consistency,
        "scores weights on every frame of videos, and over time",
        _MEMORY_STRIDE,
        of_processes=_PROCESSES,
    ),
    "export": Mode(
        _export, "writes weights as a program for another engine", _EXPORT, needs_records=False
    ),
    "publish": Mode(
        _publish,
        "writes a run's weights with a model card, for others",
        {"output": _EXPORT["output"]},
        needs_records=False,
    ),
    "explain": Mode(
        _explain,
        "shows what a frame's pixels read from the memory",
        _EXPLAIN,
        needs_records=False,
    ),
    "report": Mode(
        _report,
        "writes a page of runs' curves and scores, side by side",
        needs_records=False,
        config="default",
    ),
    "doctor": Mode(
        _examine,
        "says what this machine has for a run, and what is wrong with it",
        needs_records=False,
        config="default",
    ),
    "config": Mode(
        _show_config,
        "prints all fields of a configuration: meaning, unit, range, default, source",
        {
            "summary": option(
                "its network instead, a row a module, and the memory of a training step, which "
                "takes a minute or more to compile",
                action="store_true",
                default=False,
            )
        },
        needs_records=False,
    ),
}

_NOT_OF_ONE_RUN = ("train", "config", "report", "doctor")
"""Modes whose configuration may contradict the workdir's; training asks its checkpoint."""


@ends_with_message
def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    sys.argv = argv  # what the run says of itself
    command = command_line.parse(argv, MODES)
    if command is None:
        return 0
    from tmanet_jax.compilation_cache import use_compilation_cache
    from tmanet_jax.parallel import distributed
    from tmanet_jax.parallel.sharding import check_devices
    from tmanet_jax.workdir import tell_contradictions

    quieten_libraries()
    distributed.tell_news()
    if computes_on_cpu(os.environ.get("JAX_PLATFORMS")):
        keep_freed_buffers()
    use_compilation_cache()
    options = command.options  # of several processes only where the mode has such
    launch = distributed.launch_of(
        detected=options.get("distributed", False),
        coordinator=options.get("coordinator"),
        num_processes=options.get("num-processes"),
        process_id=options.get("process-id"),
        start_timeout_s=options.get("start-timeout"),
        peer_timeout_s=options.get("peer-timeout"),
    )
    with distributed.joined(launch):
        check_devices()
        distributed.check_same_fields("configuration", _told(command))
        if MODES[command.mode].needs_records:
            from data_prep.street.demo import render_if_wanted

            distributed.in_turn(lambda: render_if_wanted(command.settings.data))
        if command.mode not in _NOT_OF_ONE_RUN:
            tell_contradictions(command.workdir, command.config)
        MODES[command.mode].start(command)
    return 0


def _told(command: Command) -> dict[str, object]:
    """What all processes of a run are told alike; records may lie elsewhere for each."""
    from flax.traverse_util import flatten_dict

    options = {f"--{name}": command.options[name] for name in MODES[command.mode].options}
    fields = flatten_dict({"config": command.config.to_dict()}, sep=".")
    del fields["config.data.dir"]
    return {"the mode": command.mode, **options, **fields}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
