"""Runs that are stopped, killed, disturbed or started twice: real processes, nothing is lost."""

import functools
import json
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path

import jax
import pytest

from tests import processes
from tests.made import tiny_runs
from tmanet_jax.checkpoints.damage import steps_in

pytestmark = [
    pytest.mark.drills,
    pytest.mark.filterwarnings(
        "ignore:Sharding info not provided"  # `assert_same_state` restores on one device
    ),
]

EVERY = 4
"""Steps between checkpoints."""


def flags(num_steps: int) -> tuple[str, ...]:
    """With as much state as a run can have: Adam's moments, and a moving average."""
    return (
        "--config.optimizer.name=adamw",
        "--config.optimizer.learning_rate=0.001",
        "--config.ema_decay=0.9",
        f"--config.num_steps={num_steps}",
        f"--config.eval.every={num_steps}",
        f"--config.checkpoint.every={EVERY}",
    )


def finished(data_dir: Path, workdir: Path, *arguments: str) -> str:
    """What a run to the end printed."""
    with jax.numpy_dtype_promotion("standard"):  # optax takes 1 - beta to a power of int32
        done = tiny_runs.called(data_dir, f"--workdir={workdir}", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def checkpoints(workdir: Path) -> list[int]:
    """The newest first."""
    return steps_in(workdir / "checkpoints")


def log_length(workdir: Path) -> int:
    log = workdir / "train.log"
    return log.stat().st_size if log.exists() else 0


def last_step(workdir: Path, begin: int = 0) -> int:
    """That the log tells beyond some length; 0 if none."""
    text = (workdir / "train.log").read_text()[begin:] if log_length(workdir) else ""
    return max((int(step) for step in re.findall(r"step (\d+) of \d+: loss", text)), default=0)


def has_reached(workdir: Path, begin: int, step: int) -> bool:
    return last_step(workdir, begin) >= step


def assert_equal(workdir: Path, straight: Path, step: int) -> None:
    """The same weights, statistics and momenta, bit for bit, and the same scores."""
    tiny_runs.assert_same_state(workdir, straight, step)
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (workdir, straight)]
    assert metrics[0] == metrics[1]


