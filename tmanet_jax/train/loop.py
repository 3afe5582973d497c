"""The story of a run: from settings and a workdir to a trained and scored network."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from tmanet_jax.checkpoints.damage import steps_in
from tmanet_jax.checkpoints.store import CHECKPOINTS_DIR, Checkpoints, check_path
from tmanet_jax.data.pipeline import Batch, train_batches
from tmanet_jax.data.records import ClipSource
from tmanet_jax.errors import Stopped, UserError, counted
from tmanet_jax.inputs import load_weights, open_split, random_model
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.sharding import (
    BatchPart,
    batch_part,
    check_batch_size,
    local_mesh,
    make_mesh,
    put_batch,
    replicated,
)
from tmanet_jax.scoring.clips import SegmentedClip, SegmenterProgram, compile_segmenter
from tmanet_jax.scoring.evaluate import Evaluation, evaluate
from tmanet_jax.scoring.modes import report_of
from tmanet_jax.scoring.report import write_report
from tmanet_jax.settings import Settings
from tmanet_jax.stop_signals import StopSignals
from tmanet_jax.train.divergence import LossWatch
from tmanet_jax.train.logs import Part, Progress, RunClock, RunLog, StepProfiler
from tmanet_jax.train.optimizer import poly_schedule
from tmanet_jax.train.recipe import (
    check_crop,
    class_weights,
    data_stream,
    initial_state,
    with_training_data,
)
from tmanet_jax.train.results import leave_weights
from tmanet_jax.train.resume import beginning, going_on
from tmanet_jax.train.step import Recipe, TrainState, compile_train_step
from tmanet_jax.workdir import RunDescription, alone_in, check_processes_agree, make_workdir


def train(settings: Settings, workdir: Path, config: Mapping[str, Any] | None = None) -> Evaluation:
    """Trains to `settings.num_steps`, going on from the newest checkpoint in the workdir.

    Leaves checkpoints, what the run is (`config.json`), the log, TensorBoard's curves, the metrics
    and pictures of the last step, and the weights of the best step and of the last one.

    Args:
        settings: of the run.
        workdir: of the run.
        config: the configuration that the settings were made of (`run_description.fields_of`).

    Raises:
        UserError: bad input; another run in this workdir; a disk that is full; a loss that is not
            finite, naming the step and its clips; or weights that are not finite.
        Stopped: the process was told to stop, and a checkpoint is written.
    """
    clock = RunClock()
    check_path(workdir)
    mesh = make_mesh(config=settings.mesh)
    part = batch_part(mesh)
    check_batch_size(settings.batch_size, mesh, settings.accumulate)
    memory_range = settings.data.memory_range
    train_source = open_split(settings, settings.data.train_split, memory_range=memory_range)
    eval_source = open_split(
        settings, settings.data.eval_split, memory_range=settings.model.head.num_memory
    )
    check_crop(settings, train_source)
    settings = with_training_data(settings, train_source)
    model = random_model(settings)
    goes_on = bool(steps_in(workdir / CHECKPOINTS_DIR))
    classes = train_source.info.classes
    load_report = None if goes_on else load_weights(model, settings.init, classes, trains=True)
    make_workdir(workdir)
    check_processes_agree(train_source, workdir)
    stream = data_stream(settings, train_source)
    description = RunDescription.of(config or {}, train_source, settings.evaluation.protocol)
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone_in(workdir, "--workdir"))
        checkpoints = stack.enter_context(
            contextlib.closing(
                Checkpoints(
                    workdir / CHECKPOINTS_DIR,
                    keep=settings.checkpoints_kept,
                    model=settings.model,
                    stream=stream,
                    about=description.to_json(),
                )
            )
        )
        log = stack.enter_context(RunLog(workdir, checkpoints.latest_step() or 0))
        signals = stack.enter_context(StopSignals())
        log.message(_introduction(model, train_source, eval_source, mesh, workdir))
        doubts = train_source.label_doubts(trains=True) + eval_source.label_doubts(trains=False)
        for found in (*checkpoints.set_aside, *doubts):
            log.message(str(found))
        if checkpoints.latest_step() is None:
            log.message(beginning(settings.init, load_report))
        recipe, state = initial_state(
            settings, model, class_weights(train_source, settings.class_weight_power)
        )
        run = _Run(
            settings=settings,
            mesh=mesh,
            part=part,
            recipe=recipe,
            segmenter=compile_segmenter(
                recipe.graphdef,
                settings.model.head.num_memory,
                settings.evaluation,
                local_mesh(settings.mesh),
            ),
            train_source=train_source,
            eval_source=eval_source,
            checkpoints=checkpoints,
            log=log,
            clock=clock,
            profiler=StepProfiler(workdir, settings.profile, settings.num_steps),
            signals=signals,
        )
        state = _newest_state(run, state, description)
        log.description(description)
        if distributed.is_first():
            description.write(workdir)
        state, evaluation = _train_to_the_end(run, state)
        told = leave_weights(workdir, recipe.graphdef, state, checkpoints, mesh, description)
        if distributed.is_first():
            with clock.within(Part.EVALUATION):
                segmenter = run.segmenter.with_weights(*state.network)
                report = report_of(evaluation, segmenter, eval_source, int(state.step))
                log.message(write_report(report, workdir))
        log.message(str(clock))
        log.message(told)
        return evaluation


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same while a run's state changes."""

    settings: Settings
    mesh: Mesh
    part: BatchPart
    recipe: Recipe
    segmenter: SegmenterProgram
    train_source: ClipSource
    eval_source: ClipSource
    checkpoints: Checkpoints
    log: RunLog
    clock: RunClock
    profiler: StepProfiler
    signals: StopSignals


