"""Writing records in several starts: whole shards survive, and nothing of another plan is taken."""

import contextlib
import dataclasses
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data_prep.records import writer
from data_prep.records.writer import SplitPlan, Start, WrongSourceError, write_records
from tests.made.small_clips import NoiseClip
from tmanet_jax.data.classes import CAMVID, CITYSCAPES
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError

PROJECT = Path(__file__).parents[2]
UNFINISHED = ".unfinished-records"
NUM_CLIPS = 7


@pytest.fixture(autouse=True)
def two_clips_a_shard(monkeypatch):
    monkeypatch.setattr(writer, "CLIPS_PER_SHARD", 2)


@dataclass(frozen=True)
class CountedClip(NoiseClip):
    """Notes that it was loaded; cannot be loaded if it is bad."""

    loaded: list = dataclasses.field(default_factory=list, compare=False)
    error: Exception | None = None

    def load(self):
        self.loaded.append(self.number)
        if self.error is not None:
            raise self.error
        return super().load()


TORN = UserError("frame.png is torn")


def clips(bad=(), error=TORN, **fields):
    loaded: list[int] = []
    made = [
        CountedClip(number, error=error if number in bad else None, loaded=loaded, **fields)
        for number in range(NUM_CLIPS)
    ]
    return made, loaded


def write(out, made, classes=CITYSCAPES, memory_range=3, split="train", **options):
    plans = {split: SplitPlan(made, labelled=True)}
    return write_records(out, classes, memory_range, plans, **options)


def stopped(out, bad=4):
    """A preparation that stops at a bad clip, with two whole shards of two clips."""
    made, _ = clips(bad=[bad])
    with pytest.raises(UserError, match=r"frame\.png is torn\s.*4 clips are kept"):
        write(out, made)


def assert_whole(out, numbers=range(NUM_CLIPS)):
    source = open_clips(out, "train")
    assert [path.name for path in out.iterdir()] == ["clip_records"]
    assert source.ids == tuple(NoiseClip(number).id for number in numbers)
    for index, number in enumerate(numbers):
        expected, read = NoiseClip(number).load(), source.read(index, (3, 2, 1))
        np.testing.assert_array_equal(read.frames_SxHxWx3, expected.frames_SxHxWx3)
        np.testing.assert_array_equal(read.labels_HxW, expected.labels_HxW)


def test_a_second_start_loads_only_the_clips_of_shards_that_are_not_whole(tmp_path):
    stopped(tmp_path)
    made, loaded = clips()
    starts: list[Start] = []
    written: list[int] = []
    write(tmp_path, made, on_start=starts.append, on_clip_written=lambda: written.append(1))
    assert sorted(loaded) == [4, 5, 6]
    assert starts == [(4, 2, 0)]
    assert len(written) == 3
    assert_whole(tmp_path)


def test_what_is_finished_is_not_done_again(tmp_path):
    write(tmp_path, clips()[0])
    made, loaded = clips()
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert loaded == []
    assert starts == [(NUM_CLIPS, 4, 0)]
    assert_whole(tmp_path)


def test_of_finished_records_only_deleted_and_outdated_shards_are_written_again(tmp_path):
    write(tmp_path, clips()[0])
    next(tmp_path.glob("clip_records/*.*.*/*-00001-of-*")).unlink()
    made, loaded = clips()
    made[6] = dataclasses.replace(made[6], fingerprint="newer")
    write(tmp_path, made)
    assert sorted(loaded) == [2, 3, 6]
    assert_whole(tmp_path)


def test_outdated_and_half_written_shards_do_not_keep_finished_ones_from_being_taken(tmp_path):
    write(tmp_path, clips()[0])
    with pytest.raises(UserError, match="2 clips are kept"):
        write(tmp_path, clips(bad=[2], fingerprint="other")[0])
    half = next(tmp_path.glob("clip_records/*.*.*/*-00003-of-*")).name
    (next(tmp_path.glob(f"{UNFINISHED}/clip_records/*.*.*")) / half).write_bytes(b"half")
    made, loaded = clips()
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert loaded == []
    assert starts == [(NUM_CLIPS, 4, 1)]
    assert_whole(tmp_path)


def test_two_clips_of_one_name_are_refused(tmp_path):
    made, loaded = clips()
    made[5] = dataclasses.replace(made[5], number=1)
    with pytest.raises(WrongSourceError, match="several clips called noise_000001"):
        write(tmp_path, made, skip_unreadable=True)
    assert loaded == []
    assert list(tmp_path.iterdir()) == []


