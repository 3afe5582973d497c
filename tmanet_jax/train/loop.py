"""The story of a run: from settings and a workdir to a trained and scored network."""

import collections
import contextlib
import dataclasses
import math
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from tmanet_jax.checkpoints import Checkpoints
from tmanet_jax.data.pipeline import Batch, train_batches
from tmanet_jax.data.records import ClipSource, open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.inference.evaluate import Evaluation, Predictor, compile_predictor, evaluate
from tmanet_jax.inference.report import write_report
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.settings import Settings
from tmanet_jax.sharding import check_batch_size, make_mesh, put_batch, replicated
from tmanet_jax.train.class_weights import class_weights
from tmanet_jax.train.logs import RunLog
from tmanet_jax.train.optimizer import make_sgd, poly_schedule
from tmanet_jax.train.step import Recipe, StepMetrics, TrainState, compile_train_step, init_state


def train(settings: Settings, workdir: Path) -> Evaluation:
    """Trains to `settings.num_steps`, going on from the newest checkpoint in the workdir.

    Raises:
        UserError: bad input; or a loss that is not finite, naming the step and its clips.
    """
    mesh = make_mesh()
    check_batch_size(settings.batch_size, mesh)
    train_source = open_split(settings, settings.data.train_split)
    eval_source = open_split(settings, settings.data.eval_split)
    _check_crop(settings, train_source)
    prepare_workdir(workdir)
    with RunLog(workdir) as log:
        run = _start(settings, workdir, mesh, train_source, eval_source, log)
        with contextlib.closing(run.checkpoints):
            return _train_to_the_end(run)


def evaluate_workdir(settings: Settings, workdir: Path) -> Evaluation:
    """Scores the best checkpoint of the workdir and writes the report there.

    Raises:
        UserError: bad input, or no checkpoint.
    """
    mesh = make_mesh()
    source = open_split(settings, settings.data.eval_split)
    checkpoints = open_checkpoints(settings, workdir)
    with contextlib.closing(checkpoints):
        step = checkpoints.best_step()
        if step is None:
            raise UserError(
                f"no checkpoint in {workdir}: train first, with the same --config and --workdir"
            )
        recipe, state = initial(settings, class_weights=None)
        state = checkpoints.restore(step, state, replicated(mesh))
    predict = compile_predictor(recipe.graphdef, settings.evaluation, mesh)
    evaluation = _evaluate(settings, predict, state, source, mesh)
    tqdm.write(write_report(evaluation, workdir, step=step, split=source.split))
    return evaluation


@dataclasses.dataclass(frozen=True)
class _Run:
    """What a run holds besides its state."""

    settings: Settings
    workdir: Path
    mesh: Mesh
    recipe: Recipe
    start_state: TrainState
    train_source: ClipSource
    eval_source: ClipSource
    predict: Predictor
    checkpoints: Checkpoints
    log: RunLog


def _start(
    settings: Settings,
    workdir: Path,
    mesh: Mesh,
    train_source: ClipSource,
    eval_source: ClipSource,
    log: RunLog,
) -> _Run:
    """Builds the network and restores the newest checkpoint, if there is one."""
    weights = class_weights(train_source, settings.class_weight_power)
    recipe, state = initial(settings, weights)
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    log.message(
        f"TMANet with {num_params / 1e6:.2f} M parameters, T = {settings.model.head.num_memory}; "
        f"{len(train_source)} clips train, {len(eval_source)} are scored; "
        f"{mesh.size} {jax.devices()[0].platform} device(s); workdir {workdir}"
    )
    checkpoints = open_checkpoints(settings, workdir)
    step = checkpoints.latest_step()
    if step is not None:
        state = checkpoints.restore(step, state, replicated(mesh))
        log.message(f"going on from step {step} of {settings.num_steps}")
    else:
        state = jax.device_put(state, replicated(mesh))
    return _Run(
        settings=settings,
        workdir=workdir,
        mesh=mesh,
        recipe=recipe,
        start_state=state,
        train_source=train_source,
        eval_source=eval_source,
        predict=compile_predictor(recipe.graphdef, settings.evaluation, mesh),
        checkpoints=checkpoints,
        log=log,
    )


def _train_to_the_end(run: _Run) -> Evaluation:
    settings, state = run.settings, run.start_state
    start = int(state.step)
    evaluation = None
    watch = _LossWatch(run)
    step_fn = compile_train_step(run.recipe, run.mesh)
    batches = train_batches(
        run.train_source,
        settings.data.augmentation,
        num_memory=settings.model.head.num_memory,
        memory_range=settings.data.memory_range,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=settings.data.num_workers,
    )
    progress = tqdm(total=settings.num_steps, initial=start, desc="train", unit="step")
    with contextlib.closing(batches), contextlib.closing(progress):
        for step in range(start, settings.num_steps):
            batch = next(batches)
            state, metrics = step_fn(state, put_batch(batch, run.mesh))
            watch.add(step, batch, metrics)
            progress.update()
            done = step + 1
            if done % settings.log_every == 0:
                progress.set_postfix_str(watch.log_newest())
            if done % settings.evaluation.every == 0 or done == settings.num_steps:
                watch.check_all()
                evaluation = _score(run, state, done)
                run.checkpoints.save(done, state, mean_iou=evaluation.overall.mean_iou)
            elif done % settings.checkpoint_every == 0:
                watch.check_all()
                run.checkpoints.save(done, state)
    evaluation = evaluation or _score(run, state, int(state.step))
    run.log.message(
        write_report(evaluation, run.workdir, step=int(state.step), split=run.eval_source.split)
    )
    return evaluation


