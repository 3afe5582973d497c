"""The story of a run: from settings and a workdir to a trained and scored network."""

import contextlib
import dataclasses
import os
import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple, NoReturn

import jax
from jax.sharding import Mesh

from tmanet_jax.checkpoints.store import CHECKPOINTS_DIR, Checkpoints
from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.data.samples import Batch
from tmanet_jax.errors import Stopped
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.sharding import (
    batch_part,
    check_batch_size,
    local_mesh,
    make_mesh,
    put_batch,
    replicated,
)
from tmanet_jax.scoring.clips import SegmentedClip, SegmenterProgram, compile_segmenter
from tmanet_jax.scoring.evaluate import Evaluation, assess, evaluate
from tmanet_jax.scoring.report import write_report
from tmanet_jax.settings import Settings, to_config
from tmanet_jax.stop_signals import StopSignals
from tmanet_jax.training.divergence import LossWatch
from tmanet_jax.training.logs import (
    OnMetrics,
    Part,
    Progress,
    RunClock,
    RunLog,
    StepProfiler,
    memory_held,
)
from tmanet_jax.training.optimizer import make_schedule, rates_of_groups
from tmanet_jax.training.results import leave_weights
from tmanet_jax.training.resume import going_on, newest_state
from tmanet_jax.training.setup import (
    Splits,
    batch_shapes,
    batch_stream,
    class_weights,
    first_network,
    initial_state,
    introduction,
    open_splits,
    with_training_data,
)
from tmanet_jax.training.step import Recipe, StepMetrics, TrainState, compile_train_step
from tmanet_jax.weights import load
from tmanet_jax.workdir import (
    RunDescription,
    alone_in,
    check_path,
    check_processes_agree,
    fields_of,
    make_workdir,
)


class TrainedRun(NamedTuple):
    """What a training ends with.

    Attributes:
        evaluation: of its last step.
        weights: the file of those of its best step.
    """

    evaluation: Evaluation
    weights: Path


def train(
    settings: Settings,
    workdir: str | os.PathLike[str] | None = None,
    *,
    on_metrics: OnMetrics | None = None,
) -> TrainedRun:
    """Trains to `settings.num_steps`, going on from the newest checkpoint in the workdir.

    Leaves checkpoints, what the run is (`config.json`), the log, TensorBoard's curves, the metrics
    and pictures of the last step, and the weights of the best step and of the last one.

    Args:
        settings: of the run.
        workdir: of the run; None: a new folder where the system has temporary ones.
        on_metrics: called every `settings.log.every` steps with the step and its metrics by name
            ("train/loss", ...), and after an evaluation with its scores ("eval/mIoU", ...). If it
            returns True, the step is the last one: it is saved and scored, and a later start goes
            on from there. In several processes it must return the same.

    Raises:
        UserError: bad input; another run in this workdir; a disk that is full; a loss that is not
            finite, naming the step and its clips; or weights that are not finite.
        Stopped: the process was told to stop, and a checkpoint is written.
    """
    with contextlib.ExitStack() as stack:
        run, state = _begin(stack, settings, workdir, on_metrics)
        state = _newest_state(run, state)
        run.log.description(run.description)
        if distributed.is_first():
            run.description.write(run.workdir)
        state, evaluation = _train_to_the_end(run, state)
        _leave_results(run, state, evaluation)
    return TrainedRun(evaluation, run.workdir / load.OF_WORKDIR)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same while a run's state changes."""

    settings: Settings
    workdir: Path
    mesh: Mesh
    recipe: Recipe
    segmenter: SegmenterProgram
    splits: Splits
    checkpoints: Checkpoints
    log: RunLog
    clock: RunClock
    signals: StopSignals
    description: RunDescription


