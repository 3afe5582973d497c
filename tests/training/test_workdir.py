"""A workdir says what it is: its configuration, its weights with their scores, what has changed."""

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import run as program
from tests.made import tiny_runs
from tmanet_jax import inputs, settings
from tmanet_jax.checkpoints.arrays import read_arrays
from tmanet_jax.checkpoints.store import CHECKPOINTS_DIR, Checkpoints
from tmanet_jax.compilation_cache import make_room
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.models.tmanet import ModelConfig
from tmanet_jax.protocol import Origin
from tmanet_jax.scoring.trained_network import load_trained
from tmanet_jax.settings import Settings
from tmanet_jax.training import optimizer
from tmanet_jax.training.loop import train
from tmanet_jax.training.resume import going_on
from tmanet_jax.training.step import init_state
from tmanet_jax.weights import conversion, files
from tmanet_jax.weights.load import InitConfig
from tmanet_jax.workdir import fields_of, read_fields

NUM_STEPS = 4


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "records [1]"
    tiny_runs.render_records(path)
    return path


def words(data_dir: Path, workdir: Path, *arguments: str) -> list[str]:
    short = (f"--config.num_steps={NUM_STEPS}", "--config.eval.every=2")
    return tiny_runs.command(data_dir, f"--workdir={workdir}", *short, *arguments)[1:]


def started(*arguments: str) -> int:
    """`run.py` in this process; its exit status."""
    return program.main(["run.py", *arguments])


