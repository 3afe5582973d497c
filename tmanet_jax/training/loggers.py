"""What shows a run's curves and pictures, each chosen by its name in a table."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from tmanet_jax.fields import Checked, field


@dataclasses.dataclass(frozen=True)
class LogConfig(Checked):
    """What a run tells while it trains."""

    every: int = field(50, "between lines of the log and points of the curves", unit="steps", low=1)
    to: tuple[str, ...] = field(
        ("tensorboard",), "what shows curves and pictures", choices=lambda: tuple(LOGGERS)
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
        from tensorboardX import SummaryWriter  # seconds, where torch is installed

        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

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


LOGGERS: dict[str, Callable[[Path, int], Logger]] = {"tensorboard": TensorBoard}
"""What `config.log.to` chooses from, each opened with the workdir and the first step."""
