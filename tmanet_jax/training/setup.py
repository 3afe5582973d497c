"""What a run begins with: its splits, its network, its recipe, and its state at step 0."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tmanet_jax.checkpoints.damage import steps_in
from tmanet_jax.checkpoints.store import CHECKPOINTS_DIR, BatchStream
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.data.samples import Batch, empty_batch
from tmanet_jax.errors import UserError, counted
from tmanet_jax.inputs import load_weights, open_split, random_model
from tmanet_jax.models.tmanet import TMANet, blank_model, num_parameters
from tmanet_jax.scoring.evaluate import evenly_spread
from tmanet_jax.settings import Settings
from tmanet_jax.training.optimizer import make_optimizer
from tmanet_jax.training.step import Recipe, TrainState, init_state
from tmanet_jax.weights.files import check_there
from tmanet_jax.weights.load import InitConfig, LoadReport

_FRAMES_MEASURED = 15


class Splits(NamedTuple):
    """The clips of a run: those that train it, and those that are scored."""

    train: ClipRecords
    scored: ClipRecords

    def label_doubts(self) -> list[str]:
        """What is doubtful about the labels of both."""
        return self.train.label_doubts(trains=True) + self.scored.label_doubts(trains=False)


def open_splits(settings: Settings) -> Splits:
    """Opens both splits, checked against the network and the crop.

    Raises:
        UserError: no such records, or ones that this run cannot use.
    """
    data, num_memory = settings.data, settings.model.head.num_memory
    splits = Splits(
        train=open_split(
            settings, data.train_split, memory_range=settings.memory_range, trains=True
        ),
        scored=open_split(settings, data.eval_split, memory_range=num_memory),
    )
    _check_crop(settings, splits.train)
    return splits


def _check_crop(settings: Settings, records: ClipRecords) -> None:
    """A crop beyond the largest resized frame would be padding in every clip.

    Raises:
        UserError: it is.
    """
    frame = records.read_encoded(0).size
    augmentation = settings.data.augmentation
    largest = [int(length * augmentation.ratio_range[1]) for length in frame]
    if any(c > side for c, side in zip(augmentation.crop_size, largest, strict=True)):
        raise UserError(
            f"config.data.crop_size is {augmentation.crop_size}, larger than any resized frame: "
            f"frames of {tuple(frame)} become {tuple(largest)} at most "
            f"(config.data.ratio_range {augmentation.ratio_range}); choose a smaller crop."
        )


def with_training_data(settings: Settings, records: ClipRecords) -> Settings:
    """The settings with what the training split says of how its network is to be used."""
    protocol = dataclasses.replace(
        settings.evaluation.protocol,
        memory_stride=records.frame_stride,
        train_height=_usual_height(records),
    )
    evaluation = dataclasses.replace(settings.evaluation, protocol=protocol)
    return dataclasses.replace(settings, evaluation=evaluation)


def _usual_height(records: ClipRecords) -> int:
    """The median height of a few frames, spread evenly over the split."""
    some = evenly_spread(range(len(records)), _FRAMES_MEASURED)
    return int(np.median([records.read_encoded(index).size.height for index in some]))


def first_network(
    settings: Settings, workdir: Path, classes: ClassSet
) -> tuple[TMANet, tuple[str, ...]]:
    """The network before step 0, and what it begins from; that of a run that goes on tells nothing.

    Raises:
        UserError: the file of weights cannot be read or does not fit.
    """
    if steps_in(workdir / CHECKPOINTS_DIR):
        return blank_model(settings.model), ()
    if path := settings.init.pretrained or settings.init.checkpoint:
        check_there(path)  # before random weights are drawn for seconds
    model = random_model(settings)
    report = load_weights(model, settings.init, classes)
    return model, (beginning(settings.init, report),)


def beginning(init: InitConfig, report: LoadReport | None) -> str:
    """What a new run begins from, for the log; warns where a published score needs more."""
    if report is not None:
        return f"begins from a file: {report}"
    if not init.published:
        return "begins from random weights"
    return (
        "WARNING: begins from random weights. The published score of this configuration needs the "
        f"backbone {init.published}: --config.init.pretrained=FILE (docs/migrating.md says where "
        "it comes from)."
    )


def batch_stream(settings: Settings, records: ClipRecords) -> BatchStream:
    """What decides the batches of a run."""
    return BatchStream(
        seed=settings.seed,
        batch_size=settings.batch_size,
        num_clips=len(records),
        memory_range=settings.memory_range,
        augmentation=settings.data.augmentation,
        records=records.fingerprint(),
    )


def batch_shapes(settings: Settings) -> Batch:
    """A batch of a run, all processes together: shapes alone, for a compiler."""
    num_frames = settings.model.head.num_memory + 1
    batch = empty_batch(settings.batch_size, num_frames, settings.data.augmentation.crop_size)
    return jax.eval_shape(lambda batch: batch, batch)


def class_weights(records: ClipRecords, power: float) -> tuple[float, ...] | None:
    """Frequency ** -power for each class, scaled so that the mean over labelled pixels is 1.

    A class that never occurs weighs 0. With power 0 there are no weights.
    """
    if power == 0:
        return None
    pixels_C = np.array(records.class_pixels)
    frequency_C = pixels_C / pixels_C.sum()
    present_C = frequency_C > 0
    weights_C = np.where(present_C, np.where(present_C, frequency_C, 1.0) ** -power, 0.0)
    weights_C /= (weights_C * frequency_C).sum()
    return tuple(float(weight) for weight in weights_C)


def initial_state(
    settings: Settings, model: TMANet, class_weights: tuple[float, ...] | None
) -> tuple[Recipe, TrainState]:
    """The recipe of the run, and its state at step 0.

    Args:
        settings: of the run.
        model: as it begins.
        class_weights: made of the records; None: those of the settings.
    """
    loss = settings.loss
    if class_weights is not None:
        loss = dataclasses.replace(loss, class_weights=class_weights)
    optimizer = make_optimizer(settings.optimizer, settings.num_steps)
    graphdef, state = init_state(model, optimizer)
    if settings.ema_decay:
        state = dataclasses.replace(state, ema=jax.tree.map(jnp.copy, state.network))
    recipe = Recipe(
        graphdef=graphdef,
        optimizer=optimizer,
        loss=loss,
        align_corners=settings.model.align_corners,
        seed=settings.seed,
        frozen=settings.optimizer.frozen,
        ema_decay=settings.ema_decay,
        accumulate=settings.accumulate,
        skips_not_finite=settings.max_skipped_steps > 0,
    )
    return recipe, state


def introduction(model: TMANet, splits: Splits, mesh: Mesh, workdir: Path) -> str:
    """What a run is, for the log."""
    return (
        f"{model.config.head.network} with {num_parameters(model) / 1e6:.2f} M parameters, "
        f"T = {model.config.head.num_memory}, {model.config.dtype} at {model.config.precision} "
        "precision; "
        f"clips: {len(splits.train)} to train, {len(splits.scored)} to score; "
        f"{counted(mesh.size, f'{jax.devices()[0].platform} device')}; workdir {workdir}"
    )
