"""Checkpoints of training: written in the background, kept by age and by score.

A checkpoint holds the training state with a checksum of each array, the network's configuration,
what decides the stream of batches, and what the run says of itself. Its step is the position in
that stream: the pipeline is a function of the step.
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding
from orbax.checkpoint.checkpoint_manager import METRIC_ITEM_NAME
from orbax.checkpoint.checkpoint_managers import preservation_policy

from tmanet_jax.checkpoints.arrays import by_name, checksums_of, part_of
from tmanet_jax.checkpoints.damage import (
    EMA,
    Newest,
    best_step,
    damage_of,
    free_name,
    has_ema,
    mean_iou,
    read_checked,
    reason_of,
    set_damaged_aside,
    steps_in,
)
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.files import why_not_written
from tmanet_jax.errors import UserError, counted
from tmanet_jax.models.tmanet import ModelConfig, with_aux_of_its_own
from tmanet_jax.parallel import distributed

State = TypeVar("State")

CHECKPOINTS_DIR = "checkpoints"
"""In the workdir of a run."""


@dataclasses.dataclass(frozen=True)
class BatchStream:
    """What decides which clips a step trains on; a run that goes on must not change it.

    Attributes:
        seed: of the shuffling and the augmentation.
        batch_size: clips a step, over all processes.
        num_clips: in the training split.
        memory_range: frames before the query that memory frames are drawn from.
        augmentation: of the clips.
        records: fingerprint of the training split.
    """

    seed: int
    batch_size: int
    num_clips: int
    memory_range: int
    augmentation: Augmentation
    records: str


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: made when it is not there. For a run that trains, damaged checkpoints are set
            aside first.
        keep: how many of the newest are kept; the best by mIoU is kept besides.
        model: the configuration of the network whose states these are.
        stream: of a run that trains, alone in its workdir; None reads only, whatever stream it was.
        about: what the run says of itself, as JSON, kept in each checkpoint.

    Attributes:
        set_aside: the damaged checkpoints that were.

    Raises:
        UserError: what is there cannot be listed, or no checkpoint is whole.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        model: ModelConfig,
        stream: BatchStream | None = None,
        about: Mapping[str, Any] | None = None,
    ):
        newest = Newest({}, ()) if stream is None else set_damaged_aside(directory)
        self.set_aside = newest.damaged
        self._read_already = dict(newest.arrays)
        self._directory = directory
        self._model = _model_fields(model)
        self._added_since = _fields_added_since(model)
        self._stream = {} if stream is None else _flat(dataclasses.asdict(stream))
        self._about = about or {}
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
            cleanup_tmp_directories=stream is not None,  # what a killed run left half-written
        )
        self._being_written: int | None = None
        try:
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        except Exception as error:  # whatever torn bytes make of their reader
            damaged = [step for step in steps_in(directory) if damage_of(directory / str(step))]
            raise UserError(
                f"The checkpoints in {directory} cannot be listed ({reason_of(error)}). Damaged "
                f"are those of steps {damaged}: move them away. Mode train does so with the newest."
            ) from error

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; `wait` tells whether it could be written."""
        return self._manager.latest_step()

    def newest_in_directory(self) -> int | None:
        """Step of the newest checkpoint that is written and was not set aside."""
        return next(iter(steps_in(self._directory)), None)

    def is_scored(self, step: int) -> bool:
        """Whether a checkpoint has a score, be it nan: no pixel of the split has a label."""
        return bool(self._manager.metrics(step))

    def mean_iou(self, step: int) -> float | None:
        """The score of a checkpoint; None if it has none, or nan."""
        return mean_iou(self._directory / str(step))

    def about(self, step: int) -> Mapping[str, Any]:
        """What the run said of itself then; empty in checkpoints of earlier versions."""
        return self._saved(step, "about")

    def best_step(self) -> int:
        """Step of the checkpoint with the highest mIoU, or the newest if none was scored.

        Raises:
            UserError: there is no checkpoint.
        """
        best = best_step(self._directory)
        if best is None:
            raise UserError(f"There is no checkpoint in {self._directory}: train first.")
        return best

    def save(self, step: int, state: Any) -> None:
        """Starts to save in the background; a step that is there already is left as it is.

        Raises:
            UserError: this one, or the one before, cannot be written.
        """
        if step in self._manager.all_steps():
            return
        self.wait()
        self._being_written = step
        with self._telling_what_is_safe():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    model=ocp.args.JsonSave(self._model),
                    stream=ocp.args.JsonSave(self._stream),
                    about=ocp.args.JsonSave(self._about),
                    checksums=ocp.args.JsonSave(checksums_of(state)),
                ),
            )

    def add_score(self, step: int, mean_iou: float) -> None:
        """Scores a checkpoint once it is written; one that has a score keeps it.

        Raises:
            UserError: it cannot be written.
        """
        self.wait()
        if self.is_scored(step):
            return
        self._being_written = step
        path = self._directory.absolute() / str(step) / METRIC_ITEM_NAME
        with (
            self._telling_what_is_safe(),
            ocp.Checkpointer(ocp.JsonCheckpointHandler(METRIC_ITEM_NAME)) as score,
        ):
            score.save(path, ocp.args.JsonSave({"mIoU": mean_iou}))
            self._manager.reload()

    def set_lost_aside(self, step: int) -> Path | None:
        """Renames the checkpoint of a step whose network cannot be trained on, if there is one.

        Of several processes the first one does so. Nothing can be saved afterwards.
        """
        self.wait()
        path = self._directory / str(step)
        if not path.is_dir():
            return None
        aside = free_name(path.with_name(f"{step}.lost"))
        if distributed.is_first():
            path.rename(aside)
        return aside

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
            UserError: something cannot be written.
        """
        with self._telling_what_is_safe():
            self._manager.wait_until_finished()
        self._being_written = None

    @contextlib.contextmanager
    def _telling_what_is_safe(self) -> Iterator[None]:
        """Makes an error of writing a UserError; a full disk is a ValueError to tensorstore."""
        try:
            if not self._directory.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            yield
        except (OSError, ValueError) as error:
            whole = ", ".join(map(str, reversed(steps_in(self._directory)))) or "none"
            step = self._being_written
            raise UserError(
                f"The {'next checkpoint' if step is None else f'checkpoint of step {step}'} cannot "
                f"be written to "
                f"{self._directory}: {why_not_written(error)}. Started again, the run goes on from "
                f"the newest whole checkpoint. Whole are those of step: {whole}."
            ) from error

    def restore(self, step: int, like: State, sharding: Sharding) -> State:
        """Reads the state of a step onto the devices of `sharding`, whatever it was saved from.

        Args:
            step: one that is there.
            like: a state (or its shapes) of the same structure, or a part of it (`params`); of the
                other parts nothing is read, and they may be any.
            sharding: where every array goes.

        Raises:
            UserError: the checkpoint is of another network, of another stream of batches or of
                another state, naming what differs; or it is damaged.
        """
        path = self._directory / str(step)
        wanted = by_name(like)
        parts = {part_of(name) for name in wanted}
        arrays = self._read_already.pop(step, None)
        if arrays is None:
            arrays, damage = read_checked(path, parts)
            if damage is not None:
                raise UserError(
                    f"The checkpoint {path} is damaged ({damage}). Mode train sets a newest one "
                    "that is damaged aside and goes on from the one before; or move it away."
                )
        fields = with_aux_of_its_own(unflatten_dict(self._saved(step, "model"), sep="."))
        saved = {**self._added_since, **_flat(fields)}
        self._check_fields(step, "model", saved, self._model)
        stream = {**self._stream, **self._saved(step, "stream")}
        self._check_fields(step, "stream of batches", stream, self._stream)
        _check_same_arrays(
            path,
            {name: _kind(array) for name, array in arrays.items() if part_of(name) in parts},
            {name: _kind(leaf) for name, leaf in wanted.items()},
        )
        on_devices = [
            jax.make_array_from_callback(leaf.shape, sharding, arrays[name].__getitem__)
            for name, leaf in wanted.items()
        ]
        return jax.tree.unflatten(jax.tree.structure(like), on_devices)

    def has_ema(self, step: int) -> bool:
        """Whether a checkpoint holds a moving average of its weights."""
        return has_ema(self._directory / str(step))

    def restore_scored(self, step: int, like: State, sharding: Sharding) -> State:
        """The weights of a step that were scored: their moving average, if there is one.

        Args:
            step: one that is there.
            like: the network's weights (or their shapes), by the names that a state has them.
            sharding: where every array goes.

        Raises:
            UserError: as `restore` does.
        """
        if self.has_ema(step):
            return self.restore(step, {EMA: like}, sharding)[EMA]
        return self.restore(step, like, sharding)

    def _saved(self, step: int, item: str) -> dict[str, Any]:
        """A file of JSON in a checkpoint; empty if the checkpoint is older than its kind."""
        path = self._directory / str(step) / item / "metadata"
        return json.loads(path.read_text()) if path.exists() else {}

    def _check_fields(
        self, step: int, what: str, saved: Mapping[str, Any], wanted: Mapping[str, Any]
    ) -> None:
        different = [
            f"{field} is {saved.get(field)!r} there and {value!r} in this configuration"
            for field, value in wanted.items()
            if saved.get(field) != value
        ]
        if different:
            raise UserError(
                f"The checkpoint of step {step} in {self._directory} is of another {what}: "
                + "; ".join(different)
                + ". Choose the configuration that it was trained with, or another --workdir."
            )

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
            UserError: something cannot be written.
        """
        with self._telling_what_is_safe():
            self._manager.close()


