"""The smallest run that has every part: a street of a few clips, a network of a few channels."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict
from orbax import checkpoint as ocp

from data_prep.street.demo import ensure_records
from tests import in_process, processes
from tmanet_jax.command_line import read_config
from tmanet_jax.data.config import RenderConfig

NUM_TRAIN, NUM_EVAL = 6, 5
WIDTH = 4

FLAGS = (
    "--config=configs/demo.py",
    "--config.batch_size=2",
    "--config.num_steps=8",
    f"--config.model.width={WIDTH}",
    "--config.model.blocks=(1,1,1,1)",
    "--config.model.key_channels=4",
    "--config.model.value_channels=8",
    "--config.model.head_channels=8",
    "--config.model.aux_channels=8",
    "--config.data.render=False",
    "--config.data.crop_size=(48,80)",
    "--config.optimizer.warmup_steps=2",
    "--config.model.neighbourhood=None",
    "--config.eval.mode=slide",
    "--config.eval.crop_size=(48,80)",
    "--config.eval.every=4",
    "--config.eval.num_overlays=2",
    "--config.checkpoint.every=2",
    "--config.log.every=1",
)


RENDER = (
    "--config.data.render=True",
    "--config.data.render_size=(64,128)",
    f"--config.data.render_train={NUM_TRAIN}",
    f"--config.data.render_eval={NUM_EVAL}",
)
"""Flags with which a run renders what `render_records` does."""


def rendered_here() -> AbstractContextManager[object]:
    """What is rendered is rendered in this process: others would import everything again."""
    return mock.patch.object(os, "cpu_count", return_value=1)


def render_records(data_dir: Path) -> None:
    """Records with four memory frames."""
    with rendered_here():
        ensure_records(data_dir, RenderConfig(True, (64, 128), NUM_TRAIN, NUM_EVAL))


def command(data_dir: Path, *arguments: str) -> list[str]:
    """The command line of a tiny run; later arguments take the place of earlier ones."""
    words = (*FLAGS, f"--config.data.dir={data_dir}", *arguments)
    return [sys.executable, "run.py", *{word.split("=")[0]: word for word in words}.values()]


def config(data_dir: Path, **fields: object) -> ConfigDict:
    """The configuration of a tiny run, for programs in this process.

    Args:
        data_dir: the records.
        **fields: other values, e.g. eval__ratios=(0.5, 1.0).
    """
    values = read_config("demo", FLAGS[1:]).config
    values.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in fields.items()}
    )
    values.data.dir = str(data_dir)
    return values


def called(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`run.py` in this process, seconds sooner."""
    return in_process.called(command(data_dir, *arguments)[2:])


def run(data_dir: Path, *arguments: str, num_devices: int = 1) -> subprocess.CompletedProcess[str]:
    """`run.py` in a process of its own."""
    return subprocess.run(
        command(data_dir, *arguments),
        cwd=processes.PROJECT,
        env=processes.environment(num_devices),
        capture_output=True,
        text=True,
        timeout=processes.SECONDS,
        check=False,
    )


@contextlib.contextmanager
def started(
    data_dir: Path, workdir: Path, *arguments: str, output: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The same, while it runs."""
    words = command(data_dir, f"--workdir={workdir}", *arguments)
    with processes.started(words, output) as process:
        yield process


def saved_state(workdir: Path, step: int) -> list[np.ndarray]:
    """The arrays of a checkpoint. It warns that they come to one device."""
    checkpointer = ocp.PyTreeCheckpointer()
    return jax.tree.leaves(checkpointer.restore(workdir / "checkpoints" / str(step) / "state"))


def assert_same_state(workdir: Path, other: Path, step: int) -> None:
    """Bit for bit."""
    for got, expected in zip(saved_state(workdir, step), saved_state(other, step), strict=True):
        np.testing.assert_array_equal(got, expected)
