"""What a run tells: a log file, TensorBoard's curves and pictures, and the terminal."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from tensorboardX import SummaryWriter

from tmanet_jax.parallel import distributed
from tmanet_jax.run_description import RunDescription


class RunLog:
    """Log of one run; a context manager.

    Writes `train.log` and `tensorboard/` in the workdir. Messages also go to the terminal, above
    the progress bar. Of several processes the first one writes, and the others do nothing here.

    Args:
        workdir: of the run.
        first_step: where the run begins; curves of a stopped run beyond it are dropped.
    """

    def __init__(self, workdir: Path, first_step: int):
        self._logger = logging.getLogger(f"tmanet_jax.run.{workdir}")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        writes = distributed.is_first()
        self._file = logging.FileHandler(workdir / "train.log") if writes else logging.NullHandler()
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._logger.addHandler(self._file)
        self._tensorboard = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=first_step + 1, write_to_disk=writes
        )

    def message(self, text: str) -> None:
        """To the terminal and the file."""
        distributed.tell(text)
        self._logger.info(text)

    def description(self, description: RunDescription) -> None:
        """What the run is: to the file and, with its configuration, to TensorBoard."""
        self._logger.info("%s", description)
        content = json.dumps(description.to_json(), indent=2)
        self._tensorboard.add_text("run", f"```json\n{content}\n```")

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """To TensorBoard."""
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """To the curves and, as one line, to the file."""
        self.curves(step, values)
        self._logger.info(
            "step %d  %s", step, "  ".join(f"{name} {value:.5g}" for name, value in values.items())
        )

    def picture(self, step: int, name: str, picture_HxWx3: np.ndarray) -> None:
        """RGB uint8, to TensorBoard."""
        self._tensorboard.add_image(name, picture_HxWx3, step, dataformats="HWC")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._logger.error("stopped: %s: %s", type(error).__name__, error)
        self._tensorboard.close()
        self._logger.removeHandler(self._file)
        self._file.close()
