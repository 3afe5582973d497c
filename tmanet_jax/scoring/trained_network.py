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
from tmanet_jax.inputs import load_weights, with_model_of_file
from tmanet_jax.models.tmanet import blank_model
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.sharding import make_mesh, replicated
from tmanet_jax.settings import Settings
from tmanet_jax.weights import files, load
from tmanet_jax.workdir import read_protocol


class TrainedNetwork(NamedTuple):
    """A network with its weights on all devices.

    Attributes:
        graphdef: the network's.
        weights: its parameters and running statistics.
        step: of the training that they are of; 0 for a file's.
    """

    graphdef: nnx.GraphDef
    weights: tuple[nnx.State, nnx.State]
    step: int


def model_settings(settings: Settings) -> Settings:
    """The settings with the network of `init.checkpoint`, if there is such a file.

    Raises:
        UserError: the file cannot be read or holds no whole network.
    """
    return with_model_of_file(settings) if settings.init.checkpoint else settings


def scored_as_before(settings: Settings, workdir: Path) -> Settings:
    """The settings with how `init.checkpoint`, or else the workdir's network, was scored; told.

    Raises:
        UserError: the file cannot be read, or what the command line sets does not go with it.
    """
    if settings.init.checkpoint:
        before = files.read(settings.init.checkpoint).protocol
    else:
        before = read_protocol(workdir)
    configured = settings.evaluation
    evaluation = configured.for_weights(before)
    distributed.tell(configured.compared_with(evaluation.protocol))
    return dataclasses.replace(settings, evaluation=evaluation)


def load_trained(settings: Settings, workdir: Path, classes: ClassSet) -> TrainedNetwork:
    """Loads `settings.init.checkpoint`, or else the best checkpoint of the workdir.

    Of a checkpoint the network alone is read: the optimiser may have changed since.

    Args:
        settings: from `model_settings`.
        workdir: of the run.
        classes: of the records that are scored.

    Raises:
        UserError: there is nothing to load, or it does not fit.
    """
    sharding = replicated(make_mesh())
    model = blank_model(settings.model)
    if settings.init.checkpoint:
        distributed.tell(str(load_weights(model, settings.init, classes, trains=False)))
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = states
    if settings.init.checkpoint:
        distributed.wait_for_start("made its network")
        return TrainedNetwork(graphdef, jax.device_put((params, batch_stats), sharding), step=0)
    if not steps_in(workdir / CHECKPOINTS_DIR):
        raise UserError(
            f"There is no checkpoint in {workdir}: train first, with the same --config and "
            "--workdir, or set --config.init.checkpoint to a file of weights."
        )
    with contextlib.closing(
        Checkpoints(workdir / CHECKPOINTS_DIR, keep=settings.checkpoint.keep, model=settings.model)
    ) as checkpoints:
        step = checkpoints.best_step()
        if settings.init.classes == "compare":
            _check_classes(workdir, checkpoints.about(step), classes)
        network = {"params": params, "batch_stats": batch_stats}
        restored = checkpoints.restore(step, network, sharding)
    return TrainedNetwork(graphdef, (restored["params"], restored["batch_stats"]), step)


def _check_classes(workdir: Path, about: Mapping[str, Any], classes: ClassSet) -> None:
    """Raises UserError if a checkpoint says that its network tells other classes apart."""
    if "classes" in about:
        trained_for = strict_json.decode(ClassSet, about["classes"], f"The checkpoint in {workdir}")
        differences = name_differences(trained_for, classes)
        if differences:
            raise load.other_classes(workdir, differences)
