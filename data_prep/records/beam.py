"""Shards written by the workers of an Apache Beam runner, on this machine or on many.

A shard is an element. It is written by whichever worker gets it, next to the others and under its
final name once it is whole, so that records are the same whatever the runner and the number of
workers, and nothing is lost with a worker but the shard in its hands. All workers see the
directory of the records and the source under the same paths, and import this project.

The pipeline runs in a process of its own. Beam's runner of this machine waits for ever for the
bundle of a worker that was killed; here the process ends instead, and a new one takes what is left.
"""

import contextlib
import functools
import importlib.util
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing.process import BaseProcess

from data_prep.records.shards import PlannedShard, Work, WritesShards
from data_prep.records.staging import StagedShard
from tmanet_jax.errors import UserError
from tmanet_jax.program import FOLDER, advice

_DEFAULTS = (
    "--direct_running_mode=multi_processing",
    "--default_sdk_harness_log_level=ERROR",
    '--sdk_harness_log_level_overrides={"data_prep": "WARNING"}',
)
_POLL_S = 0.5
_WORKER_LOST = 3
"""Exit status of the process of the pipeline."""
_LOST_TWICE = 2
"""How often workers may be lost before a single shard is whole."""


def writer_by(runner: str, options: Sequence[str]) -> WritesShards:
    """What writes shards by a runner.

    Args:
        runner: its name, such as 'DirectRunner'.
        options: further ones of Beam, as on a command line.

    Raises:
        UserError: Beam is not installed.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(advice("--runner needs Apache Beam: pip install -r requirements-beam.txt"))
    flags = (f"--runner={runner}", *_DEFAULTS, *options)
    return functools.partial(_write_by_beam, flags)


def _write_by_beam(
    flags: Sequence[str],
    work: Work,
    shards: Sequence[PlannedShard],
    on_frame_written: Callable[[], object],
) -> Generator[StagedShard, None, None]:
    with work.place.naming_errors():
        for shard in shards:
            work.place.planned(shard.name).write_bytes(pickle.dumps(shard))
    done: dict[str, StagedShard] = {}

    def take() -> None:
        for shard in shards:
            if shard.name not in done and (staged := work.place.shard(shard.name)) is not None:
                done[shard.name] = staged
                for _ in shard.frames:
                    on_frame_written()

    status, num_lost = _WORKER_LOST, 0
    while status == _WORKER_LOST and num_lost < _LOST_TWICE and len(done) < len(shards):
        before = len(done)
        names = [shard.name for shard in shards if shard.name not in done]
        status = _run_pipeline(flags, work, names, take)
        num_lost = 0 if len(done) > before else num_lost + 1
    for shard in shards:
        if shard.name not in done:
            raise UserError(work.place.problem() or _why_not_done(flags[0], status))
        yield done[shard.name]


def _why_not_done(runner: str, status: int) -> str:
    if status == _WORKER_LOST:
        return (
            f"Apache Beam's workers ({runner}) have ended before they wrote a shard, "
            f"{_LOST_TWICE} times. If the system ended them for want of memory, ask for fewer."
        )
    if status == 0:
        return (
            f"Apache Beam ({runner}) has ended, and not all shards are there: its workers have to "
            "write to --out, and read --source, under the paths that they have here."
        )
    return f"Apache Beam ({runner}) has failed: what it says stands above."


def _run_pipeline(
    flags: Sequence[str], work: Work, names: Sequence[str], on_poll: Callable[[], object]
) -> int:
    """Runs a pipeline to its end, whatever that is; returns the exit status of its process."""
    spawning = multiprocessing.get_context("spawn")
    process = spawning.Process(target=_pipeline, args=(flags, work, names))
    process.start()
    assert process.pid is not None
    try:
        while process.exitcode is None:
            process.join(_POLL_S)
            on_poll()
    finally:
        process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers
        process.join()
    on_poll()
    return process.exitcode


def _pipeline(flags: Sequence[str], work: Work, names: Sequence[str]) -> None:
    """What the process of the pipeline does; its workers belong to its group."""
    os.setsid()
    threading.excepthook = _end_if_a_worker_is_lost
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])

    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    with beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
        _ = pipeline | beam.Create(names) | beam.Reshuffle() | beam.Map(_write, work)


def _end_if_a_worker_is_lost(raised: threading.ExceptHookArgs) -> None:
    if str(raised.exc_value).startswith("Worker subprocess exited"):
        os._exit(_WORKER_LOST)
    threading.__excepthook__(raised)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os.killpg(0, signal.SIGKILL)


def _write(name: str, work: Work) -> None:
    """What a worker does: one shard, unless it is there or all should end."""
    place = work.place
    if place.problem() is not None or place.shard(name) is not None:
        return
    shard: PlannedShard = pickle.loads(place.planned(name).read_bytes())
    try:
        work.write(shard, map(work.encode, shard.frames))
    except UserError as error:
        place.note_problem(str(error))
