"""Every bad input ends with status 2 and one message: what, where, what to do; nothing is left."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests import processes
from tests.made import tiny_runs
from tests.made.small_clips import damage
from tmanet_jax.data.records import open_clips


def refused(data_dir: Path, workdir: Path, *arguments: str) -> str:
    """The message of a run that must end with status 2."""
    return message_of(called(data_dir, workdir, *arguments))


def called(data_dir: Path, workdir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run in this process."""
    return tiny_runs.called(data_dir, f"--workdir={workdir}", *arguments)


def message_of(done: subprocess.CompletedProcess[str]) -> str:
    """Of what must have ended with status 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/nowhere.py"], ["configs/nowhere.py"]),
        (["--config.optimizer.learning_rat=0.1"], ["learning_rat", "configs/default.py"]),
        (["--config.batch_size=many"], ["batch_size", "many"]),
        (["--config.model.depth=51"], ["config.model.depth", "51", "50, 101"]),
        (["--config.model.num_classes=12"], ["19 classes", "config.model.num_classes is 12"]),
        (["--config.model.num_memory=5"], ["4 frames before", "--memory-range=5"]),
        (["--config.data.memory_range=5"], ["data_prep.synthetic", "--train=6 --val=5"]),
        (["--config.data.crop_size=(1000,80)"], ["config.data.crop_size", "(96, 192)"]),
        (["--config.data.crop_size=(4,80)"], ["config.data.crop_size", "at least 8"]),
        (["--config.data.ratio_range=(0.5,)"], ["config.data.ratio_range", "two numbers"]),
        (["--config.seed=99999999999999999999"], ["config.seed", "from 0 to"]),
        (["--config.eval.stride=(100,100)"], ["config.eval.stride", "gaps"]),
        (["--config.init.checkpoint=none.safetensors"], ["none.safetensors"]),
        ([*tiny_runs.RENDER, "--config.data.render_train=9"], ["6 and 5", "9 and 5", "Or delete"]),
        ([*tiny_runs.RENDER, "--config.data.render_memory_range=5"], ["4 frames", "Or delete"]),
        (["--config.data.eval_split=test"], ["'test'", "train"]),
        (["--config.loss.average=some"], ["config.loss.average", "'some'", "valid"]),
        (["forecast"], ["'forecast'", "train, eval"]),
        (["predict"], ["--input", "--output"]),
        (["predict", "--input=drive.mp4"], ["--input", "--output"]),
        (["--submit=results"], ["--submit", "mode eval"]),
        (["eval"], ["no checkpoint", "train first"]),
        (["consistency"], ["no two neighbouring frames", "--every-frame"]),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(
    data_dir: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    message = refused(data_dir, tmp_path / "run", *arguments)
    assert all(word in message for word in words), message
    assert not (tmp_path / "run").exists()


def test_no_records_names_the_command_that_makes_them(tmp_path: Path) -> None:
    message = refused(tmp_path / "nowhere", tmp_path / "run")
    assert "python -m data_prep.cityscapes" in message
    assert str(tmp_path / "nowhere") in message
    assert not (tmp_path / "run").exists()


def test_records_of_another_version(data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir, tmp_path / "records")
    (version,) = (tmp_path / "records" / "clip_records").glob("*.*.*")
    version.rename(version.with_name("0.9.0"))
    message = refused(tmp_path / "records", tmp_path / "run")
    assert "version 0.9.0" in message and version.name in message
    assert not (tmp_path / "run").exists()


def test_a_damaged_record_names_shard_index_and_clip(data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir, tmp_path / "records")
    shard = damage(open_clips(tmp_path / "records", "train"))
    every_clip = "--config.batch_size=6"  # is in the first batch
    message = refused(tmp_path / "records", tmp_path / "run", every_clip)
    assert shard.name in message and "renderstadt_" in message


def test_a_workdir_that_cannot_be_written(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refused(data_dir, tmp_path / "file" / "run")
    assert str(tmp_path / "file" / "run") in message and "--workdir" in message


def test_a_batch_that_the_devices_do_not_divide(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = jax.devices() * 3
    monkeypatch.setattr(jax, "devices", lambda: devices)
    message = refused(data_dir, tmp_path / "run")
    assert "A batch of 2" in message and "3 devices" in message
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def begun(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run of two steps."""
    path = tmp_path_factory.mktemp("begun") / "run"
    done = called(data_dir, path, "--config.num_steps=2", "--config.eval.every=2")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def workdir(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(begun, tmp_path / "run")


def test_a_checkpoint_of_another_model_names_the_difference(data_dir: Path, workdir: Path) -> None:
    message = refused(data_dir, workdir, "--config.model.num_memory=1")
    assert "head.num_memory is 2 there and 1" in message
    message = refused(data_dir, workdir, "eval", "--config.model.width=8")
    assert "backbone.width is 4 there and 8" in message


def test_another_stream_of_batches_is_no_continuation(data_dir: Path, workdir: Path) -> None:
    message = refused(data_dir, workdir, "--config.seed=9", "--config.batch_size=1")
    assert "seed is 0 there and 9" in message and "batch_size is 2 there and 1" in message


def test_a_torn_checkpoint_names_itself(data_dir: Path, workdir: Path) -> None:
    for path in (workdir / "checkpoints" / "2" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    message = refused(data_dir, workdir)
    assert f"None of the checkpoints in {workdir / 'checkpoints'} can be read" in message
    assert "step 2: " in message and "move them away" in message
    assert (workdir / "checkpoints" / "2").is_dir()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    data_dir: Path, workdir: Path
) -> None:
    message = refused(
        data_dir, workdir, "--config.num_steps=20", "--config.optimizer.learning_rate=1e35"
    )
    assert "Step " in message and "renderstadt_" in message
    assert "checkpoint is of step 2" in message
    kept = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert kept == {"2"}


@pytest.mark.parametrize(
    ("program", "told", "status"),
    [
        (["run.py", "doctor"], "Loading jax", 128 + signal.SIGINT),
        (["-m", "data_prep.folder"], "", -signal.SIGINT),
        (["-m", "tmanet_jax.weights"], "Loading jax", -signal.SIGINT),
    ],
)
def test_libraries_that_are_loaded_for_seconds_are_told_and_so_is_an_interrupt(
    tmp_path: Path, program: list[str], told: str, status: int
) -> None:
    for library in ("cv2", "jax"):
        (tmp_path / f"{library}.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, *program],
        cwd=processes.PROJECT,
        env={**processes.environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith(told) and done.stderr.endswith("Interrupted.\n")
    assert done.stderr.count("\n") == 1 + bool(told) and done.returncode == status