def test_finished_records_stay_as_they_are_while_others_are_written(tmp_path):
    write(tmp_path, clips()[0])
    before = {path: path.read_bytes() for path in tmp_path.glob("clip_records/*/*")}
    made, _ = clips(bad=[5])
    made[0] = dataclasses.replace(made[0], fingerprint="newer")
    made[5] = dataclasses.replace(made[5], fingerprint="newer")
    with pytest.raises(UserError, match="torn"):
        write(tmp_path, made)
    assert {path: path.read_bytes() for path in tmp_path.glob("clip_records/*/*")} == before


def test_records_of_other_splits_are_not_lost(tmp_path):
    write(tmp_path, clips()[0])
    with pytest.raises(UserError, match=r"holds train.*train would be lost.*--splits=train,val"):
        write(tmp_path, clips()[0], split="val")
    assert_whole(tmp_path)
    write(tmp_path / "copy", clips()[0])
    write(tmp_path / "copy", clips()[0], split="val", replace=True)
    assert list(open_clips(tmp_path / "copy", "val").info.splits) == ["val"]
    shutil.rmtree(tmp_path / "copy")
    plans = {name: SplitPlan(clips()[0], labelled=True) for name in ("train", "val")}
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


def test_all_in_one_go_gives_the_same_files_as_several_starts(tmp_path):
    stopped(tmp_path / "several")
    write(tmp_path / "several", clips()[0])
    write(tmp_path / "one", clips()[0])
    one, several = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*/*/*")}
        for name in ("one", "several")
    )
    assert one == several


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"group": "clean"}, {}),
        ({"fingerprint": "newer"}, {}),
        ({"stand_ins": 1}, {}),
        ({}, {"classes": CAMVID}),
        ({}, {"classes": dataclasses.replace(CITYSCAPES, names=("tram", *CITYSCAPES.names[1:]))}),
        ({}, {"frame_stride": 2}),
        ({"memory_range": 2}, {"memory_range": 2}),
        ({"size": (40, 50)}, {"split": "val"}),
    ],
    ids=["group", "files", "stand-ins", "classes", "names of classes", "stride", "range", "split"],
)
def test_shards_of_other_files_or_options_are_removed_and_counted(tmp_path, fields, options):
    stopped(tmp_path)
    made, loaded = clips(**fields)
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append, **options)
    assert starts == [(0, 0, 2)]
    assert sorted(loaded) == list(range(NUM_CLIPS))


def test_only_the_shard_of_a_changed_file_is_written_again(tmp_path):
    stopped(tmp_path)
    made, loaded = clips()
    made[1] = dataclasses.replace(made[1], fingerprint="mended")
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert starts == [(2, 1, 1)]
    assert sorted(loaded) == [0, 1, 4, 5, 6]
    assert_whole(tmp_path)


def shorten(out):
    path = next(out.glob(f"{UNFINISHED}/clip_records/*/*-00001-of-*"))
    path.write_bytes(path.read_bytes()[:-1])


def tear_manifest(out):
    path = next(out.glob(f"{UNFINISHED}/clip_records/shards/*-00001-of-*.json"))
    path.write_text(path.read_text()[:30])


def lose_manifest(out):
    next(out.glob(f"{UNFINISHED}/clip_records/shards/*-00001-of-*.json")).unlink()


@pytest.mark.parametrize("harm", [shorten, tear_manifest, lose_manifest])
def test_a_shard_that_is_not_whole_is_written_again(tmp_path, harm):
    stopped(tmp_path)
    harm(tmp_path)
    made, loaded = clips()
    write(tmp_path, made)
    assert sorted(loaded) == [2, 3, 4, 5, 6]
    assert_whole(tmp_path)


def test_a_finished_shard_whose_manifest_cannot_be_read_is_written_again(tmp_path):
    write(tmp_path, clips()[0])
    manifest = next(tmp_path.glob("clip_records/shards/*-00001-of-*.json"))
    manifest.unlink()
    manifest.mkdir()
    made, loaded = clips()
    write(tmp_path, made)
    assert sorted(loaded) == [2, 3]
    assert_whole(tmp_path)


