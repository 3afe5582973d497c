"""Two processes of two devices are one process of four: losses, scores, and what they leave."""

import contextlib
import gzip
import json
import shutil
import struct
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data_prep import kitti_step
from tests import in_process, joined_runs
from tests.joined_runs import Ended, JoinedRun
from tests.made import tiny_runs
from tests.made.small_kitti_step import NUM_FRAMES, write_kitti_step
from tests.made.small_predictions import contents
from tests.made.small_videos import numbered, write_video
from tests.made.tiny_weights import write_weights
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.parallel.peers import EXIT_STATUS

pytestmark = pytest.mark.multiprocess

RUN = (
    "--config.batch_size=4",
    "--config.num_steps=6",
    "--config.eval.every=6",
    "--config.checkpoint.every=2",
)


class Finished(NamedTuple):
    """A run that ended, and what each of its processes printed."""

    workdir: Path
    processes: list[Ended]


@pytest.fixture(scope="module")
def two(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        return run_two(data_dir, root, "run", patch)


def run_two(data_dir: Path, root: Path, name: str, patch: pytest.MonkeyPatch) -> Finished:
    """What is compiled is kept in ROOT/cache, and each process prints what it finds there."""
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(root / "cache"))
    patch.setenv("JAX_DEBUG_LOG_MODULES", "jax._src.compiler")
    workdir = root / name
    with joined_runs.started(root, data_dir, f"--workdir={workdir}", *RUN, num_devices=2) as run:
        ended = [run.end(index) for index in range(2)]
    assert [process.status for process in ended] == [0, 0], ended
    return Finished(workdir, ended)


@pytest.fixture(scope="module")
def one(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """In one process; steps 3 and 4 are traced."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    done = tiny_runs.run(
        data_dir, f"--workdir={workdir}", *RUN, "--config.profile=(3,4)", num_devices=4
    )
    assert done.returncode == 0, done.stderr
    return Finished(workdir, [Ended(0, done.stdout + done.stderr)])


def curve(workdir: Path, name: str) -> dict[int, float]:
    """A curve of TensorBoard's, by step; the newest value of each."""
    from tensorboardX.proto.event_pb2 import Event  # which imports torch, where that is installed

    points: dict[int, float] = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):  # length, its checksum, an event, its checksum
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            for value in event.summary.value:
                if value.tag == name:
                    points[event.step] = value.simple_value
            place += length + 16
    return points


@pytest.mark.parametrize("name", ["train/loss", "train/grad_norm"])
def test_two_processes_train_as_one(one: Finished, two: Finished, name: str) -> None:
    expected, got = curve(one.workdir, name), curve(two.workdir, name)
    assert list(got) == list(expected) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-5)


def test_the_first_process_alone_tells_and_writes(two: Finished) -> None:
    first, second = (process.output for process in two.processes)
    assert "mIoU" in first and "4 cpu devices;" in first
    assert "mIoU" not in second and "train:" not in second
    assert len(list((two.workdir / "tensorboard").iterdir())) == 1
    log = (two.workdir / "train.log").read_text()
    assert log.count("step 6: mIoU") == log.count("step 6 of 6: loss") == 1
    assert not list(two.workdir.glob(".*"))


