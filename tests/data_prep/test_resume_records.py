"""Writing records in several starts: whole shards survive, and nothing of another plan is taken."""

import dataclasses
import resource

import numpy as np
import pytest

from data_prep.records import writer
from data_prep.records.writer import Start
from data_prep.source import WrongSourceError
from tests.made.small_clips import NoiseClip
from tests.made.small_preparations import NUM_CLIPS, UNFINISHED, assert_whole, clips, stopped, write
from tmanet_jax.data.classes import CAMVID, CITYSCAPES
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError


@pytest.fixture(autouse=True)
def two_clips_a_shard(monkeypatch):
    monkeypatch.setattr(writer, "FRAMES_PER_SHARD", 8)


def test_a_second_start_loads_only_the_clips_of_shards_that_are_not_whole(tmp_path):
    stopped(tmp_path)
    made, loaded = clips()
    starts: list[Start] = []
    written: list[int] = []
    write(tmp_path, made, on_start=starts.append, on_frame_written=lambda: written.append(1))
    assert sorted({*loaded}) == [4, 5, 6]
    assert starts == [(16, 2, 0)]
    assert len(written) == 12
    assert_whole(tmp_path)


def test_what_is_finished_is_not_done_again(tmp_path):
    write(tmp_path, clips()[0])
    made, loaded = clips()
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert loaded == []
    assert starts == [(NUM_CLIPS * 4, 4, 0)]
    assert_whole(tmp_path)


def test_of_finished_records_only_deleted_and_outdated_shards_are_written_again(tmp_path):
    write(tmp_path, clips()[0])
    next(tmp_path.glob("clip_records/*.*.*/*-00001-of-*")).unlink()
    made, loaded = clips()
    made[6] = dataclasses.replace(made[6], fingerprint="newer")
    write(tmp_path, made)
    assert sorted({*loaded}) == [2, 3, 6]
    assert_whole(tmp_path)


def test_outdated_and_half_written_shards_do_not_keep_finished_ones_from_being_taken(tmp_path):
    write(tmp_path, clips()[0])
    with pytest.raises(UserError, match="8 frames are kept"):
        write(tmp_path, clips(bad=[2], fingerprint="other")[0])
    half = next(tmp_path.glob("clip_records/*.*.*/*-00003-of-*")).name
    (next(tmp_path.glob(f"{UNFINISHED}/clip_records/*.*.*")) / half).write_bytes(b"half")
    made, loaded = clips()
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert loaded == []
    assert starts == [(NUM_CLIPS * 4, 4, 1)]
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
        ({"fingerprint": "newer"}, {}),
        ({}, {"classes": CAMVID}),
        ({}, {"classes": dataclasses.replace(CITYSCAPES, names=("tram", *CITYSCAPES.names[1:]))}),
        ({"memory_range": 2}, {"memory_range": 2}),
        ({"size": (40, 50)}, {"split": "val"}),
    ],
    ids=["files", "classes", "names of classes", "range", "split"],
)
def test_shards_of_other_files_or_options_are_removed_and_counted(tmp_path, fields, options):
    stopped(tmp_path)
    made, loaded = clips(**fields)
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append, **options)
    assert starts == [(0, 0, 2)]
    assert sorted({*loaded}) == list(range(NUM_CLIPS))


def test_only_the_shard_of_a_changed_file_is_written_again(tmp_path):
    stopped(tmp_path)
    made, loaded = clips()
    made[1] = dataclasses.replace(made[1], fingerprint="mended")
    starts: list[Start] = []
    write(tmp_path, made, on_start=starts.append)
    assert starts == [(8, 1, 1)]
    assert sorted({*loaded}) == [0, 1, 4, 5, 6]
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
    assert sorted({*loaded}) == [2, 3, 4, 5, 6]
    assert_whole(tmp_path)


def test_a_finished_shard_whose_manifest_cannot_be_read_is_written_again(tmp_path):
    write(tmp_path, clips()[0])
    manifest = next(tmp_path.glob("clip_records/shards/*-00001-of-*.json"))
    manifest.unlink()
    manifest.mkdir()
    made, loaded = clips()
    write(tmp_path, made)
    assert sorted({*loaded}) == [2, 3]
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
    assert sorted({*loaded}) == [4, 5, 6]
    assert_whole(tmp_path, numbers=[0, 1, 2, 3, 5, 6])


def test_a_shard_with_skipped_clips_is_not_kept_where_errors_stop(tmp_path):
    made, _ = clips(bad=[1, 4])
    made[4] = dataclasses.replace(made[4], error=WrongSourceError("all are wrong"))
    with pytest.raises(UserError, match="all are wrong"):
        write(tmp_path, made, skip_unreadable=True)
    again, loaded = clips()
    write(tmp_path, again)
    assert sorted({*loaded}) == [0, 1, 4, 5, 6]
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
    assert starts == [(16, 2, 0)]
    assert len(open_clips(tmp_path, "train")) == NUM_CLIPS
