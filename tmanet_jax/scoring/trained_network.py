"""The network that a run or a file of weights left, to be scored."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from tmanet_jax.checkpoints.damage import steps_in
from tmanet_jax.checkpoints.store import CHECKPOINTS_DIR, Checkpoints
from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import ClassSet, name_differences
from tmanet_jax.errors import UserError
from tmanet_jax.inputs import with_model_of_file
from tmanet_jax.models.tmanet import Weights, blank_model, split
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.sharding import make_mesh, replicated
from tmanet_jax.settings import Settings
from tmanet_jax.weights import files, load
from tmanet_jax.weights.weight_file import WeightFile
from tmanet_jax.workdir import read_fields, read_protocol


class TrainedNetwork(NamedTuple):
    """A network with its weights on all devices.

    Attributes:
        graphdef: the network's.
        weights: its own, or the moving average of a training.
        step: of the training that they are of; 0 for a file's.
    """

    graphdef: nnx.GraphDef
    weights: Weights
    step: int


def named_file(settings: Settings) -> WeightFile | None:
    """`init.checkpoint`, read; None if no file is named.

    Raises:
        UserError: it cannot be read.
    """
    return files.read(settings.init.checkpoint) if settings.init.checkpoint else None


def without_what_it_began_with(settings: Settings, workdir: Path) -> Settings:
    """The settings of a run without the file that it began with: its own checkpoints are scored."""
    init = settings.init
    began_with = read_fields(workdir).get("init.checkpoint")
    if not init.checkpoint or init.checkpoint != began_with:
        return settings
    if not steps_in(workdir / CHECKPOINTS_DIR):
        return settings
    return dataclasses.replace(settings, init=dataclasses.replace(init, checkpoint=""))


def scored_as_before(settings: Settings, workdir: Path, file: WeightFile | None) -> Settings:
    """The settings with the file's network, and how it or else the workdir's was scored; told.

    Raises:
        UserError: the file holds no whole network, or what the command line sets does not go with
            how it was scored.
    """
    if file is None:
        before = read_protocol(workdir)
    else:
        settings = with_model_of_file(settings, file)
        before = file.protocol
    configured = settings.evaluation
    evaluation = configured.for_weights(before)
    distributed.tell(configured.compared_with(evaluation.protocol))
    return dataclasses.replace(settings, evaluation=evaluation)


def load_trained(
    settings: Settings, workdir: Path, classes: ClassSet, file: WeightFile | None
) -> TrainedNetwork:
    """Loads a file of weights, or else the best checkpoint of the workdir.

    Of a checkpoint the network alone is read: the optimiser may have changed since.

    Args:
        settings: from `scored_as_before`.
        workdir: of the run.
        classes: of the records that are scored.
        file: from `named_file`.

    Raises:
        UserError: there is nothing to load, or it does not fit.
    """
    sharding = replicated(make_mesh())
    model = blank_model(settings.model)
    compared = settings.init.compared(classes)
    if file is not None:
        distributed.tell(str(load.load_checkpoint(file, model, classes=compared)))
    graphdef, weights = split(model)
    if file is not None:
        distributed.wait_for_start("made its network")
        return TrainedNetwork(graphdef, jax.device_put(weights, sharding), step=0)
    if not steps_in(workdir / CHECKPOINTS_DIR):
        raise UserError(
            f"There is no checkpoint in {workdir}: train first, with the same --config and "
            "--workdir, or set --config.init.checkpoint to a file of weights."
        )
    with contextlib.closing(
        Checkpoints(workdir / CHECKPOINTS_DIR, keep=settings.checkpoint.keep, model=settings.model)
    ) as checkpoints:
        step = checkpoints.best_step()
        if compared is not None:
            _check_classes(workdir, checkpoints.about(step), compared)
        restored = checkpoints.restore_scored(step, weights, sharding)
    return TrainedNetwork(graphdef, restored, step)


def _check_classes(workdir: Path, about: Mapping[str, Any], classes: ClassSet) -> None:
    """Raises UserError if a checkpoint says that its network tells other classes apart."""
    if "classes" in about:
        trained_for = strict_json.decode(ClassSet, about["classes"], f"The checkpoint in {workdir}")
        differences = name_differences(trained_for, classes)
        if differences:
            raise load.other_classes(workdir, differences)
