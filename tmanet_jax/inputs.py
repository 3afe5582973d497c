"""What settings name, opened and checked: a split of clip records, a network, its weights."""

import dataclasses

from flax import nnx

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.mixed import check_classes, open_mixed
from tmanet_jax.data.records import ClipRecords, has_records, open_clips
from tmanet_jax.errors import UserError, counted
from tmanet_jax.fields import named_factors
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.settings import Settings
from tmanet_jax.weights import files
from tmanet_jax.weights.load import (
    InitConfig,
    LoadReport,
    load_checkpoint,
    load_pretrained_backbone,
    model_config_of,
)
from tmanet_jax.weights.weight_file import WeightFile


def open_split(
    settings: Settings,
    split: str,
    *,
    memory_range: int,
    num_memory: int | None = None,
    unlabelled_ok: bool = False,
    trains: bool = False,
) -> ClipRecords:
    """The clips of a split, checked against the network.

    Args:
        settings: of the run.
        split: its name.
        memory_range: frames before the query that memory frames are drawn from.
        num_memory: how many of them are read; by default as many as the network has.
        unlabelled_ok: accept a split without labels.
        trains: with the further directories that are mixed into training.

    Raises:
        UserError: no such records, or ones that this network cannot use.
    """
    data = settings.data
    how = split, data.frame_stride, data.classes
    shares = {data.dir: 1.0, **named_factors(data.mixed, "mixed")}
    if trains and data.mixed:
        records: ClipRecords = open_mixed(shares, *how)
    else:
        if data.mixed and data.classes and all(map(has_records, shares)):
            check_classes(shares, data.classes)
        records = open_clips(data.dir, *how, of_several=bool(data.mixed))
    num_classes = records.info.classes.num_classes
    if num_classes != settings.model.head.num_classes:
        raise UserError(
            f"The records in {settings.data.dir} have {counted(num_classes, 'class')}, "
            f"config.model.num_classes is {settings.model.head.num_classes}: set it to "
            f"{num_classes}, or choose another config.data.dir."
        )
    if not (records.labelled or unlabelled_ok):
        raise UserError(
            f"The split {split!r} in {settings.data.dir} has no labels: it can neither train nor "
            "be scored; choose another config.data.train_split or config.data.eval_split, or let "
            "mode eval write its predictions (--submit=DIR)."
        )
    if num_memory is None:
        num_memory = settings.model.head.num_memory
    records.check_memory(num_memory, memory_range)
    return records


def random_model(settings: Settings) -> TMANet:
    """The network with random weights, a function of the seed."""
    return TMANet(settings.model, rngs=nnx.Rngs(settings.seed))


def load_weights(model: TMANet, init: InitConfig, classes: ClassSet) -> LoadReport | None:
    """Sets a network to be trained from the file that the settings name, if they do; tells what.

    Args:
        model: changed in place; its classifiers stay where the file's are of other classes.
        init: of the settings.
        classes: of the records.

    Raises:
        UserError: the file cannot be read or does not fit, or is of other classes.
    """
    if init.pretrained:
        return load_pretrained_backbone(init.pretrained, model)
    if init.checkpoint:
        file = files.read(init.checkpoint)
        return load_checkpoint(file, model, classes=init.compared(classes), new_classifier_ok=True)
    return None


def with_model_of_file(settings: Settings, file: WeightFile) -> Settings:
    """The settings with the network of `init.checkpoint`, computed as the settings say.

    Raises:
        UserError: the file holds no whole network.
    """
    model = model_config_of(file, align_corners=settings.init.align_corners)
    return dataclasses.replace(settings, model=model.computed_as(settings.model))
