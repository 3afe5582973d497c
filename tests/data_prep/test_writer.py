"""Writing records: whole or not at all, and what stood in the way is named."""

import errno
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep.records.staging import Staging
from data_prep.records.writer import write_records
from tests.made.small_clips import NoiseClip, plan_of, write_noise
from tmanet_jax.data.classes import CAMVID, CITYSCAPES
from tmanet_jax.data.files import why_not_written
from tmanet_jax.data.records import has_records, open_clips
from tmanet_jax.errors import UserError

PROJECT = Path(__file__).parents[2]
UNFINISHED = ".unfinished-records"


@dataclass(frozen=True)
class UnreadableClip(NoiseClip):
    def load(self):
        raise UserError("frame.png cannot be decoded")


def test_a_failure_leaves_the_old_records_and_nothing_else(tmp_path):
    write_noise(tmp_path, 2)
    plans = {"train": plan_of([NoiseClip(8), UnreadableClip(9)])}
    with pytest.raises(UserError, match=r"frame\.png"):
        write_records(tmp_path, CAMVID, 3, plans, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["clip_records"]
    assert open_clips(tmp_path, "train").read(1, ()).id == NoiseClip(1).id


def test_new_records_replace_the_old_ones(tmp_path):
    write_noise(tmp_path, 2)
    write_noise(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["clip_records"]
    assert len(open_clips(tmp_path, "train")) == 1
    with pytest.raises(UserError, match="no split 'val'"):
        open_clips(tmp_path, "val")


def test_nothing_to_write_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no clips"):
        write_records(tmp_path, CITYSCAPES, 2, {"train": plan_of([])})


def test_a_file_that_may_not_grow_is_named_and_leaves_the_old_records(tmp_path):
    write_noise(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match=f"Cannot write to {tmp_path}: .*File too large.*limit"):
            write_noise(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["clip_records"]
    assert len(open_clips(tmp_path, "train")) == 1


def test_records_that_cannot_be_replaced_stay(tmp_path, monkeypatch):
    write_noise(tmp_path, 1)
    rename = Path.rename

    def refuse_new(path, target):
        if path.parent.name.startswith(".unfinished-") and path.name == "clip_records":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse_new)
        with pytest.raises(UserError, match=f"Cannot write to {tmp_path}: Input/output error"):
            write_noise(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"clip_records", UNFINISHED}
    assert len(open_clips(tmp_path, "train")) == 1

    monkeypatch.setattr(NoiseClip, "load", None)  # all shards are whole: no clip is loaded again
    write_noise(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["clip_records"]
    assert len(open_clips(tmp_path, "train")) == 2


@dataclass(frozen=True)
class ForbiddenClip(NoiseClip):
    def load(self):
        raise PermissionError(errno.EACCES, "Permission denied", "frame.png")


def refuse_to_count():
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize(
    ("clip", "on_frame_written", "error"),
    [
        (ForbiddenClip(1), lambda: None, PermissionError),
        (NoiseClip(1), refuse_to_count, BrokenPipeError),
    ],
)
def test_an_error_of_something_else_is_not_blamed_on_the_disk(
    tmp_path, clip, on_frame_written, error
):
    plans = {"train": plan_of([clip])}
    with pytest.raises(error):
        write_records(tmp_path, CITYSCAPES, 3, plans, on_frame_written)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from tests.made.small_clips import NoiseClip, write_noise

NoiseClip.load = lambda clip: os.kill(os.getpid(), signal.SIGKILL)
write_noise(sys.argv[1], 1)
"""


def test_what_a_killed_preparation_left_is_removed_by_the_next(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=PROJECT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name[:12] for path in tmp_path.iterdir()] == [".unfinished-"]
    assert not has_records(tmp_path)
    write_noise(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["clip_records"]
    assert has_records(tmp_path)


def test_a_second_preparation_does_not_disturb_the_first(tmp_path):
    def second():
        with pytest.raises(UserError, match=f"Another preparation is writing to {tmp_path}"):
            write_noise(tmp_path, 1)

    plans = {"train": plan_of([NoiseClip(0), NoiseClip(1)])}
    write_records(tmp_path, CITYSCAPES, 3, plans, on_frame_written=second)
    assert len(open_clips(tmp_path, "train")) == 2


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/records"):
        with pytest.raises(UserError, match=f"Cannot write to {tmp_path / out}: .*has this name"):
            write_noise(tmp_path / out, 1)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(Staging, "partial", lambda *_: full)
    with pytest.raises(UserError, match=r"Cannot write to .*records: .*disk is full"):
        write_noise(tmp_path / "records", 1)
    assert not list((tmp_path / "records").iterdir())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError(errno.EACCES, "Permission denied"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        OSError(errno.EIO, "Input/output error"),
        RuntimeError("open() failed: Read-only file system; opening x"),
        ValueError("DATA_LOSS: [OS error 30: EROFS Read-only file system]\nmore"),
    ],
)
def test_only_a_full_disk_is_called_one(error):
    told = why_not_written(error)
    assert ("disk is full" in told) == (getattr(error, "errno", 0) == errno.EDQUOT)
    assert ("can be written" in told) == ("Read-only" in str(error))
    assert "\n" not in told