def _kind(array: Any) -> str:
    return f"{array.dtype} {tuple(array.shape)}"


def _check_same_arrays(path: Path, saved: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises UserError where arrays are there alone, wanted alone, or of other shapes or types."""
    different = [
        f"{name} is {saved.get(name, 'missing')} there and {wanted.get(name, 'unknown')} here"
        for name in {**wanted, **saved}
        if saved.get(name) != wanted.get(name)
    ]
    if different:
        raise UserError(
            f"The checkpoint {path} holds another state: {different[0]}, one of "
            f"{counted(len(different), 'such array')}. Train with the configuration that it was "
            "trained with, its optimiser too, or choose another --workdir. Modes eval and "
            "consistency read the network alone."
        )


def _mean_iou(metrics: Mapping[str, float]) -> float:
    """A score that can be compared: a split without a labelled pixel has none."""
    return metrics["mIoU"] if math.isfinite(metrics["mIoU"]) else -math.inf


def _model_fields(model: ModelConfig) -> dict[str, Any]:
    """The fields that decide the parameters and what they compute, flat, as JSON returns them."""
    fields = model.fields()
    parts = {
        part: {name: value for name, value in fields[part].items() if name not in _OF_TRAINING}
        for part in ("backbone", "head", "aux")
    }
    return _flat({**parts, "align_corners": model.align_corners})


_OF_TRAINING = ("dropout", "tied_init")
"""Fields of a head that the parameters of a checkpoint do not depend on."""


def _fields_added_since(model: ModelConfig) -> dict[str, Any]:
    """What a checkpoint means that does not say a field: once there were a ResNet and TMA alone."""
    defaults = ModelConfig(type(model.backbone)(), type(model.head)())
    oldest = _model_fields(ModelConfig())
    return _model_fields(defaults) | {name: oldest[name] for name in oldest if "kind" in name}


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted names, with values as they come back from a file of JSON."""
    return json.loads(json.dumps(flatten_dict(fields, sep=".")))
