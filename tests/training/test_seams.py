"""A loss, an optimiser, a schedule and a logger of one's own train through the tables."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.made import tiny_runs
from tests.made.small_networks import untrained
from tests.training.test_step import SOON_COMPILED, noise
from tmanet_jax import settings
from tmanet_jax.errors import UserError
from tmanet_jax.models.losses import LOSSES, LossConfig
from tmanet_jax.parallel.sharding import make_mesh, put_batch, replicated
from tmanet_jax.training.loggers import LOGGERS
from tmanet_jax.training.logs import RunLog
from tmanet_jax.training.optimizer import OPTIMIZERS, SCHEDULES, OptimizerConfig, make_schedule
from tmanet_jax.training.setup import initial_state
from tmanet_jax.training.step import TrainState, compile_train_step


def squared_error(
    logits_BxHxWxC: jax.Array, labels_BxHxW: jax.Array, config: LossConfig
) -> jax.Array:
    one_hot_BxHxWxC = jax.nn.one_hot(labels_BxHxW, logits_BxHxWxC.shape[-1])
    return ((jax.nn.softmax(logits_BxHxWxC) - one_hot_BxHxWxC) ** 2).mean()


def signs(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(schedule))


def halving(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    return lambda step: config.learning_rate * 0.5 ** jnp.asarray(step, jnp.float32)


class Lines:
    def __init__(self, workdir: Path, first_step: int):
        self.path = workdir / "lines.txt"

    def text(self, name: str, markdown: str) -> None:
        self.path.write_text(f"{name}\n")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(f"{step} {dict(values)}\n")

    def picture(self, step: int, name: str, picture_HxWx3: np.ndarray) -> None:
        self.scalars(step, {name: float(picture_HxWx3.mean())})

    def close(self) -> None:
        self.scalars(-1, {})


def trained(num_steps: int = 2, **fields: Any) -> list[TrainState]:
    """The states of a run's first steps, as its configuration chooses."""
    config = tiny_runs.config(Path("nowhere"), optimizer__warmup_steps=0, **fields)
    run = settings.from_config(config)
    recipe, state = initial_state(run, untrained(SOON_COMPILED), class_weights=None)
    mesh = make_mesh(jax.devices()[:1])
    state = jax.device_put(state, replicated(mesh))  # as the step gives it: it is traced once
    step, batch = compile_train_step(recipe, mesh), put_batch(noise(2), mesh)
    states = [jax.tree.map(np.array, state)]
    for _ in range(num_steps):
        state, metrics = step(state, batch)
        assert np.isfinite(metrics.losses.total)
        states.append(jax.tree.map(np.array, state))
    return states


def largest_change(before: TrainState, after: TrainState) -> float:
    changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, after.params)
    return float(max(jax.tree.leaves(changes)))


def test_a_loss_an_optimiser_and_a_schedule_of_ones_own_train(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LOSSES, "squared_error", squared_error)
    monkeypatch.setitem(OPTIMIZERS, "signs", signs)
    monkeypatch.setitem(SCHEDULES, "halving", halving)
    states = trained(
        loss__name="squared_error",
        optimizer__name="signs",
        optimizer__schedule="halving",
        optimizer__learning_rate=0.01,
    )
    assert largest_change(*states[:2]) == pytest.approx(0.01, rel=1e-4)
    assert largest_change(*states[1:]) == pytest.approx(0.005, rel=1e-4)


def test_adamw_moves_each_parameter_by_about_the_learning_rate() -> None:
    with jax.numpy_dtype_promotion("standard"):  # optax takes 1 - beta to a power of int32
        states = trained(optimizer__name="adamw", optimizer__learning_rate=0.01)
    assert largest_change(*states[:2]) == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        (
            "loss__name",
            "focal",
            "config.loss.name must be one of 'cross_entropy', 'ohem', 'dice', 'lovasz', not",
        ),
        ("optimizer__name", "lion", "config.optimizer.name must be one of 'sgd', 'adamw'"),
        ("optimizer__schedule", "step", "config.optimizer.schedule must be one of 'poly'"),
        ("log__to", ("paper",), "config.log.to must be names among 'tensorboard'"),
    ],
)
def test_what_no_table_lists_is_told_with_what_it_lists(field: str, value: Any, known: str) -> None:
    with pytest.raises(UserError, match=known):
        settings.from_config(tiny_runs.config(Path("nowhere"), **{field: value}))


def test_the_warm_up_lies_over_any_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "halving", halving)
    config = OptimizerConfig(schedule="halving", learning_rate=1.0, warmup_steps=2)
    assert [float(make_schedule(config, 9)(it)) for it in range(3)] == [0.5, 0.5, 0.25]


def test_a_workdir_that_is_removed_is_told_at_the_next_line_of_the_log(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    workdir.mkdir()
    with RunLog(workdir, 0, ()) as log:
        log.scalars(3, {"loss": 0.5})
        shutil.rmtree(workdir)
        with pytest.raises(UserError, match="was removed; the run had come to step 4"):
            log.scalars(4, {"loss": 0.5})


def test_curves_go_to_a_file_of_lines_from_where_a_run_goes_on(tmp_path: Path) -> None:
    for first_step in (0, 3):
        with RunLog(tmp_path, first_step, ("csv",)) as log:
            for step in (3, 4):
                log.scalars(step, {"eval/IoU_a,b": 0.5, "loss": step + first_step})
        with (tmp_path / "curves.csv").open("a") as file:
            file.write("2,los")  # as a run that is killed leaves it
    expected = [
        "step,name,value",
        '3,"eval/IoU_a,b",0.5',
        "3,loss,3",
        '3,"eval/IoU_a,b",0.5',
        "3,loss,6",
    ]
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines[:5] == expected


def test_tensorboard_does_not_import_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("torch", "tensorboardX"):
            monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torch.py").write_text("raise AssertionError('torch is imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with RunLog(tmp_path, 0, ("tensorboard",)) as log:
        log.scalars(3, {"loss": 0.5})
    assert "torch" not in sys.modules


def test_without_its_library_a_logger_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-wandb\.txt"):
        LOGGERS["wandb"](tmp_path, 0)


def test_a_logger_of_ones_own_takes_what_a_run_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOGGERS, "lines", Lines)
    with RunLog(tmp_path, 0, ("lines",)) as log:
        log.scalars(3, {"loss": 0.5})
        log.picture(4, "clip", np.full((2, 2, 3), 7, np.uint8))
    lines = (tmp_path / "lines.txt").read_text().splitlines()
    assert lines == ["3 {'loss': 0.5}", "4 {'clip': 7.0}", "-1 {}"]
    assert not (tmp_path / "tensorboard").exists()