def test_two_processes_score_as_one(data_dir: Path, one: Finished, tmp_path: Path) -> None:
    """5 clips: one process has 3, the other 2."""
    workdir = shutil.copytree(one.workdir, tmp_path / "run")
    done = tiny_runs.called(data_dir, "eval", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    alone = json.loads((workdir / "metrics.json").read_text())
    (workdir / "metrics.json").unlink()
    with joined_runs.started(
        tmp_path, data_dir, "eval", f"--workdir={workdir}", num_devices=2
    ) as run:
        for index in range(2):
            ended = run.end(index)
            assert ended.status == 0, ended.output
    assert json.loads((workdir / "metrics.json").read_text()) == alone


def test_a_run_goes_on_in_another_number_of_processes_and_devices(
    data_dir: Path, two: Finished, tmp_path: Path
) -> None:
    workdir = shutil.copytree(two.workdir, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    done = tiny_runs.called(data_dir, f"--workdir={workdir}", *RUN)
    assert done.returncode == 0, done.stderr
    assert "going on from step 4 of 6" in done.stdout
    expected, got = curve(two.workdir, "train/loss"), curve(workdir, "train/loss")
    np.testing.assert_allclose([got[5], got[6]], [expected[5], expected[6]], rtol=1e-5)


def test_the_log_says_where_the_time_went(one: Finished) -> None:
    log = (one.workdir / "train.log").read_text()
    assert "time:     " in log and "evaluation" in log
    shares = [curve(one.workdir, f"time/{part}")[6] for part in ("start", "steps", "data")]
    assert all(0 <= share <= 1 for share in shares)


def test_a_trace_holds_the_steps_that_were_asked_for(one: Finished) -> None:
    assert "trace of steps 3 to 4: " in one.processes[0].output
    (directory,) = (one.workdir / "profile" / "plugins" / "profile").iterdir()
    assert list(directory.glob("*.xplane.pb"))  # TensorBoard's
    trace = json.loads(gzip.decompress((directory / "perfetto_trace.json.gz").read_bytes()))
    steps = [event["args"] for event in trace["traceEvents"] if event.get("name") == "train"]
    assert {int(args["step_num"]) for args in steps} == {3, 4}


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            ("--config.seed=1", "--config.seed=2"),
            "differ in the configuration: config.seed is 1 in process 0 and 2 in process 1.",
        ),
        (("eval", "train"), "the mode is 'eval' in process 0 and 'train' in process 1"),
    ],
)
def test_processes_that_were_told_different_things_refuse_to_begin(
    data_dir: Path, tmp_path: Path, own: tuple[str, str], words: str
) -> None:
    with joined_runs.started(tmp_path, data_dir, f"--workdir={tmp_path / 'run'}", own=own) as run:
        for index in range(2):
            ended = run.end(index)
            assert ended.status == 2, ended.output
            assert words in ended.output
            assert "Traceback" not in ended.output


def test_a_workdir_that_is_not_shared_is_refused_at_every_start(
    data_dir: Path, tmp_path: Path
) -> None:
    """What the first start, refused, would leave in the one is seen in the second by the other."""
    workdirs = [tmp_path / "one", tmp_path / "other"]
    for one, other in (workdirs, workdirs[::-1]):
        with joined_runs.started(
            tmp_path, data_dir, own=(f"--workdir={one}", f"--workdir={other}")
        ) as run:
            for index in range(2):
                ended = run.end(index)
                assert ended.status == 2, ended.output
                assert "differ in the workdir" in ended.output
        assert not [*one.iterdir(), *other.iterdir()]


def test_processes_wait_for_one_that_compiles_for_longer(
    data_dir: Path, one: Finished, tmp_path: Path
) -> None:
    """For longer than gloo waits for a connection, 30 s; both modes at once."""
    with contextlib.ExitStack() as stack:
        runs = {}
        for mode in ("train", "eval"):
            workdir = shutil.copytree(one.workdir, tmp_path / mode / "run")
            (workdir / "metrics.json").unlink()
            if mode == "train":
                shutil.rmtree(workdir / "checkpoints" / "6")
            words = (mode, f"--workdir={workdir}", *RUN)
            runs[workdir] = stack.enter_context(
                slowly_compiled(workdir.parent, 40, data_dir, *words)
            )
        for workdir, run in runs.items():
            for index in range(2):
                ended = run.end(index)
                assert ended.status == 0, ended.output
            assert (workdir / "metrics.json").exists()


def test_the_time_to_wait_for_one_that_compiles_is_said(data_dir: Path, tmp_path: Path) -> None:
    limit = ("--start-timeout=15", f"--workdir={tmp_path / 'run'}")
    with slowly_compiled(tmp_path, 60, data_dir, "train", *limit, *RUN) as run:
        first, second = run.end(0), run.end(1)
    assert first.status == 2, first.output
    assert "Process 1 has not compiled a step within 15 s" in first.output
    assert second.status == EXIT_STATUS
    assert "Process 0 (" in second.output and "--start-timeout=SECONDS" in second.output


