"""What a run needs before its first step: records, weights, checkpoints, a workdir."""

import dataclasses
import tempfile
from pathlib import Path

from flax import nnx

from tmanet_jax.checkpoints import Checkpoints
from tmanet_jax.data.records import ClipSource, open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.settings import Settings
from tmanet_jax.train.optimizer import make_sgd
from tmanet_jax.train.step import Recipe, TrainState, init_state
from tmanet_jax.weights import LoadReport, load_checkpoint, load_pretrained_backbone

CHECKPOINTS_DIR = "checkpoints"


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
    source.check_memory(settings.model.head.num_memory, settings.data.memory_range)
    return source


def check_crop(settings: Settings, source: ClipSource) -> None:
    """A crop beyond the largest resized frame would be padding in every clip.

    Raises:
        UserError: it is.
    """
    frame = source.read_encoded(0).size
    augmentation = settings.data.augmentation
    largest = [int(length * augmentation.ratio_range[1]) for length in frame]
    if any(c > side for c, side in zip(augmentation.crop_size, largest, strict=True)):
        raise UserError(
            f"config.data.crop_size is {augmentation.crop_size}, larger than any resized frame: "
            f"frames of {tuple(frame)} become {tuple(largest)} at most "
            f"(config.data.ratio_range {augmentation.ratio_range}); choose a smaller crop"
        )


def prepare_workdir(workdir: Path) -> None:
    """Makes the workdir.

    Raises:
        UserError: it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(
            f"the workdir {workdir} cannot be written: {error.strerror}. Choose another --workdir"
        ) from error


def open_checkpoints(settings: Settings, workdir: Path) -> Checkpoints:
    """The checkpoints of a workdir."""
    return Checkpoints(
        workdir / CHECKPOINTS_DIR, keep=settings.checkpoints_kept, model=settings.model
    )


def initial_model(settings: Settings) -> tuple[TMANet, LoadReport | None]:
    """The network at step 0, random or from a file of weights, and what was loaded.

    Raises:
        UserError: the file cannot be read or does not fit.
    """
    model = TMANet(settings.model, rngs=nnx.Rngs(settings.seed))
    if settings.init.pretrained:
        return model, load_pretrained_backbone(settings.init.pretrained, model)
    if settings.init.checkpoint:
        return model, load_checkpoint(settings.init.checkpoint, model, new_classifier_ok=True)
    return model, None


def initial_state(
    settings: Settings, model: TMANet, class_weights: tuple[float, ...] | None
) -> tuple[Recipe, TrainState]:
    """The recipe of the run, and its state at step 0."""
    optimizer = make_sgd(settings.optimizer, settings.num_steps)
    graphdef, state = init_state(model, optimizer)
    recipe = Recipe(
        graphdef=graphdef,
        optimizer=optimizer,
        loss=dataclasses.replace(settings.loss, class_weights=class_weights),
        align_corners=settings.model.align_corners,
        seed=settings.seed,
    )
    return recipe, state


def with_model(settings: Settings, model: ModelConfig) -> Settings:
    """The settings with the network of a file, at the compute type that the settings name."""
    return dataclasses.replace(
        settings, model=dataclasses.replace(model, dtype=settings.model.dtype)
    )
