"""What a run needs before its first step: records, weights, checkpoints, a workdir."""

import dataclasses
import tempfile
import uuid
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tmanet_jax.checkpoints.store import Checkpoints, DataStream
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.records import ClipSource, open_clips
from tmanet_jax.errors import UserError, counted
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.parallel import distributed
from tmanet_jax.run_description import RunDescription
from tmanet_jax.scoring.evaluate import evenly_spread
from tmanet_jax.settings import InitConfig, Settings
from tmanet_jax.train.optimizer import make_sgd
from tmanet_jax.train.step import Recipe, TrainState, init_state
from tmanet_jax.weights.load import (
    LoadReport,
    load_checkpoint,
    load_pretrained_backbone,
    read_model_config,
)

CHECKPOINTS_DIR = "checkpoints"

_FRAMES_MEASURED = 15


def open_split(
    settings: Settings,
    split: str,
    *,
    memory_range: int,
    num_memory: int | None = None,
    unlabelled_ok: bool = False,
) -> ClipSource:
    """The clips of a split, checked against the network.

    Args:
        settings: of the run.
        split: its name.
        memory_range: frames before the query that memory frames are drawn from.
        num_memory: how many of them are read; by default as many as the network has.
        unlabelled_ok: accept a split without labels.

    Raises:
        UserError: no such records, or ones that this network cannot use.
    """
    source = open_clips(settings.data.dir, split)
    num_classes = source.info.classes.num_classes
    if num_classes != settings.model.head.num_classes:
        raise UserError(
            f"The records in {settings.data.dir} have {counted(num_classes, 'class')}, "
            f"config.model.num_classes is {settings.model.head.num_classes}: set it to "
            f"{num_classes}, or choose another config.data.dir."
        )
    if not (source.labelled or unlabelled_ok):
        raise UserError(
            f"The split {split!r} in {settings.data.dir} has no labels: it can neither train nor "
            "be scored; choose another config.data.train_split or config.data.eval_split, or let "
            "mode eval write its predictions (--submit=DIR)."
        )
    if num_memory is None:
        num_memory = settings.model.head.num_memory
    source.check_memory(num_memory, memory_range)
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
            f"(config.data.ratio_range {augmentation.ratio_range}); choose a smaller crop."
        )


def with_training_data(settings: Settings, source: ClipSource) -> Settings:
    """The settings with what the training split says of how its network is to be used."""
    protocol = dataclasses.replace(
        settings.evaluation.protocol,
        memory_stride=source.info.frame_stride,
        train_height=_usual_height(source),
    )
    evaluation = dataclasses.replace(settings.evaluation, protocol=protocol)
    return dataclasses.replace(settings, evaluation=evaluation)


def _usual_height(source: ClipSource) -> int:
    """The median height of a few frames, spread evenly over the split."""
    some = evenly_spread(range(len(source)), _FRAMES_MEASURED)
    return int(np.median([source.read_encoded(index).size.height for index in some]))


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
            f"The workdir {workdir} cannot be written: {error.strerror}. Choose another --workdir."
        ) from error


def check_processes_agree(source: ClipSource, workdir: Path | None) -> None:
    """The processes of a run share the clips, whose records may lie anywhere, and the workdir.

    Args:
        source: of the clips.
        workdir: made already; None: not all processes use it.

    Raises:
        UserError: they do not.
    """
    if distributed.count() == 1:
        return
    distributed.check_same("clips", [source.clip_id(index) for index in range(len(source))])
    if workdir is None:
        return
    start_id = distributed.exchange("start", uuid.uuid4().hex)[0]
    mark = workdir / f".shared-by-all-processes-{start_id}"
    if distributed.is_first():
        mark.touch()
    distributed.wait_for_all("mark made")
    try:
        distributed.check_same("workdir", mark.exists())
    finally:
        if distributed.is_first():
            mark.unlink()


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run in this workdir has a whole checkpoint; nothing is made or opened."""
    directory = workdir / CHECKPOINTS_DIR
    return directory.is_dir() and any(path.name.isdigit() for path in directory.iterdir())


def open_checkpoints(
    settings: Settings,
    workdir: Path,
    stream: DataStream | None = None,
    description: RunDescription | None = None,
) -> Checkpoints:
    """The checkpoints of a workdir; without a stream of batches they are only read."""
    return Checkpoints(
        workdir / CHECKPOINTS_DIR,
        keep=settings.checkpoints_kept,
        model=settings.model,
        stream=stream,
        about=None if description is None else description.to_json(),
    )


def data_stream(settings: Settings, source: ClipSource) -> DataStream:
    """What decides the batches of a run."""
    return DataStream(
        seed=settings.seed,
        batch_size=settings.batch_size,
        num_clips=len(source),
        memory_range=settings.data.memory_range,
        augmentation=settings.data.augmentation,
        records=source.fingerprint(),
    )


def random_model(settings: Settings) -> TMANet:
    """The network with random weights, a function of the seed."""
    return TMANet(settings.model, rngs=nnx.Rngs(settings.seed))


def blank_model(settings: Settings) -> TMANet:
    """The network with zeros for weights, made at once, for weights to be loaded into."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: random_model(settings)))
    return nnx.merge(
        graphdef, jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), state)
    )


def load_weights(
    model: TMANet, init: InitConfig, classes: ClassSet, *, trains: bool
) -> LoadReport | None:
    """Sets the network from the file that the settings name, if they do, and tells what it set.

    Args:
        model: changed in place.
        init: of the settings.
        classes: of the records.
        trains: new classifiers will be trained where the file's are of other classes.

    Raises:
        UserError: the file cannot be read or does not fit, or is of other classes.
    """
    if init.pretrained:
        return load_pretrained_backbone(init.pretrained, model)
    if init.checkpoint:
        compared = classes if init.classes == "compare" else None
        return load_checkpoint(init.checkpoint, model, classes=compared, new_classifier_ok=trains)
    return None


def beginning(init: InitConfig, report: LoadReport | None) -> str:
    """What a new run begins from, for the log; warns where a published score needs more."""
    if report is not None:
        return f"begins from a file: {report}"
    if not init.published:
        return "begins from random weights"
    return (
        "WARNING: begins from random weights. The published score of this configuration needs the "
        f"backbone {init.published}: --config.init.pretrained=FILE (the README says where it comes "
        "from)."
    )


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
        accumulate=settings.accumulate,
        skips_not_finite=settings.max_skipped_steps > 0,
    )
    return recipe, state


def with_model_of_file(settings: Settings) -> Settings:
    """The settings with the network of `init.checkpoint`, computed as the settings say.

    Raises:
        UserError: the file cannot be read or holds no whole network.
    """
    model = read_model_config(settings.init.checkpoint, align_corners=settings.init.align_corners)
    return dataclasses.replace(settings, model=model.computed_as(settings.model))
