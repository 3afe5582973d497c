"""Which records may be replaced, and that a preparation killed anywhere leaves whole ones."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.records import writer
from data_prep.records.writer import Start, write_records
from tests.made.small_clips import NoiseClip, plan_of
from tests.made.small_preparations import (
    NUM_CLIPS,
    UNFINISHED,
    assert_whole,
    clips,
    stopped,
    write,
)
from tmanet_jax.data.classes import CAMVID, CITYSCAPES
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def two_clips_a_shard(monkeypatch):
    monkeypatch.setattr(writer, "FRAMES_PER_SHARD", 8)


def test_records_of_other_splits_are_not_lost(tmp_path):
    write(tmp_path, clips()[0])
    with pytest.raises(UserError, match=r"holds train.*train would be lost.*--splits=train,val"):
        write(tmp_path, clips()[0], split="val")
    assert_whole(tmp_path)
    write(tmp_path / "copy", clips()[0])
    write(tmp_path / "copy", clips()[0], split="val", replace=True)
    assert list(open_clips(tmp_path / "copy", "val").info.splits) == ["val"]
    shutil.rmtree(tmp_path / "copy")
    plans = {name: plan_of(clips()[0]) for name in ("train", "val")}
    write_records(tmp_path, CITYSCAPES, 3, plans)
    assert len(open_clips(tmp_path, "val")) == NUM_CLIPS
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {"classes": CAMVID}, "records of cityscapes, whose classes are not those of camvid"),
        (
            {"memory_range": 2},
            {"memory_range": 2},
            "--frame-stride=1, not 2 and 1",
        ),
        ({}, {"frame_stride": 2}, "--memory-range=3 .*=1, not 3 and 2"),
        ({"first": 4}, {}, "of 7 clips, of which the source lacks 4, noise_000000 first"),
    ],
    ids=["classes", "range", "stride", "clips"],
)
def test_records_of_another_data_set_are_replaced_only_where_that_is_asked_for(
    tmp_path, fields, options, message
):
    write(tmp_path, clips()[0])
    first = fields.pop("first", 0)
    other = [dataclasses.replace(clip, number=clip.number + first) for clip in clips(**fields)[0]]
    with pytest.raises(UserError, match=f"{message}.*say --replace"):
        write(tmp_path, other, **options)
    assert_whole(tmp_path)
    write(tmp_path, other, **options, replace=True)
    info = open_clips(tmp_path, "train").info
    assert info.classes == options.get("classes", CITYSCAPES)
    assert info.memory_range == options.get("memory_range", 3)
    assert info.frame_stride == options.get("frame_stride", 1)
    assert info.splits["train"].ids[0] == NoiseClip(first).id


def test_some_clips_more_or_fewer_are_the_same_data_set(tmp_path):
    write(tmp_path, clips()[0])
    write(tmp_path, clips()[0][2:])
    write(tmp_path, clips()[0])
    assert_whole(tmp_path)


class Killed(BaseException):
    """From now on this process does nothing any more."""


def kill_before_change(number, patch):
    """Lets a process make so many changes to folders, then none; gives those it was to make."""
    made: list[str] = []

    def until_then(name, change):
        def changed(*args, **options):
            if len(made) >= number:
                raise Killed(f"{name}{args}")
            made.append(name)
            return change(*args, **options)

        return changed

    for name in ("rename", "replace", "link", "unlink", "rmdir", "mkdir"):
        patch.setattr(os, name, until_then(name, getattr(os, name)))
    return made


def test_wherever_a_preparation_is_killed_the_next_ones_find_whole_records_and_replace_them(
    tmp_path, monkeypatch
):
    old, new = (clips(group=group, fingerprint=group)[0][:3] for group in ("old", "new"))
    for number in range(1000):
        out = tmp_path / str(number)
        write(out, old)
        with monkeypatch.context() as patch:
            changes = kill_before_change(number, patch)
            with contextlib.suppress(Killed):
                write(out, new)
        with pytest.raises(UserError, match="torn"):
            write(out, clips(bad=[2], fingerprint="third")[0])  # one shard is whole
        assert open_clips(out, "train").read(2, ()).group in ("old", "new")
        write(out, new)
        assert open_clips(out, "train").read(2, ()).group == "new"
        assert [path.name for path in out.iterdir()] == ["clip_records"]
        if len(changes) < number:
            break
    assert 15 < number < 1000


def test_older_records_that_a_killed_swap_moved_away_come_back(tmp_path):
    write(tmp_path, clips()[0])
    (tmp_path / UNFINISHED).mkdir()
    (tmp_path / "clip_records").rename(tmp_path / UNFINISHED / "replaced")
    made, _ = clips(bad=[0], fingerprint="other")
    with pytest.raises(UserError, match="torn"):
        write(tmp_path, made)
    assert_whole(tmp_path)


def test_without_locks_nothing_is_shared_and_nothing_is_left(tmp_path, monkeypatch):
    stopped(tmp_path)

    def no_locks(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    made, loaded = clips()
    write(tmp_path, made)
    assert sorted({*loaded}) == list(range(NUM_CLIPS))
    assert {path.name for path in tmp_path.iterdir()} == {"clip_records", UNFINISHED}


PREPARE = """
import os, sys, time
from tests.made.small_clips import NoiseClip, plan_of
from data_prep.records import writer
from tmanet_jax.data.classes import CITYSCAPES

writer.FRAMES_PER_SHARD = 8
load = NoiseClip.load

def slow(clip):
    if clip.number == int(sys.argv[2]):
        os.write(1, b"here\\n")
        time.sleep(60)
    return load(clip)

NoiseClip.load = slow
plan = plan_of([NoiseClip(number) for number in range(7)])
writer.write_records(sys.argv[1], CITYSCAPES, 3, {"train": plan})
"""


def test_a_killed_preparation_goes_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, tmp_path, "5"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"here\n"
        while len(list(tmp_path.glob(f"{UNFINISHED}/clip_records/shards/*.json"))) < 2:
            assert process.poll() is None
        with pytest.raises(UserError, match="Another preparation is writing"):
            write(tmp_path, clips()[0])
        process.kill()
    assert process.returncode == -signal.SIGKILL
    made, loaded = clips()
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert starts == [(16, 2, 0)]
    assert sorted({*loaded}) == [4, 5, 6]
    assert_whole(tmp_path)


def test_the_manifest_of_a_shard_says_what_it_holds(tmp_path):
    stopped(tmp_path)
    path = next(tmp_path.glob(f"{UNFINISHED}/clip_records/shards/*-00001-of-00004.json"))
    manifest = json.loads(path.read_text())
    assert manifest["info"]["sizes"] == [[70, 100]] * 8
    shard = next(tmp_path.glob(f"{UNFINISHED}/clip_records/*/{path.stem}"))
    assert manifest["num_bytes"] == shard.stat().st_size