def test_stopped_and_torn_and_started_again_equals_never_disturbed_and_a_second_run_is_refused(
    data_dir: Path, tmp_path: Path
) -> None:
    """One story, because each start takes seconds."""
    settings = flags(40)
    finished(data_dir, tmp_path / "straight", *settings)

    workdir, output = tmp_path / "run", tmp_path / "output"
    with tiny_runs.started(data_dir, workdir, *settings, output=output) as process:
        processes.wait_until(lambda: last_step(workdir) > 0, process)
        process.send_signal(signal.SIGSTOP)  # so that it is at work all the while
        second = tiny_runs.called(data_dir, f"--workdir={workdir}", *settings)
        assert second.returncode == 2
        assert f"process {process.pid} on {socket.gethostname()}" in second.stderr
        process.send_signal(signal.SIGCONT)
        processes.wait_until(lambda: bool(checkpoints(workdir)), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(processes.SECONDS) == 128 + signal.SIGTERM
    newest = checkpoints(workdir)[0]
    assert newest < 40, "the run ended before it could be stopped"
    assert newest == last_step(workdir)
    assert f"Stopped by SIGTERM after step {newest} of 40." in output.read_text()

    (workdir / f"checkpoints/{newest}/state/manifest.ocdbt").write_bytes(b"")
    told = finished(data_dir, workdir, *settings)
    aside = workdir / f"checkpoints/{newest}.damaged"
    assert f"The checkpoint of step {newest} is damaged" in told and str(aside) in told
    assert aside.is_dir()
    before = int(told.split("going on from step ")[1].split()[0])
    assert newest - EVERY <= before < newest
    assert_equal(workdir, tmp_path / "straight", 40)


def test_interrupted_while_it_evaluates_the_next_start_evaluates(
    data_dir: Path, tmp_path: Path
) -> None:
    """With worker processes, which a terminal interrupts too."""
    slowly = ("--config.eval.ratios=(0.5,0.75,1.0,1.25,1.5)", "--config.data.num_workers=2")
    straight, workdir, output = tmp_path / "straight", tmp_path / "run", tmp_path / "output"
    finished(data_dir, straight, *slowly)
    with tiny_runs.started(data_dir, workdir, *slowly, output=output) as process:
        processes.wait_until(lambda: 4 in checkpoints(workdir), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(processes.SECONDS) == 128 + signal.SIGINT
    assert "Stopped by SIGINT after step 4 of 8." in output.read_text()
    assert ": mIoU" not in (workdir / "train.log").read_text()
    told = finished(data_dir, workdir, *slowly)
    assert "going on from step 4" in told and "step 4: mIoU" in told
    assert_equal(workdir, straight, 8)


def test_killed_20_times_at_any_moment_the_end_is_that_of_a_run_never_killed(
    data_dir: Path, tmp_path: Path
) -> None:
    """At most the steps between two checkpoints are lost, and those made while one was written.

    It is written while the run goes on, and the next one waits until it is.
    """
    num_steps = 240
    settings = flags(num_steps)
    straight, workdir, output = tmp_path / "straight", tmp_path / "run", tmp_path / "output"
    finished(data_dir, straight, *settings)
    rng = random.Random(0)
    amid_a_checkpoint = 0
    for _ in range(20):
        newest = next(iter(checkpoints(workdir)), 0)
        length = log_length(workdir)
        target, moment = newest + rng.randrange(3 * EVERY), 0.2 * rng.random()
        with tiny_runs.started(data_dir, workdir, *settings, output=output) as process:
            if target > newest:
                reaches = functools.partial(has_reached, workdir, length, target)
                processes.wait_until(reaches, process)
            time.sleep(moment)
            process.kill()
            assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
        reached = last_step(workdir, length) or newest
        unfinished = list((workdir / "checkpoints").glob("*tmp*"))
        amid_a_checkpoint += bool(unfinished)
        lost = reached - next(iter(checkpoints(workdir)), 0)
        assert lost <= EVERY or (unfinished and lost <= 2 * EVERY)
    assert amid_a_checkpoint, "no kill came in the middle of a checkpoint"
    finished(data_dir, workdir, *settings)
    assert not list((workdir / "checkpoints").glob("*tmp*"))
    assert_equal(workdir, straight, num_steps)


def test_a_full_disk_ends_a_run_with_a_message_and_room_lets_it_go_on(
    data_dir: Path, tmp_path: Path
) -> None:
    """No file may grow beyond 64 kB: those of checkpoints would."""
    settings = flags(40)
    straight, workdir, output = tmp_path / "straight", tmp_path / "run", tmp_path / "output"
    finished(data_dir, straight, *settings)
    with tiny_runs.started(data_dir, workdir, *settings, output=output) as process:
        processes.wait_until(lambda: bool(checkpoints(workdir)), process)
        process.kill()
        process.wait()
    whole = checkpoints(workdir)
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash"]
    words = tiny_runs.command(data_dir, f"--workdir={workdir}", *settings)
    with processes.started([*limited, *words]) as process:
        _, told = process.communicate(timeout=processes.SECONDS)
        assert process.returncode == 2, told
    last_line = told.rstrip().splitlines()[-1]
    assert last_line.startswith(f"The checkpoint of step {whole[0] + EVERY} cannot be written")
    assert "Traceback" not in told
    assert checkpoints(workdir) == whole
    assert f"going on from step {whole[0]} " in finished(data_dir, workdir, *settings)
    assert_equal(workdir, straight, 40)


def test_several_processes_stop_after_the_same_step_whichever_is_told(
    data_dir: Path, tmp_path: Path
) -> None:
    num_steps = 400
    workdir = tmp_path / "run"
    outputs = [tmp_path / "0", tmp_path / "1"]

    run = [str(data_dir), str(workdir), str(num_steps), processes.free_address(), "2"]

    def words(index: int) -> list[str]:
        return [sys.executable, "-m", "tests.workers.training", *run, str(index)]

    with (
        processes.started(words(0), outputs[0]) as first,
        processes.started(words(1), outputs[1]) as second,
    ):
        processes.wait_until(lambda: last_step(workdir) > 0, first)
        second.send_signal(signal.SIGTERM)
        for process in (first, second):
            assert process.wait(processes.SECONDS) == 128 + signal.SIGTERM
    newest = checkpoints(workdir)[0]
    for output in outputs:
        assert f"Stopped by SIGTERM after step {newest} of {num_steps}." in output.read_text()


def test_steps_that_are_not_finite_are_skipped_as_often_as_allowed(
    data_dir: Path, tmp_path: Path
) -> None:
    """A first update beyond all measure makes every step after it not finite."""
    done = tiny_runs.run(
        data_dir,
        f"--workdir={tmp_path}",
        *flags(40),
        "--config.optimizer.learning_rate=1e30",
        "--config.max_skipped_steps=2",
        "--config.checkpoint.every=1",
    )
    assert done.returncode == 2, done.stderr
    for step in (2, 3):
        assert f"Step {step}: the loss is " in done.stdout
        assert f"Skipped: {step - 1} of at most 2." in done.stdout
    assert "Step 4: the loss is " in done.stderr
    assert "config.max_skipped_steps, now 2" in done.stderr
    assert f"kept as {tmp_path / 'checkpoints' / '1.lost'}" in done.stderr
    assert checkpoints(tmp_path) == []
    told = finished(data_dir, tmp_path, *flags(4), "--config.max_skipped_steps=2")
    assert "begins from random weights" in told and "the loss is" not in told
