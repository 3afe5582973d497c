"""What shows a run's curves and pictures, each chosen by its name in a table."""

import contextlib
import csv
import dataclasses
import json
import math
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tmanet_jax.data.files import write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.fields import Checked, field
from tmanet_jax.run_file import CURVES_COLUMNS, CURVES_FILE


@dataclasses.dataclass(frozen=True)
class LogConfig(Checked):
    """What a run tells while it trains."""

    every: int = field(50, "between lines of the log and points of the curves", unit="steps", low=1)
    to: tuple[str, ...] = field(
        ("tensorboard", "csv"), "what shows curves and pictures", choices=lambda: tuple(LOGGERS)
    )


class Logger(Protocol):
    """Takes what a run has to show while it trains."""

    def text(self, name: str, markdown: str) -> None:
        """Once, before the first step."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves."""

    def picture(self, step: int, name: str, picture_HxWx3: np.ndarray) -> None:
        """RGB uint8."""

    def close(self) -> None:
        """Writes what is not written yet."""


class TensorBoard:
    """Curves and pictures in `WORKDIR/tensorboard`.

    Args:
        workdir: of the run.
        first_step: where the run begins; curves of a stopped run beyond it are dropped.
    """

    def __init__(self, workdir: Path, first_step: int):
        self._writer = _summary_writer()(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def text(self, name: str, markdown: str) -> None:
        """Under its name."""
        self._writer.add_text(name, markdown)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve for each name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture_HxWx3: np.ndarray) -> None:
        """RGB uint8."""
        self._writer.add_image(name, picture_HxWx3, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is not written yet."""
        self._writer.close()


def _summary_writer() -> Any:
    """tensorboardX's; it would import torch, for seconds, where that is installed."""
    is_hidden = "torch" not in sys.modules
    if is_hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        from tensorboardX import SummaryWriter
    finally:
        if is_hidden:
            del sys.modules["torch"]
    return SummaryWriter


class CSV:
    """Points of curves in `WORKDIR/curves.csv`, a line each: step, name, value.

    Args:
        workdir: of the run.
        first_step: where the run begins; points of a stopped run beyond it are dropped.
    """

    def __init__(self, workdir: Path, first_step: int):
        path = workdir / CURVES_FILE
        lines = path.read_text().splitlines() if path.exists() else [",".join(CURVES_COLUMNS)]
        kept = lines[:1] + [line for line in lines[1:] if _step_of(line) <= first_step]
        write_whole(path, "".join(f"{line}\n" for line in kept).encode())
        self._file = path.open("a", newline="")
        self._lines = csv.writer(self._file, lineterminator="\n")

    def text(self, name: str, markdown: str) -> None:
        """Is no point of a curve."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A line for each name."""
        self._lines.writerows((step, name, value) for name, value in values.items())
        self._file.flush()

    def picture(self, step: int, name: str, picture_HxWx3: np.ndarray) -> None:
        """Is no point of a curve."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class WandB:
    """Curves and pictures as a run of Weights & Biases; its environment variables hold.

    A run that goes on goes on there as well: nothing can be dropped there, so points beyond its
    checkpoint, which were sent before, are not sent again.

    Args:
        workdir: of the run; with WANDB_MODE=offline all stays in `WORKDIR/wandb`.
        first_step: where the run begins.
    """

    def __init__(self, workdir: Path, first_step: int):
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "config.log.to names 'wandb', which is not installed: "
                "pip install -r requirements-wandb.txt."
            ) from error
        name_there = workdir / "wandb_id"
        if not name_there.exists():
            write_whole(name_there, uuid.uuid4().hex.encode())
        self._picture = wandb.Image
        self._run = wandb.init(
            dir=workdir,
            project=os.environ.get("WANDB_PROJECT", "tmanet"),
            name=workdir.name,
            id=name_there.read_text(),
            resume="allow",
        )
        self._run.define_metric("*", step_metric="step")
        self._sent = workdir / "wandb_sent.json"
        self._newest: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):  # none yet, or torn
            self._newest = json.loads(self._sent.read_text())

    def text(self, name: str, markdown: str) -> None:
        """Into the run's configuration."""
        self._run.config.update({name: markdown}, allow_val_change=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve for each name."""
        self._send(step, values)

    def picture(self, step: int, name: str, picture_HxWx3: np.ndarray) -> None:
        """RGB uint8."""
        self._send(step, {name: self._picture(picture_HxWx3)})

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        new = {name: values[name] for name in values if step > self._newest.get(name, -1)}
        if new:
            self._run.log({"step": step, **new})
            self._newest |= dict.fromkeys(new, step)
            write_whole(self._sent, json.dumps(self._newest).encode())

    def close(self) -> None:
        """Sends what is not sent yet."""
        self._run.finish()


def _step_of(line: str) -> float:
    """Of a line of points; beyond all of them where a run that was killed left half of one."""
    step, *rest = line.split(",")
    return int(step) if step.isdecimal() and len(rest) >= 2 else math.inf


LOGGERS: dict[str, Callable[[Path, int], Logger]] = {
    "tensorboard": TensorBoard,
    "csv": CSV,
    "wandb": WandB,
}
"""What `config.log.to` chooses from, each opened with the workdir and the first step."""