def _begin(
    stack: contextlib.ExitStack,
    settings: Settings,
    workdir: str | os.PathLike[str] | None,
    on_metrics: OnMetrics | None,
) -> tuple[_Run, TrainState]:
    """What a run needs, open until the stack closes, and its state at step 0; bad input ends it."""
    clock, workdir = RunClock(), _path_of(workdir)
    mesh = make_mesh(config=settings.mesh)
    batch_part(mesh)  # raises where processes cannot share a batch
    check_batch_size(settings.batch_size, mesh, settings.accumulate)
    splits = open_splits(settings)
    config = fields_of(to_config(settings))
    settings = with_training_data(settings, splits.train)
    model, begins = first_network(settings, workdir, splits.train.info.classes)
    make_workdir(workdir)
    check_processes_agree(splits.train, workdir)
    description = RunDescription.of(config, splits.train, settings.evaluation.protocol)
    stack.enter_context(alone_in(workdir, "--workdir"))
    checkpoints = _open_checkpoints(settings, workdir, splits, description)
    stack.enter_context(contextlib.closing(checkpoints))
    log = RunLog(workdir, checkpoints.latest_step() or 0, settings.log.to, on_metrics)
    stack.enter_context(log)
    signals = stack.enter_context(StopSignals())
    what = introduction(model, splits, mesh, workdir)
    for message in (what, *checkpoints.set_aside, *splits.label_doubts(), *begins):
        log.message(str(message))
    weights = class_weights(splits.train, settings.loss.class_weight_power)
    recipe, state = initial_state(settings, model, weights)
    segmenter = _segmenter(settings, recipe)
    run = _Run(
        settings,
        workdir,
        mesh,
        recipe,
        segmenter,
        splits,
        checkpoints,
        log,
        clock,
        signals,
        description,
    )
    return run, state


def _path_of(workdir: str | os.PathLike[str] | None) -> Path:
    """The workdir, or a new one among temporary files, which bad input does not make."""
    new = Path(tempfile.gettempdir(), f"tmanet-{uuid.uuid4().hex}")
    path = new if workdir is None else Path(workdir)
    check_path(path)
    return path


def _open_checkpoints(
    settings: Settings, workdir: Path, splits: Splits, description: RunDescription
) -> Checkpoints:
    return Checkpoints(
        workdir / CHECKPOINTS_DIR,
        keep=settings.checkpoint.keep,
        model=settings.model,
        stream=batch_stream(settings, splits.train),
        about=description.to_json(),
    )


def _segmenter(settings: Settings, recipe: Recipe) -> SegmenterProgram:
    num_memory, mesh = settings.model.head.num_memory, local_mesh(settings.mesh)
    return compile_segmenter(recipe.graphdef, num_memory, settings.evaluation, mesh)


def _newest_state(run: _Run, initial: TrainState) -> TrainState:
    """The newest checkpoint's state, or else the initial one, on all devices."""
    distributed.wait_for_start("made its network")
    step = run.checkpoints.latest_step()
    if step is None:
        return jax.device_put(initial, replicated(run.mesh))
    state = newest_state(run.checkpoints, step, initial, replicated(run.mesh))
    there = run.checkpoints.about(step).get("config", {})
    for line in going_on(step, run.settings, there, run.description.config):
        run.log.message(line)
    return state


def _train_to_the_end(run: _Run, state: TrainState) -> tuple[TrainState, Evaluation]:
    settings, first = run.settings, int(state.step)
    ends_unscored = _is_scored_after(first, settings) and not run.checkpoints.is_scored(first)
    evaluation = _score(run, state, first) if ends_unscored else None
    if (evaluation is not None and run.log.stops) or _gains_no_more(run, first):
        return state, evaluation or _score(run, state, first)
    schedule = jax.jit(make_schedule(settings.optimizer, settings.num_steps))
    factors = rates_of_groups(settings.optimizer, state.params)
    watch = LossWatch(
        run.splits.train,
        run.checkpoints,
        schedule,
        run.log,
        settings.max_skipped_steps,
    )
    with (
        contextlib.closing(_Stepper(run, first)) as stepper,
        Progress(first, settings.num_steps) as progress,
    ):
        for step in range(first, settings.num_steps):
            if run.signals.stops_before(step):
                watch.check_all()
                _stop(run, state, step, watch.num_skipped_last)
            done, is_last = step + 1, step + 1 == settings.num_steps
            state, batch, metrics = stepper.step(state, done)
            watch.add(step, batch, metrics)
            progress.step(done)
            if done % settings.log.every == 0 or is_last:
                run.log.line(progress.point(done, watch.log_newest()))
                rates = {name: factor * float(schedule(step)) for name, factor in factors.items()}
                run.log.curves(done, {**run.clock.point(), **memory_held(), **rates})
            is_last |= run.log.stops
            is_scored = is_last or _is_scored_after(done, settings)
            if not (is_scored or done % settings.checkpoint.every == 0):
                continue
            if not watch.may_be_saved(state, done, is_last=is_last):
                continue
            with run.clock.within(Part.CHECKPOINT):
                run.checkpoints.save(done, state)
            if is_scored:
                evaluation = _score(run, state, done)
            if run.log.stops or _gains_no_more(run, done):
                break
    return state, evaluation or _score(run, state, first)