def slowly_compiled(
    root: Path, seconds: int, data_dir: Path, *arguments: str
) -> AbstractContextManager[JoinedRun]:
    """`run.py` in two processes, of which the second one compiles for so much longer."""
    worker = [sys.executable, "-m", "tests.workers.slow"]
    address = f"--coordinator=localhost:{joined_runs.free_port()}"
    return joined_runs.started_together(
        root,
        [
            [
                *worker,
                str(seconds * index),
                *tiny_runs.command(
                    data_dir, address, "--num-processes=2", f"--process-id={index}", *arguments
                )[1:],
            ]
            for index in range(2)
        ],
        num_devices=2,
    )


def test_the_second_start_finds_every_program_in_every_process(
    data_dir: Path, two: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = run_two(data_dir, two.workdir.parent, "again", monkeypatch)
    missed = [
        [process.output.count("COMPILATION CACHE MISS") for process in run.processes]
        for run in (two, again)
    ]
    assert min(missed[0]) > 0
    assert missed[1] == [0, 0]


def test_two_processes_predict_as_one_and_one_goes_on_for_two(tmp_path: Path) -> None:
    for number in range(3):
        frames = [numbered(n, (48, 64)) for n in range(number, number + 3)]
        write_video(tmp_path / f"{number}.mp4", frames, "libx264")
    command = [
        *(sys.executable, "run.py", "predict", "--config=configs/demo.py"),
        f"--checkpoint={write_weights(tmp_path / 'tmanet.safetensors')}",
        f"--input={tmp_path}/*.mp4",
        "--format=labels",
    ]
    address = f"--coordinator=localhost:{joined_runs.free_port()}"
    shared = [*command, f"--output={tmp_path / 'shared'}", address, "--num-processes=2"]
    commands = [[*shared, f"--process-id={index}"] for index in range(2)]
    with joined_runs.started_together(tmp_path, commands) as run:
        ended = [run.end(index) for index in range(2)]
    assert [process.status for process in ended] == [0, 0], ended
    assert [process.output.count("3 frames, 0 broken") for process in ended] == [2, 1]
    assert in_process.called([*command[2:], f"--output={tmp_path / 'alone'}"]).returncode == 0
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    (tmp_path / "shared" / "1" / "labels" / "000001.png").unlink()
    assert in_process.called([*command[2:], f"--output={tmp_path / 'shared'}"]).returncode == 0
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_two_processes_score_videos_as_one_with_weights_of_other_data(tmp_path: Path) -> None:
    """KITTI-STEP's two sequences, by a network of Cityscapes' classes."""
    source = write_kitti_step(tmp_path / "kitti", {"val": "images/val"})
    records, weights = tmp_path / "records", tmp_path / "tmanet.safetensors"
    assert kitti_step.main([f"--source={source}", f"--out={records}", "--splits=val"]) == 0
    write_weights(weights, classes=CITYSCAPES)

    def command(mode: str, workdir: str, *others: str) -> list[str]:
        return [
            *(sys.executable, "run.py", mode, "--config=configs/kitti_step.py", *others),
            f"--config.data.dir={records}",
            f"--config.init.checkpoint={weights}",
            f"--workdir={tmp_path / workdir}",
        ]

    address = f"--coordinator=localhost:{joined_runs.free_port()}"
    commands = [
        command("consistency", "two", address, "--num-processes=2", f"--process-id={index}")
        for index in range(2)
    ]
    with joined_runs.started_together(tmp_path, commands) as run:
        ended = [run.end(index) for index in range(2)]
    assert [process.status for process in ended] == [0, 0], ended
    for mode in ("consistency", "eval"):
        done = in_process.called(command(mode, "one")[2:])
        assert done.returncode == 0, done.stderr
    two, one, frames = (
        json.loads((tmp_path / folder / "metrics.json").read_text())
        for folder in ("two/consistency", "one/consistency", "one")
    )
    assert two == one and one["clips"] == frames["clips"] == 2 * NUM_FRAMES
    assert 0 < one["mIoU"] < 1 and 0 < one["temporal"]["mTC"] <= 1
