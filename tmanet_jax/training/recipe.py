"""What a run trains on and by: its splits, and its settings made into a recipe and a state."""

import dataclasses
from typing import NamedTuple

import numpy as np

from tmanet_jax.checkpoints.store import DataStream
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.errors import UserError
from tmanet_jax.inputs import open_split
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.scoring.evaluate import evenly_spread
from tmanet_jax.settings import Settings
from tmanet_jax.training.optimizer import make_optimizer
from tmanet_jax.training.step import Recipe, TrainState, init_state

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
        train=open_split(settings, data.train_split, memory_range=settings.memory_range),
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
        memory_stride=records.info.frame_stride,
        train_height=_usual_height(records),
    )
    evaluation = dataclasses.replace(settings.evaluation, protocol=protocol)
    return dataclasses.replace(settings, evaluation=evaluation)


def _usual_height(records: ClipRecords) -> int:
    """The median height of a few frames, spread evenly over the split."""
    some = evenly_spread(range(len(records)), _FRAMES_MEASURED)
    return int(np.median([records.read_encoded(index).size.height for index in some]))


def data_stream(settings: Settings, records: ClipRecords) -> DataStream:
    """What decides the batches of a run."""
    return DataStream(
        seed=settings.seed,
        batch_size=settings.batch_size,
        num_clips=len(records),
        memory_range=settings.memory_range,
        augmentation=settings.data.augmentation,
        records=records.fingerprint(),
    )


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
    """The recipe of the run, and its state at step 0."""
    optimizer = make_optimizer(settings.optimizer, settings.num_steps)
    graphdef, state = init_state(model, optimizer)
    recipe = Recipe(
        graphdef=graphdef,
        optimizer=optimizer,
        loss=dataclasses.replace(settings.loss, class_weights=class_weights),
        align_corners=settings.model.align_corners,
        seed=settings.seed,
        accumulate=settings.accumulate,
        skips_not_finite=settings.max_skipped_steps > 0,
    )
    return recipe, state
