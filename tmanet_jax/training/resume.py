"""What a run that goes on from a checkpoint is told."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax.sharding import Sharding

from tmanet_jax.checkpoints.store import Checkpoints
from tmanet_jax.settings import Settings
from tmanet_jax.training.optimizer import OptimizerConfig, make_schedule
from tmanet_jax.training.step import TrainState
from tmanet_jax.workdir import differences


def newest_state(
    checkpoints: Checkpoints, step: int, initial: TrainState, sharding: Sharding
) -> TrainState:
    """The state of a step; a moving average that its checkpoint lacks begins from its weights.

    Raises:
        UserError: the checkpoint is of another network, stream or optimiser, or damaged.
    """
    if initial.ema is None or checkpoints.has_ema(step):
        return checkpoints.restore(step, initial, sharding)
    state = checkpoints.restore(step, dataclasses.replace(initial, ema=None), sharding)
    return dataclasses.replace(state, ema=checkpoints.restore(step, initial.network, sharding))


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
    if settings.ema_decay and not there.get("ema_decay"):
        lines.append("The moving average (config.ema_decay) begins with the weights of this step.")
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
    said = {name: there[f"optimizer.{name}"] for name in names if f"optimizer.{name}" in there}
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
    }
    before = OptimizerConfig(**fields)
    num_steps = there.get("num_steps", settings.num_steps)
    old = float(make_schedule(before, num_steps)(step))
    new = float(make_schedule(settings.optimizer, settings.num_steps)(step))
    if abs(new - old) <= 1e-6 * old:
        return []
    ended = " (its schedule had ended)" if step >= num_steps else ""
    return [f"The learning rate goes from {old:.4g}{ended} to {new:.4g} at this step."]