def _score(run: _Run, state: TrainState, step: int) -> Evaluation:
    evaluation = _evaluate(run.settings, run.predict, state, run.eval_source, run.mesh)
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
    return evaluation


def _evaluate(
    settings: Settings, predict: Predictor, state: TrainState, source: ClipSource, mesh: Mesh
) -> Evaluation:
    return evaluate(
        predict,
        state.params,
        state.batch_stats,
        source,
        num_memory=settings.model.head.num_memory,
        config=settings.evaluation,
        mesh=mesh,
    )


def initial(
    settings: Settings, class_weights: tuple[float, ...] | None
) -> tuple[Recipe, TrainState]:
    """The recipe, and the state of step 0, which is a function of the seed alone."""
    optimizer = make_sgd(settings.optimizer, settings.num_steps)
    graphdef, state = init_state(TMANet(settings.model, rngs=nnx.Rngs(settings.seed)), optimizer)
    recipe = Recipe(
        graphdef=graphdef,
        optimizer=optimizer,
        loss=dataclasses.replace(settings.loss, class_weights=class_weights),
        align_corners=settings.model.align_corners,
        seed=settings.seed,
    )
    return recipe, state


def open_split(settings: Settings, split: str) -> ClipSource:
    """The clips of a split, checked against the network.

    Raises:
        UserError: no such records, or ones that this network cannot use.
    """
    source = open_clips(settings.data.dir, split)
    num_classes = len(source.info.classes.names)
    if num_classes != settings.model.head.num_classes:
        raise UserError(
            f"the records in {settings.data.dir} have {num_classes} classes, "
            f"config.model.num_classes is {settings.model.head.num_classes}: set it to "
            f"{num_classes}, or another config.data.dir"
        )
    if not source.labelled:
        raise UserError(
            f"the split {split!r} in {settings.data.dir} has no labels: it can neither train nor "
            "be scored; choose another config.data.train_split or config.data.eval_split"
        )
    return source


def _check_crop(settings: Settings, source: ClipSource) -> None:
    """A crop beyond the largest resized frame would be padding in every clip."""
    frame = source.read_encoded(0).size
    augmentation = settings.data.augmentation
    largest = [int(length * augmentation.ratio_range[1]) for length in frame]
    if any(c > side for c, side in zip(augmentation.crop_size, largest, strict=True)):
        raise UserError(
            f"config.data.crop_size is {augmentation.crop_size}, larger than any resized frame: "
            f"frames of {tuple(frame)} become {tuple(largest)} at most "
            f"(config.data.ratio_range {augmentation.ratio_range}); choose a smaller crop"
        )


def open_checkpoints(settings: Settings, workdir: Path) -> Checkpoints:
    """The checkpoints of a workdir."""
    return Checkpoints(
        workdir / "checkpoints", keep=settings.checkpoints_kept, model=settings.model
    )


def prepare_workdir(workdir: Path) -> None:
    """Makes the workdir. Raises UserError if it cannot be written."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(
            f"the workdir {workdir} cannot be written: {error.strerror}. Choose another --workdir"
        ) from error


class _LossWatch:
    """Looks at each step's loss two steps later, so that the device never waits for the host."""

    _LAG = 2

    def __init__(self, run: _Run):
        self._run = run
        self._pending: collections.deque[tuple[int, np.ndarray, StepMetrics]] = collections.deque()
        self._newest: tuple[int, StepMetrics] | None = None
        self._learning_rate = poly_schedule(run.settings.optimizer, run.settings.num_steps)

    def add(self, step: int, batch: Batch, metrics: StepMetrics) -> None:
        """Takes the metrics of a step (from 0) and checks those of an earlier one."""
        self._pending.append((step, batch.indices, metrics))
        if len(self._pending) > self._LAG:
            self._check_oldest()

    def check_all(self) -> None:
        """Waits for every step so far. Raises UserError if a loss or gradient is not finite."""
        while self._pending:
            self._check_oldest()

    def log_newest(self) -> str:
        """Logs the newest step that has been checked; returns a short text of it."""
        if self._newest is None:
            return ""
        step, metrics = self._newest
        loss, rate = float(metrics.losses.total), float(self._learning_rate(step))
        self._run.log.scalars(
            step,
            {
                "train/loss": loss,
                "train/loss_main": float(metrics.losses.main),
                "train/loss_aux": float(metrics.losses.aux),
                "train/accuracy": float(metrics.losses.accuracy),
                "train/grad_norm": float(metrics.grad_norm),
                "train/learning_rate": rate,
            },
        )
        return f"loss {loss:.3f}, lr {rate:.4f}"

    def _check_oldest(self) -> None:
        step, indices, metrics = self._pending.popleft()
        loss, grad_norm = float(metrics.losses.total), float(metrics.grad_norm)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            clip_ids = [self._run.train_source.clip_id(int(index)) for index in indices]
            newest = self._run.checkpoints.latest_step()
            raise UserError(
                f"step {step}: the loss is {loss} and the gradient's norm {grad_norm}, with the "
                f"clips {', '.join(clip_ids)}. Nothing of this step was saved; the newest "
                f"checkpoint is {'none' if newest is None else f'of step {newest}'}. Look at "
                "these clips, or lower config.optimizer.learning_rate"
            )
        self._newest = (step, metrics)