def _introduction(
    model: TMANet, train_source: ClipSource, eval_source: ClipSource, mesh: Mesh, workdir: Path
) -> str:
    num_params = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return (
        f"TMANet with {num_params / 1e6:.2f} M parameters, T = {model.config.head.num_memory}, "
        f"{model.config.dtype} at {model.config.precision} precision; "
        f"clips: {len(train_source)} to train, {len(eval_source)} to score; "
        f"{counted(mesh.size, f'{jax.devices()[0].platform} device')}; workdir {workdir}"
    )


def _newest_state(run: _Run, initial: TrainState, description: RunDescription) -> TrainState:
    """The newest checkpoint's state, or else the initial one, on all devices."""
    distributed.wait_for_start("made its network")
    step = run.checkpoints.latest_step()
    if step is None:
        return jax.device_put(initial, replicated(run.mesh))
    state = run.checkpoints.restore(step, initial, replicated(run.mesh))
    there = run.checkpoints.about(step).get("config", {})
    for line in going_on(step, run.settings, there, description.config):
        run.log.message(line)
    return state


def _train_to_the_end(run: _Run, state: TrainState) -> tuple[TrainState, Evaluation]:
    settings = run.settings
    first = int(state.step)
    ends_unscored = _is_scored_after(first, settings) and run.checkpoints.mean_iou(first) is None
    evaluation = _score(run, state, first) if ends_unscored else None
    schedule = poly_schedule(settings.optimizer, settings.num_steps)
    watch = LossWatch(
        run.train_source, run.checkpoints, schedule, run.log, settings.max_skipped_steps
    )
    program, step_fn = compile_train_step(run.recipe, run.mesh), None
    batches = train_batches(
        run.train_source,
        settings.data.augmentation,
        num_memory=settings.model.head.num_memory,
        memory_range=settings.data.memory_range,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start_step=first,
        process_index=run.part.index,
        process_count=run.part.count,
        num_workers=settings.data.num_workers,
    )
    clock, profiler = run.clock, run.profiler
    with (
        contextlib.closing(batches),
        contextlib.closing(profiler),
        Progress(first, settings.num_steps) as progress,
    ):
        for step in range(first, settings.num_steps):
            if run.signals.stops_before(step):
                watch.check_all()
                _stop(run, state, step, watch.num_skipped_last)
            done = step + 1
            with profiler.step(done):
                with clock.within(Part.DATA):
                    batch = next(batches)
                on_devices = put_batch(batch, run.mesh)
                step_fn = step_fn or _compiled_by_all(program, state, on_devices)
                state, metrics = step_fn(state, on_devices)
            clock.begin_steps()
            watch.add(step, batch, metrics)
            progress.step(done)
            if trace := profiler.end_after(done, metrics):
                run.log.message(trace)
            if done % settings.log_every == 0 or done == settings.num_steps:
                progress.point(done, watch.log_newest())
                run.log.curves(done, clock.point())
            is_scored = _is_scored_after(done, settings)
            if is_scored or done % settings.checkpoint_every == 0:
                watch.check_all()
                if _is_left_out(run, done, watch.num_skipped_last):
                    continue
                _check_finite(run, state, done)
                with clock.within(Part.CHECKPOINT):
                    run.checkpoints.save(done, state)
            if is_scored:
                with clock.within(Part.EVALUATION):
                    evaluation = _score(run, state, done)
    return state, evaluation or _score(run, state, first)


def _compiled_by_all(
    program: jax.stages.Wrapped, state: TrainState, batch: Batch
) -> jax.stages.Compiled:
    """The program of a step, when all processes have it: they connect in its first call."""
    compiled = program.lower(state, batch).compile()
    distributed.wait_for_start("compiled a step")
    return compiled


def _is_left_out(run: _Run, done: int, num_skipped: int) -> bool:
    """Whether a step gets no checkpoint: what skipped steps leave may be lost already."""
    if not num_skipped:
        return False
    said = counted(num_skipped, "skipped step")
    if done == run.settings.num_steps:
        run.log.message(f"The run ends with {said}: its last weights are those before.")
        return False
    run.log.message(f"No checkpoint after step {done}, which ends {said}.")
    return True


def _check_finite(run: _Run, state: TrainState, done: int) -> None:
    """Raises UserError if a weight is not, which the next step's loss would have shown."""
    arrays = [np.asarray(leaf.addressable_data(0)) for leaf in jax.tree.leaves(state.network)]
    if not all(np.isfinite(array).all() for array in arrays):
        newest = run.checkpoints.latest_step()
        raise UserError(
            f"The weights after step {done} are not finite: this training has failed, and nothing "
            f"of the step is saved. The newest checkpoint is "
            f"{'none' if newest is None else f'of step {newest}'}. Lower "
            "config.optimizer.learning_rate, and look at the first steps in train.log."
        )


def _is_scored_after(step: int, settings: Settings) -> bool:
    return step > 0 and (step % settings.evaluation.every == 0 or step == settings.num_steps)


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

    segmenter = run.segmenter.with_weights(*state.network)
    evaluation = evaluate(segmenter, run.eval_source, stop_if_told)
    overall = evaluation.overall
    run.log.scalars(
        step,
        {
            "eval/mIoU": overall.mean_iou,
            "eval/mAcc": overall.mean_accuracy,
            "eval/aAcc": overall.all_accuracy,
            "eval/mDice": overall.mean_dice,
            **{f"eval/mIoU_{name}": group.mean_iou for name, group in evaluation.groups.items()},
        },
    )
    for clip_id, picture_HxWx3 in evaluation.overlays.items():
        run.log.picture(step, f"prediction/{clip_id}", picture_HxWx3)
    run.log.message(f"step {step}: mIoU {100 * overall.mean_iou:.2f}")
    run.checkpoints.add_score(step, overall.mean_iou)
    return evaluation
