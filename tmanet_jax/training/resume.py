"""Where a run begins: from nothing, a file of weights or a checkpoint, and what it is told then."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from tmanet_jax.checkpoints.damage import steps_in
from tmanet_jax.checkpoints.store import CHECKPOINTS_DIR
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import counted
from tmanet_jax.inputs import load_weights, random_model
from tmanet_jax.models.tmanet import TMANet, num_parameters
from tmanet_jax.settings import Settings
from tmanet_jax.training.optimizer import OptimizerConfig, make_schedule
from tmanet_jax.training.recipe import Splits
from tmanet_jax.weights.files import check_there
from tmanet_jax.weights.load import InitConfig, LoadReport
from tmanet_jax.workdir import differences


def introduction(model: TMANet, splits: Splits, mesh: Mesh, workdir: Path) -> str:
    """What a run is, for the log."""
    return (
        f"TMANet with {num_parameters(model) / 1e6:.2f} M parameters, "
        f"T = {model.config.head.num_memory}, {model.config.dtype} at {model.config.precision} "
        "precision; "
        f"clips: {len(splits.train)} to train, {len(splits.scored)} to score; "
        f"{counted(mesh.size, f'{jax.devices()[0].platform} device')}; workdir {workdir}"
    )


def first_network(
    settings: Settings, workdir: Path, classes: ClassSet
) -> tuple[TMANet, tuple[str, ...]]:
    """The network before step 0, and what it begins from; that of a run that goes on tells nothing.

    Raises:
        UserError: the file of weights cannot be read or does not fit.
    """
    if steps_in(workdir / CHECKPOINTS_DIR):
        return random_model(settings), ()
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
        f"backbone {init.published}: --config.init.pretrained=FILE (the README says where it comes "
        "from)."
    )


def going_on(
    step: int, settings: Settings, there: Mapping[str, Any], here: Mapping[str, Any]
) -> list[str]:
    """What a run that goes on is told: what differs since its checkpoint, what comes of it.

    Args:
        step: of the checkpoint.
        settings: of the run that goes on.
        there: the configuration that the checkpoint was trained with, by dotted names; empty if it
            does not say.
        here: that of the run.
    """
    lines = [f"going on from step {step} of {settings.num_steps}"]
    changed = differences(there, here)
    if changed:
        lines.append(f"Since that checkpoint the configuration has changed: {'; '.join(changed)}.")
    if step > settings.num_steps:
        lines.append(
            f"The run is beyond config.num_steps: nothing is trained, step {step} is scored and "
            "its weights are kept."
        )
    elif step == settings.num_steps and changed:
        lines.append(
            "The run has done all its steps: nothing is trained, whatever has changed. For another "
            "training choose another --workdir."
        )
    elif step < settings.num_steps and there:
        lines += _jump_of_rate(step, settings, there)
    if settings.profile and settings.profile[1] <= step:
        lines.append(f"config.profile {settings.profile} lies before step {step}: no trace.")
    return lines


def _jump_of_rate(step: int, settings: Settings, there: Mapping[str, Any]) -> list[str]:
    names = [field.name for field in dataclasses.fields(OptimizerConfig)]
    before = OptimizerConfig(
        **{name: there[f"optimizer.{name}"] for name in names if f"optimizer.{name}" in there}
    )
    num_steps = there.get("num_steps", settings.num_steps)
    old = float(make_schedule(before, num_steps)(step))
    new = float(make_schedule(settings.optimizer, settings.num_steps)(step))
    if abs(new - old) <= 1e-6 * old:
        return []
    ended = " (its schedule had ended)" if step >= num_steps else ""
    return [f"The learning rate goes from {old:.4g}{ended} to {new:.4g} at this step."]
