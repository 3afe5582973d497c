"""Checkpoints of training: written in the background, kept by age and by score.

A checkpoint holds the training state and the network's configuration. Its step is also the data
position: the pipeline is a function of the step, so there is nothing else to save.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from orbax.checkpoint.checkpoint_managers import preservation_policy

from tmanet_jax.errors import UserError
from tmanet_jax.models.tmanet import ModelConfig

State = TypeVar("State")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: made when it is not there.
        keep: how many of the newest are kept; the best by mIoU is kept besides.
        model: the configuration of the network whose states these are.
    """

    def __init__(self, directory: Path, *, keep: int, model: ModelConfig):
        self._directory = directory
        self._model = _as_json(model)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(
                [
                    preservation_policy.LatestN(keep),
                    preservation_policy.BestN(
                        get_metric_fn=_mean_iou,
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            best_fn=_mean_iou,  # without it the scores are not written beside the checkpoints
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Step of the checkpoint with the highest mIoU, or the newest if none was scored."""
        scored = {
            step: metrics["mIoU"]
            for step in self._manager.all_steps()
            if (metrics := self._manager.metrics(step))
        }
        return max(scored, key=lambda step: scored[step]) if scored else self.latest_step()

    def save(self, step: int, state: Any, *, mean_iou: float | None = None) -> None:
        """Starts to save in the background; a step that is there already is left as it is."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), model=ocp.args.JsonSave(self._model)
            ),
            metrics=None if mean_iou is None else {"mIoU": mean_iou},
        )

    def restore(self, step: int, like: State, sharding: Sharding) -> State:
        """Reads the state of a step onto the devices of `sharding`, whatever it was saved from.

        Args:
            step: one that is there.
            like: a state (or its shapes) of the same structure.
            sharding: where every array goes.

        Raises:
            UserError: the checkpoint is of another network, naming the fields that differ.
        """
        self._check_model(step)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        return self._manager.restore(step, args=args)["state"]

    def _check_model(self, step: int) -> None:
        args = ocp.args.Composite(model=ocp.args.JsonRestore())
        saved = self._manager.restore(step, args=args)["model"]
        different = [
            f"{field} is {saved.get(field)!r} there and {value!r} in this configuration"
            for field, value in self._model.items()
            if saved.get(field) != value
        ]
        if different:
            raise UserError(
                f"the checkpoint of step {step} in {self._directory} is of another model: "
                + "; ".join(different)
                + ". Choose the configuration that it was trained with, or another --workdir."
            )

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _mean_iou(metrics: Mapping[str, float]) -> float:
    return metrics["mIoU"]


def _as_json(model: ModelConfig) -> dict[str, Any]:
    """The fields that decide the parameters and what they compute, flat, as JSON returns them."""
    flat = {
        **{f"backbone.{name}": value for name, value in dataclasses.asdict(model.backbone).items()},
        **{f"head.{name}": value for name, value in dataclasses.asdict(model.head).items()},
        "align_corners": model.align_corners,
    }
    del flat["head.dropout"], flat["head.tied_init"]
    return json.loads(json.dumps(flat))