class _Stepper:
    """Takes batches through the step, which it compiles while the first of them are made."""

    def __init__(self, run: _Run, first: int):
        settings, part = run.settings, batch_part(run.mesh)
        self._run = run
        self._profiler = StepProfiler(run.workdir, settings.profile, settings.num_steps)
        self._compiled: jax.stages.Compiled | None = None
        self._batches = train_batches(
            run.splits.train,
            settings.data.augmentation,
            num_memory=settings.model.head.num_memory,
            memory_range=settings.memory_range,
            batch_size=settings.batch_size,
            seed=settings.seed,
            start_step=first,
            part_index=part.index,
            part_count=part.count,
            num_workers=settings.data.num_workers,
        )

    def step(self, state: TrainState, number: int) -> tuple[TrainState, Batch, StepMetrics]:
        """The step of that number, from 1; the state is given up."""
        with self._profiler.step(number):
            if self._compiled is None:
                self._compiled = self._compiled_by_all(state)
            with self._run.clock.within(Part.DATA):
                batch = next(self._batches)
            on_devices = put_batch(batch, self._run.mesh)
            state, metrics = self._compiled(state, on_devices)
        self._run.clock.step_done(self._run.settings.batch_size)
        if trace := self._profiler.end_after(number, metrics):
            self._run.log.message(trace)
        return state, batch, metrics

    def _compiled_by_all(self, state: TrainState) -> jax.stages.Compiled:
        """The program of a step, when all processes have it: they connect in its first call."""
        program = compile_train_step(self._run.recipe, self._run.mesh)
        compiled = program.lower(state, batch_shapes(self._run.settings)).compile()
        distributed.wait_for_start("compiled a step")
        return compiled

    def close(self) -> None:
        """Ends the workers, and a trace that is on."""
        self._profiler.close()
        self._batches.close()


def _is_scored_after(step: int, settings: Settings) -> bool:
    return step > 0 and (step % settings.evaluation.every == 0 or step == settings.num_steps)


def _gains_no_more(run: _Run, step: int) -> bool:
    """Whether the best evaluation is too long ago, which is told."""
    patience = run.settings.evaluation.patience
    if not patience or step == 0 or run.checkpoints.mean_iou(step) is None:
        return False
    best = run.checkpoints.best_step()
    if step - best < patience:
        return False
    run.log.message(
        f"Step {best} scored best, and config.eval.patience is {patience}: the training ends."
    )
    return True


def _stop(run: _Run, state: TrainState, step: int, num_skipped: int = 0) -> NoReturn:
    """Leaves a checkpoint; a step that is not scored yet is scored by the next start."""
    saved = "Its checkpoint is written"
    if num_skipped and step < run.settings.num_steps:
        saved = f"The last {num_skipped} were skipped and saved by none; earlier ones are written"
    else:
        run.checkpoints.save(step, state)
    run.checkpoints.wait()
    number = run.signals.number
    raise Stopped(
        f"Stopped by {number.name} after step {step} of {run.settings.num_steps}. {saved}: the "
        "same command goes on from there.",
        number,
    )


def _score(run: _Run, state: TrainState, step: int) -> Evaluation:
    """Evaluates a step whose checkpoint is saved, and tells the log and the checkpoint."""

    def stop_if_told(segmented: SegmentedClip) -> None:
        del segmented
        if run.signals.stops_now():
            _stop(run, state, step)

    segmenter = run.segmenter.with_weights(*state.scored)
    with run.clock.within(Part.EVALUATION):
        evaluation = evaluate(segmenter, run.splits.scored, stop_if_told)
    run.log.evaluation(step, evaluation)
    run.checkpoints.add_score(step, evaluation.overall.mean_iou)
    return evaluation


def _leave_results(run: _Run, state: TrainState, evaluation: Evaluation) -> None:
    """The files of weights, and the report of the last step, which is scored."""
    from tmanet_jax.inference.engine import Computation  # loads exports, which no step needs

    told = leave_weights(
        run.workdir, run.recipe.graphdef, state, run.checkpoints, run.mesh, run.description
    )
    if distributed.is_first():
        with run.clock.within(Part.EVALUATION):
            segmenter = run.segmenter.with_weights(*state.scored)
            computation = Computation.by_jax(run.settings.model.dtype).in_words()
            assessed = assess(
                evaluation, segmenter, run.splits.scored, int(state.step), computation
            )
            run.log.message(write_report(assessed, run.workdir))
    run.log.message(str(run.clock))
    run.log.message(told)