def test_a_skipped_clip_leaves_no_hole(tmp_path):
    made, _ = clips(bad=[0, 3, 4, 5])  # one shard has no clip at all
    info = write(tmp_path, made, skip_unreadable=True).info
    assert_whole(tmp_path, numbers=[1, 2, 6])
    skipped = open_clips(tmp_path, "train").skipped
    assert [clip.id for clip in skipped] == [NoiseClip(number).id for number in (0, 3, 4, 5)]
    assert {clip.reason for clip in skipped} == {"frame.png is torn"}
    assert info.splits["train"].skipped == skipped
    labels = np.stack([NoiseClip(number).load().labels_HxW for number in (1, 2, 6)])
    np.testing.assert_array_equal(
        open_clips(tmp_path, "train").class_pixels, np.bincount(labels.reshape(-1), minlength=19)
    )


def test_what_stopped_a_preparation_can_be_skipped_by_the_next(tmp_path):
    stopped(tmp_path)
    made, loaded = clips(bad=[4])
    write(tmp_path, made, skip_unreadable=True)
    assert sorted(loaded) == [4, 5, 6]
    assert_whole(tmp_path, numbers=[0, 1, 2, 3, 5, 6])


def test_a_shard_with_skipped_clips_is_not_kept_where_errors_stop(tmp_path):
    made, _ = clips(bad=[1, 4])
    made[4] = dataclasses.replace(made[4], error=WrongSourceError("all are wrong"))
    with pytest.raises(UserError, match="all are wrong"):
        write(tmp_path, made, skip_unreadable=True)
    again, loaded = clips()
    write(tmp_path, again)
    assert sorted(loaded) == [0, 1, 4, 5, 6]
    assert_whole(tmp_path)


def test_what_is_wrong_with_the_whole_source_is_never_skipped(tmp_path):
    made, _ = clips(bad=[0], error=WrongSourceError("both are there"))
    with pytest.raises(UserError, match="both are there"):
        write(tmp_path, made, skip_unreadable=True)


def test_a_split_of_which_nothing_can_be_read_is_an_error(tmp_path):
    made, _ = clips(bad=range(NUM_CLIPS))
    with pytest.raises(UserError, match=r"None of the 7 clips of .*frame\.png is torn"):
        write(tmp_path, made, skip_unreadable=True)


def test_a_full_disk_keeps_the_whole_shards(tmp_path):
    sizes = [(70, 100)] * 4 + [(700, 1000)] * 3
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    made, _ = clips()
    made = [dataclasses.replace(clip, size=size) for clip, size in zip(made, sizes, strict=True)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(UserError, match=r"Cannot write to .*File too large"):
            write(tmp_path, made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("*.partial"))
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert starts == [(4, 2, 0)]
    assert len(open_clips(tmp_path, "train")) == NUM_CLIPS


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
    old, new = (clips(group=group)[0][:3] for group in ("old", "new"))
    for number in range(1000):
        out = tmp_path / str(number)
        write(out, old)
        with monkeypatch.context() as patch:
            changes = kill_before_change(number, patch)
            with contextlib.suppress(Killed):
                write(out, new)
        with pytest.raises(UserError, match="torn"):
            write(out, clips(bad=[2], group="third")[0])  # one shard is whole
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
    made, _ = clips(bad=[0], group="other")
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
    assert sorted(loaded) == list(range(NUM_CLIPS))
    assert {path.name for path in tmp_path.iterdir()} == {"clip_records", UNFINISHED}


PREPARE = """
import json, sys, time
from tests.made.small_clips import NoiseClip
from tmanet_jax.data import record_writer
from tmanet_jax.data.classes import CITYSCAPES

writer.CLIPS_PER_SHARD = 2
load = NoiseClip.load

def slow(clip):
    if clip.number == int(sys.argv[2]):
        print("here", flush=True)
        time.sleep(60)
    return load(clip)

NoiseClip.load = slow
plan = writer.SplitPlan([NoiseClip(number) for number in range(7)], labelled=True)
writer.write_records(sys.argv[1], CITYSCAPES, 3, {"train": plan})
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_preparation_goes_on(tmp_path, end):
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
        process.send_signal(end)
    assert process.returncode == -end
    made, loaded = clips()
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert starts == [(4, 2, 0)]
    assert sorted(loaded) == [4, 5, 6]
    assert_whole(tmp_path)


def test_the_manifest_of_a_shard_says_what_it_holds(tmp_path):
    stopped(tmp_path)
    path = next(tmp_path.glob(f"{UNFINISHED}/clip_records/shards/*-00001-of-00004.json"))
    manifest = json.loads(path.read_text())
    assert manifest["info"]["ids"] == [NoiseClip(2).id, NoiseClip(3).id]
    shard = next(tmp_path.glob(f"{UNFINISHED}/clip_records/*/{path.stem}"))
    assert manifest["num_bytes"] == shard.stat().st_size
