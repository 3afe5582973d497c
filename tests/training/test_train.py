"""Parts of training that a whole run would not show wrong: weights, warm-up, watch, first keys."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_prep.records.writer import write_records
from tests.made import tiny_runs
from tests.made.small_clips import NoiseClip, plan_of, write_noise
from tests.made.small_networks import untrained
from tmanet_jax import settings
from tmanet_jax.data.classes import CITYSCAPES, numbered_classes
from tmanet_jax.data.clips import Clip
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.data.samples import Batch
from tmanet_jax.errors import UserError
from tmanet_jax.models.losses import Losses
from tmanet_jax.models.tma_head import TMAHead, TMAHeadConfig
from tmanet_jax.training import loop, setup
from tmanet_jax.training.divergence import LossWatch
from tmanet_jax.training.loop import train
from tmanet_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from tmanet_jax.training.setup import beginning, class_weights
from tmanet_jax.training.step import StepMetrics, TrainState, if_finite
from tmanet_jax.weights.load import InitConfig, LoadReport


def test_rare_classes_weigh_more_and_the_mean_pixel_weighs_one(tmp_path: Path) -> None:
    source = write_noise(tmp_path, 2)
    labels = [source.read_encoded(index).decode_labels() for index in range(2)]
    pixels_C = np.bincount(np.ravel(labels), minlength=19)
    weights = class_weights(source, power=0.5)
    assert weights is not None
    np.testing.assert_allclose(
        np.array(weights) / weights[0], (pixels_C / pixels_C[0]) ** -0.5, rtol=1e-6
    )
    assert (np.array(weights) * pixels_C).sum() / pixels_C.sum() == pytest.approx(1.0)
    assert class_weights(source, power=0.0) is None


def test_the_warm_up_rises_to_the_schedule_and_leaves_it() -> None:
    plain = make_schedule(OptimizerConfig(), 100)
    warm = make_schedule(OptimizerConfig(warmup_steps=10), 100)
    factors = [float(warm(step) / plain(step)) for step in range(12)]
    np.testing.assert_allclose(factors, [*np.arange(1, 11) / 10, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_encoders_begin_equal_and_are_arrays_of_their_own(tied: bool) -> None:
    head = TMAHead(6, TMAHeadConfig(num_memory=2, tied_init=tied), rngs=nnx.Rngs(0))
    query, *memory = (
        jax.tree.leaves(nnx.state(encoder, nnx.Param))
        for encoder in (head.query_encoder, *head.memory_encoders)
    )
    for encoder in memory:
        equal = [bool((a == b).all()) for a, b in zip(query, encoder, strict=True)]
        assert all(equal) == tied
        assert all(a is not b for a, b in zip(query, encoder, strict=True))


class StepOfClips(NamedTuple):
    """What a step gives to the watch."""

    batch: Batch
    metrics: StepMetrics


def step_with(loss: float, grad_norm: float, index: int) -> StepOfClips:
    empty = np.zeros(0)
    value = jnp.asarray(loss)
    return StepOfClips(
        Batch(empty, empty, empty, np.array([index])),
        StepMetrics(Losses(value, value, value, value), jnp.asarray(grad_norm)),
    )


class NoCheckpoints:
    """Step 7 is written; a lost one goes to lost/."""

    def newest_in_directory(self) -> int:
        return 7

    def set_lost_aside(self, step: int) -> Path:
        return Path("lost") / str(step)


class Curves:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.steps.append(step)


@pytest.mark.parametrize(("loss", "grad_norm"), [(np.nan, 1.0), (1.0, np.inf)])
def test_the_watch_names_step_clips_and_what_is_safe(
    tmp_path: Path, loss: float, grad_norm: float
) -> None:
    source, curves = write_noise(tmp_path, 3), Curves()
    watch = LossWatch(source, NoCheckpoints(), lambda step: 0.1, curves, max_skipped=1)  # type: ignore[arg-type]  # stand-ins
    watch.add(0, *step_with(1.0, 1.0, index=0))
    assert "loss 1.000" in watch.log_newest()
    assert curves.steps == [1]
    watch.add(1, *step_with(loss, grad_norm, index=2))
    watch.check_all()
    (skipped,) = curves.messages
    assert all(words in skipped for words in ("Step 2: ", "noise_000002", "1 of at most 1"))
    watch.add(2, *step_with(loss, grad_norm, index=1))
    with pytest.raises(UserError, match=r"Step 3: .*noise_000001.*checkpoint is of step 7"):
        watch.check_all()


def test_steps_that_fail_whatever_their_clips_set_the_lost_checkpoint_aside(
    tmp_path: Path,
) -> None:
    source, curves = write_noise(tmp_path, 3), Curves()
    watch = LossWatch(source, NoCheckpoints(), lambda step: 0.1, curves, max_skipped=2)  # type: ignore[arg-type]  # stand-ins
    watch.add(9, *step_with(1.0, 1.0, index=0))
    watch.add(10, *step_with(np.nan, 1.0, index=0))
    watch.check_all()
    assert watch.num_skipped_last == 1
    watch.add(11, *step_with(1.0, 1.0, index=0))
    watch.check_all()
    assert watch.num_skipped_last == 0
    for step in (12, 13):
        watch.add(step, *step_with(np.nan, 1.0, index=1))
    with pytest.raises(UserError) as refusal:
        watch.check_all()
    assert "2 steps since step 13" in str(refusal.value)
    assert f"kept as {Path('lost') / '12'}" in str(refusal.value)
    assert "checkpoint is of step 7: the next start goes on from there" in str(refusal.value)


@pytest.mark.parametrize(
    ("loss", "grad_norm", "is_finite"),
    [(1.0, 1.0, True), (np.nan, 1.0, False), (1.0, np.inf, False)],
)
def test_a_step_that_is_not_finite_changes_counters_alone(
    loss: float, grad_norm: float, is_finite: bool
) -> None:
    """The step's counter and the schedule's: the learning rate follows the step."""
    optimizer = make_optimizer(OptimizerConfig(), num_steps=10)
    weights = {"kernel": jnp.ones(3)}

    def state(value: float, step: int) -> TrainState:
        params, statistics = (jax.tree.map(lambda x: x * value, weights) for _ in range(2))
        *rest, schedule = optimizer.init(params)
        opt_state = (*rest, schedule._replace(count=jnp.asarray(step)))
        return TrainState(params, statistics, opt_state, jnp.asarray(step))

    old, new = state(1.0, step=4), state(np.nan if np.isnan(loss) else 2.0, step=5)
    kept = jax.jit(if_finite)(step_with(loss, grad_norm, index=0).metrics, new, old)
    expected = new if is_finite else state(1.0, step=5)
    jax.tree.map(np.testing.assert_array_equal, kept, expected)


@pytest.mark.parametrize("kind", ["checkpoint", "pretrained"])
def test_a_file_of_weights_that_is_missing_is_told_before_any_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(setup, "random_model", lambda settings: pytest.fail("drawn"))
    fields = {f"init__{kind}": str(tmp_path / "none.safetensors")}
    run = settings.from_config(tiny_runs.config(tmp_path, **fields))
    with pytest.raises(UserError, match=r"no file of weights at .*none\.safetensors"):
        setup.first_network(run, tmp_path / "run", numbered_classes(2))


def test_a_run_that_goes_on_draws_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "random_model", lambda settings: pytest.fail("drawn"))
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    run = settings.from_config(tiny_runs.config(tmp_path))
    model, told = setup.first_network(run, tmp_path, numbered_classes(2))
    assert (model.config, told) == (run.model, ())


@dataclasses.dataclass(frozen=True)
class RoadClip(NoiseClip):
    """Nothing but the first class."""

    def load(self) -> Clip:
        return dataclasses.replace(super().load(), labels_HxW=np.zeros(self.size, np.uint8))


def test_a_doubt_about_labels_stands_in_the_log_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of([RoadClip(0)])
    write_records(tmp_path / "records", CITYSCAPES, 3, {"train": plan, "val": plan})
    run = settings.from_config(tiny_runs.config(tmp_path / "records"))
    monkeypatch.setattr(setup, "random_model", lambda settings: untrained(settings.model))

    def stop(source: ClipRecords, power: float) -> None:
        raise UserError("What follows the messages is of no interest here.")

    monkeypatch.setattr(loop, "class_weights", stop)
    with pytest.raises(UserError, match="no interest"):
        train(run, tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "Warning: no pixel of train is sidewalk, " in log


def test_random_weights_are_warned_of_where_a_published_score_needs_a_backbone() -> None:
    assert beginning(InitConfig(), None) == "begins from random weights"
    told = beginning(InitConfig(published="resnet50_v1c-2cccc1ad.pth"), None)
    assert told.startswith("WARNING: begins from random weights.")
    assert "resnet50_v1c-2cccc1ad.pth: --config.init.pretrained=FILE" in told
    loaded = LoadReport("backbone.pth", ("conv1.weight",), (), ())
    told = beginning(InitConfig(pretrained="backbone.pth", published="any"), loaded)
    assert told.startswith("begins from a file: loaded 1 tensors of backbone.pth")