@pytest.fixture(scope="module")
def trained(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("trained") / "run#1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["run.py"])
        assert started(*words(data_dir, workdir)[1:]) == 0
    return workdir


@pytest.fixture
def workdir(trained: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return shutil.copytree(trained, tmp_path / "run")


def test_the_workdir_says_what_the_run_is(trained: Path, data_dir: Path) -> None:
    said = json.loads((trained / "config.json").read_text())
    config = tiny_runs.config(data_dir, num_steps=NUM_STEPS, eval__every=2)
    assert said["config"] == fields_of(config)
    assert said["data_dir"] == str(data_dir)
    assert tuple(said["classes"]["names"]) == CITYSCAPES.names
    assert said["command"].startswith("run.py --config=configs/demo.py")
    assert said["versions"]["jax"] == jax.__version__
    log = (trained / "train.log").read_text()
    assert "begins from random weights" in log.split("step 1 ")[0]
    assert said["command"] in log
    assert "time/steps" not in log
    assert json.loads((trained / "metrics.json").read_text())["run"] == "config.json"
    assert "described in config.json" in (trained / "report.html").read_text()


def test_each_file_of_weights_is_of_the_step_that_it_says(trained: Path, data_dir: Path) -> None:
    run = settings.from_config(tiny_runs.config(data_dir))
    checkpoints = Checkpoints(trained / CHECKPOINTS_DIR, keep=2, model=run.model)
    found = {name: files.read(trained / f"{name}.safetensors") for name in ("tmanet", "last")}
    steps = {name: file.origin.step for name, file in found.items() if file.origin is not None}
    assert steps == {"tmanet": checkpoints.best_step(), "last": NUM_STEPS}
    for name, file in found.items():
        assert file.origin is not None
        assert file.origin.mean_iou == checkpoints.mean_iou(steps[name])
        assert file.classes == CITYSCAPES
        state = trained / "checkpoints" / str(steps[name]) / "state"
        saved = dict(read_arrays(state, ["params"]))["params.head.classifier.bias.value"]
        np.testing.assert_array_equal(file.tensors["decode_head.conv_seg.bias"], saved)


def test_a_workdir_and_a_step_of_it_are_read_as_files_of_weights(
    trained: Path, tmp_path: Path
) -> None:
    of_file = files.read(trained / "tmanet.safetensors")
    conversion.convert(trained, tmp_path / "best.safetensors")
    conversion.convert(trained / "checkpoints" / str(NUM_STEPS), tmp_path / "of_step.safetensors")
    for name, expected in (
        ("best", of_file),
        ("of_step", files.read(trained / "last.safetensors")),
    ):
        got = files.read(tmp_path / f"{name}.safetensors")
        assert (got.classes, got.origin) == (expected.classes, expected.origin)
        assert isinstance(got.config, ModelConfig) and isinstance(expected.config, ModelConfig)
        assert got.config.head.num_memory == expected.config.head.num_memory
        assert got.tensors.keys() == expected.tensors.keys()
        jax.tree.map(np.testing.assert_array_equal, got.tensors, expected.tensors)
    with pytest.raises(UserError, match="no run's workdir"):
        files.read(tmp_path)


def test_a_workdir_is_evaluated_without_a_configuration(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best = files.read(workdir / "tmanet.safetensors").origin
    monkeypatch.setattr("sys.argv", ["run.py"])
    (workdir / "metrics.json").unlink()
    assert started("eval", f"--workdir={workdir}", "--config.eval.num_worst=1") == 0
    assert "eval.num_worst is 8 there and 1 here" in capsys.readouterr().out
    scored = json.loads((workdir / "metrics.json").read_text())
    assert best is not None
    assert scored["step"] == best.step
    assert scored["mIoU"] == pytest.approx(best.mean_iou, abs=1e-9)


def test_scoring_reads_the_network_alone_so_that_the_optimiser_may_change(
    workdir: Path, data_dir: Path
) -> None:
    """The newest and best checkpoint is one of Adam, whose state is another than SGD's."""
    run = settings.from_config(tiny_runs.config(data_dir))
    _, adams = init_state(inputs.random_model(run), optax.adam(1e-3))
    with contextlib.closing(
        Checkpoints(workdir / CHECKPOINTS_DIR, keep=2, model=run.model)
    ) as checkpoints:
        checkpoints.save(NUM_STEPS + 1, adams)
        checkpoints.add_score(NUM_STEPS + 1, 1.0)
    trained_network = load_trained(run, workdir, CITYSCAPES, None)
    assert trained_network.step == NUM_STEPS + 1
    jax.tree.map(np.testing.assert_array_equal, trained_network.weights, adams.network)
    with pytest.raises(UserError, match=r"another state: opt_state\..* its optimiser too"):
        train(dataclasses.replace(run, num_steps=NUM_STEPS + 2), workdir)


def test_a_finished_run_is_told_that_nothing_trains(workdir: Path, data_dir: Path) -> None:
    config = tiny_runs.config(
        data_dir, num_steps=NUM_STEPS, eval__every=2, optimizer__learning_rate=0.01
    )
    last = files.read(workdir / "last.safetensors")
    (workdir / "checkpoints" / "2" / "metrics" / "metrics").write_text('{"mIoU": 0.9}')
    train(settings.from_config(config), workdir)
    log = (workdir / "train.log").read_text()
    assert "optimizer.learning_rate is 0.15 there and 0.01 here" in log
    assert "nothing is trained, whatever has changed" in log
    jax.tree.map(
        np.testing.assert_array_equal,
        files.read(workdir / "last.safetensors").tensors,
        last.tensors,
    )
    best = files.read(workdir / "tmanet.safetensors")
    assert best.origin == Origin(step=2, mean_iou=0.9)
    of_step = files.read(workdir / "checkpoints" / "2")
    jax.tree.map(np.testing.assert_array_equal, best.tensors, of_step.tensors)
    assert read_fields(workdir) == fields_of(config)


def test_a_run_goes_on_without_a_configuration(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((workdir / "config.json").read_text())
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert started(f"--workdir={workdir}") == 0
    told = capsys.readouterr().out
    assert f"going on from step {NUM_STEPS} of {NUM_STEPS}" in told
    assert "changed" not in told
    after = json.loads((workdir / "config.json").read_text())
    assert after["config"] == before["config"]


def test_a_damaged_description_of_a_run_is_told(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    for content in ("{", "[]", '{"config": {"seed": "one"}}', '{"config": {"no.such": 1}}'):
        (workdir / "config.json").write_text(content)
        assert started("eval", f"--workdir={workdir}") == 2
        told = capsys.readouterr().err
        assert "config.json is damaged or of another version" in told and "--config" in told


@pytest.fixture(scope="module")
def tiny(data_dir: Path) -> Settings:
    return settings.from_config(tiny_runs.config(data_dir, num_steps=400))


def there(**fields: object) -> dict[str, object]:
    values: dict[str, object] = {"num_steps": 400, "optimizer.learning_rate": 0.15}
    values |= {"optimizer.warmup_steps": 2, "optimizer.frozen": []}  # as JSON has a tuple
    return values | {name.replace("__", "."): value for name, value in fields.items()}


@pytest.mark.parametrize(
    ("step", "changed", "expected"),
    [
        (100, {}, []),
        (100, {"loss.aux_weight": 0.1}, ["loss.aux_weight is 0.1 there and 0.4 here"]),
        (100, {"optimizer.learning_rate": 0.3}, ["The learning rate goes from 0.23"]),
        (200, {"num_steps": 200}, ["(its schedule had ended) to 0.08"]),
        (450, {"num_steps": 500}, ["beyond config.num_steps: nothing is trained"]),
        (400, {"loss.aux_weight": 0.1}, ["nothing is trained, whatever has changed"]),
    ],
)
def test_a_run_that_goes_on_is_told_what_has_changed(
    tiny: Settings, step: int, changed: dict[str, object], expected: list[str]
) -> None:
    here = there() | {"loss.aux_weight": 0.4}
    lines = going_on(step, tiny, here | changed, here)
    assert lines[0] == f"going on from step {step} of 400"
    assert len(lines) == 1 or changed
    assert all(any(text in line for line in lines) for text in expected)


def test_records_have_one_fingerprint_wherever_they_lie_and_another_when_a_shard_differs(
    data_dir: Path, tmp_path: Path
) -> None:
    before = open_clips(data_dir, "train").fingerprint()
    copied = shutil.copytree(data_dir, tmp_path / "copied")
    assert open_clips(copied, "train").fingerprint() == before
    shard = next(copied.glob("*/*.*.*/*train.array_record*"))
    shard.write_bytes(shard.read_bytes() + b"more")
    assert open_clips(copied, "train").fingerprint() != before


def test_a_step_whose_weights_are_not_finite_fails(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss before the update is finite, and no step after it would tell."""
    endless = optax.constant_schedule(float("inf"))
    monkeypatch.setitem(optimizer.SCHEDULES, "poly", lambda config, num_steps: endless)
    config = tiny_runs.config(data_dir, num_steps=1, eval__every=1)
    with pytest.raises(UserError, match=r"weights after step 1 are not finite.*checkpoint is none"):
        train(settings.from_config(config), tmp_path / "run")
    assert not (tmp_path / "run" / "tmanet.safetensors").exists()


def test_help_is_no_error() -> None:
    assert started("--help") == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.eval.ratios=(0.001,)"], "config.eval.ratios must be numbers from 0.0625 to 16"),
        (
            ["--config.eval.ratios=(1000.0,)"],
            "config.eval.ratios must be numbers from 0.0625 to 16",
        ),
        (
            ["--config.data.ratio_range=(0.5,1e9)"],
            "config.data.ratio_range must be two numbers from 0.0625",
        ),
        (["--config.model.width=1000000"], "config.model.width must be a whole number from 2 to"),
        (
            ["--config.num_steps=9223372036854775807"],
            "config.num_steps must be a whole number from 1 to 2147483647",
        ),
        (["--config.optimizer.warmup_steps=9000000000"], "config.optimizer.warmup_steps"),
        (
            ["--config.profile=(100,105)"],
            "config.profile must be the first and the last step of a trace, from 1 to config.num_s",
        ),
        (["--workdir=" + 300 * "a"], "File name too long. Choose another name"),
        (["--workdir=runs/a[1]"], "No checkpoints can be kept in"),
    ],
)
def test_values_beyond_all_measure_are_refused(
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    command = tiny_runs.command(data_dir, f"--workdir={tmp_path / 'run'}", *arguments)[2:]
    assert started(*command) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_old_programs_make_room_in_the_cache(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    make_room(tmp_path, most_bytes=250)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "middle"}
    make_room(tmp_path / "nowhere", most_bytes=0)


def test_a_workdirs_network_is_not_scored_on_other_classes(trained: Path, data_dir: Path) -> None:
    run = settings.from_config(tiny_runs.config(data_dir))
    others = dataclasses.replace(CITYSCAPES, names=("street", *CITYSCAPES.names[1:]))
    with pytest.raises(UserError, match=r"class 0 is 'road' there and 'street' here"):
        load_trained(run, trained, others, None)
    keeps = dataclasses.replace(run, init=InitConfig(classes="keep"))
    assert load_trained(keeps, trained, others, None).step > 0
    assert load_trained(run, trained, CITYSCAPES, None).step > 0
