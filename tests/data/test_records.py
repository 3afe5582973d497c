"""Clip records: read by index as they were written, damage named."""

import dataclasses
import itertools
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.records import shards
from data_prep.records.writer import FRAMES_PER_SHARD, write_records
from tests.made.small_clips import NoiseClip, damage, plan_of, write_noise
from tmanet_jax.data.classes import CITYSCAPES
from tmanet_jax.data.clips import EncodedClip, EncodedFrame
from tmanet_jax.data.codec import encode_frame
from tmanet_jax.data.frame_records import SCHEMA_VERSION
from tmanet_jax.data.records import open_clips
from tmanet_jax.errors import UserError

PROJECT = Path(__file__).parents[2]


def test_clips_come_back_as_they_were_written_and_in_that_order(tmp_path):
    clips = [NoiseClip(number, group) for number, group in ((5, "clean"), (2, "degraded"), (7, ""))]
    plans = {"val": plan_of(clips)}
    num_bytes = write_records(tmp_path, CITYSCAPES, 3, plans).num_bytes
    source = open_clips(tmp_path, "val")
    assert num_bytes > 3 * 4 * 70 * 100
    assert source.info.classes == CITYSCAPES
    assert source.info.memory_range == 3
    assert source.labelled
    assert [source.clip_id(i) for i in range(3)] == [clip.id for clip in clips]
    assert [source.group(i) for i in range(3)] == ["clean", "degraded", ""]
    for index, clip in enumerate(clips):
        read, written = source.read(index, (3, 2, 1)), clip.load()
        assert (read.id, read.group) == (clip.id, clip.group)
        np.testing.assert_array_equal(read.frames_SxHxWx3, written.frames_SxHxWx3)
        np.testing.assert_array_equal(read.labels_HxW, written.labels_HxW)


@pytest.mark.parametrize("offsets", [(), (1,), (3, 1), (3, 2, 1)])
def test_memory_offsets_count_back_from_the_query(tmp_path, offsets):
    source = write_noise(tmp_path, 1)
    frames = NoiseClip(0).load().frames_SxHxWx3
    wanted = [frames[3 - offset] for offset in (*offsets, 0)]
    np.testing.assert_array_equal(source.read(0, offsets).frames_SxHxWx3, wanted)


def test_only_the_frame_that_is_asked_for_is_decoded():
    frame = encode_frame(np.zeros((8, 8, 3), np.uint8))
    contents = {"record 3": b"torn", "record 4": frame, "record 5": frame}
    frames = tuple(EncodedFrame(content, where) for where, content in contents.items())
    clip = EncodedClip("a", "", frames, labels=b"", num_classes=19)
    assert clip.decode_window(2, 0, 0, 8, 8).shape == (8, 8, 3)
    assert clip.decode_window(1, 0, 0, 8, 8).shape == (8, 8, 3)
    with pytest.raises(UserError, match=r"Clip a .record 3"):
        clip.decode_window(0, 0, 0, 8, 8)


def test_labels_of_no_class_are_refused_wherever_they_come_from(tmp_path):
    source = write_noise(tmp_path, 1)
    encoded = dataclasses.replace(source.read_encoded(0), num_classes=18)
    with pytest.raises(UserError, match=r"noise_000000 .*: its labels are not all of the 18 class"):
        encoded.decode_labels()


def test_a_split_without_labels_reads_as_ignored_everywhere(tmp_path):
    plans = {"test": plan_of([NoiseClip(0)], labelled=False)}
    write_records(tmp_path, CITYSCAPES, 3, plans)
    source = open_clips(tmp_path, "test")
    assert not source.labelled
    assert np.all(source.read(0, ()).labels_HxW == 255)


def test_many_clips_take_several_shards_and_each_knows_where_it_lies(tmp_path):
    clips_a_shard = FRAMES_PER_SHARD // 4
    source = write_noise(tmp_path, clips_a_shard + 3)
    shards = sorted(tmp_path.glob("clip_records/*.*.*/*array_record*"))
    places = {0: (0, 3), clips_a_shard - 1: (0, FRAMES_PER_SHARD - 1), clips_a_shard + 2: (1, 11)}
    for index, (shard, record) in places.items():
        where = [f"record {record - 2} of {shards[shard]}", f"record {record} of {shards[shard]}"]
        assert [frame.where for frame in source.read_encoded(index, (2,)).frames] == where


def test_a_source_travels_to_spawned_workers(tmp_path):
    source = pickle.loads(pickle.dumps(write_noise(tmp_path, 2)))
    assert source.read(1, ()).id == NoiseClip(1).id


def test_records_need_no_tensorflow(tmp_path):
    write_noise(tmp_path, 1).read(0, ())
    assert "tensorflow" not in sys.modules


def test_no_records_names_the_command_that_makes_them(tmp_path):
    with pytest.raises(UserError, match=rf"data_prep\.cityscapes --source=DIR --out={tmp_path}"):
        open_clips(tmp_path, "train")


def test_records_of_another_version_are_refused(tmp_path):
    write_noise(tmp_path, 1)
    (tmp_path / "clip_records" / SCHEMA_VERSION).rename(tmp_path / "clip_records" / "0.9.0")
    with pytest.raises(UserError, match=r"version 0\.9\.0, this program reads version 3\.0\.0"):
        open_clips(tmp_path, "train")


def test_a_split_that_is_not_there_is_named(tmp_path):
    write_noise(tmp_path, 1)
    with pytest.raises(UserError, match="no split 'val', only train"):
        open_clips(tmp_path, "val")


@pytest.mark.parametrize("name", ["metadata.json", "dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["{torn", "{}", None])
def test_a_description_that_cannot_be_read_is_named(tmp_path, name, content):
    write_noise(tmp_path, 1)
    path = tmp_path / "clip_records" / SCHEMA_VERSION / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"clip_records.* cannot be read"):
        open_clips(tmp_path, "train")


def test_records_that_claim_another_format_are_named(tmp_path):
    write_noise(tmp_path, 1)
    path = tmp_path / "clip_records" / SCHEMA_VERSION / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"cannot be read .*TFRECORD"):
        open_clips(tmp_path, "train")


def test_a_description_of_other_bytes_is_told_in_short(tmp_path):
    write_noise(tmp_path, 1)
    path = tmp_path / "clip_records" / SCHEMA_VERSION / "features.json"
    path.write_bytes(b"\xff" + path.read_bytes() * 10)
    with pytest.raises(UserError, match=r"cannot be read .*codec") as refusal:
        open_clips(tmp_path, "train")
    assert len(str(refusal.value)) < 1500


def changed(field, value):
    """Sets a field, by its path, of JSON."""

    def change(values):
        *path, last = field
        for part in path:
            values = values[part]
        if value is None:
            del values[last]
        else:
            values[last] = value

    return change


TRAIN = ("splits", "train")
INDEX = (*TRAIN, "index")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed(("memory_range",), "3"), "memory_range is '3', not a whole number"),
        (changed(("memory_range",), -1), "memory range is 0 or more"),
        (changed(("frame_stride",), 0), "frame stride 1 or more"),
        (changed(("classes", "names"), "road"), "classes.names is 'road', not a list"),
        (changed(("classes", "name"), None), "classes.name is missing"),
        (changed(("foreign",), 1), "foreign is unknown"),
        (changed(("splits",), []), "splits is"),
        (changed((*INDEX, "ids", 0), 5), "ids.0. is 5, not text"),
        (changed((*INDEX, "ids", 0), "../../etc/passwd"), "no file can be named after"),
        (changed((*INDEX, "ids", 0), "a" * 300), "longer than 220 bytes"),
        (changed((*INDEX, "ids", 1), NoiseClip(0).id), "two clips have one name"),
        (changed((*INDEX, "groups"), ["clean"]), "2 ids, 1 groups"),
        (changed((*INDEX, "numbers"), [1, 2]), "2 videos of 8 frames do not have 2 numbers"),
        (changed((*INDEX, "queries"), [3, 8]), "a query is none of its 8 frames"),
        (changed((*INDEX, "begins"), [4, 4]), "a memory begins after its query"),
        (changed((*INDEX, "begins"), [-1, 4]), "a memory begins after its query"),
        (changed((*TRAIN, "reach"), -1), "a count is negative"),
        (changed((*TRAIN, "class_pixels"), [1, 2]), "pixels of 2 classes, of 19"),
        (changed((*TRAIN, "labelled"), "yes"), "labelled is 'yes', not true or false"),
    ],
)
def test_a_description_of_wrong_values_is_told_in_one_line(tmp_path, change, words):
    write_noise(tmp_path, 2)
    path = next(tmp_path.glob("clip_records/*.*.*/metadata.json"))
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"cannot be read .*{words}.*[.] Make them again"):
        open_clips(tmp_path, "train")


@pytest.mark.parametrize("name", ["metadata.json", "dataset_info.json", "features.json"])
def test_a_description_that_is_nested_deep_is_told(tmp_path, name):
    write_noise(tmp_path, 1)
    path = tmp_path / "clip_records" / SCHEMA_VERSION / name
    path.write_text('{"a":' * 5000 + "1" + "}" * 5000)
    with pytest.raises(UserError, match=r"clip_records.* cannot be read"):
        open_clips(tmp_path, "train")


def test_a_frame_fewer_than_the_shards_hold_is_told(tmp_path):
    write_noise(tmp_path, 3)
    path = next(tmp_path.glob("clip_records/*.*.*/metadata.json"))
    values = json.loads(path.read_text())
    index = values["splits"]["train"]["index"]
    for field in ("ids", "groups", "queries", "begins", "numbers"):
        index[field].pop()
    index["lengths"][-1] -= 1
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"shards of train hold 12 records .*\.json names 11"):
        open_clips(tmp_path, "train")


@pytest.mark.parametrize("clip_id", ["a/b", "..", "a\\b", "line\nbreak", "é" * 111])
def test_a_clip_that_no_file_can_be_named_after_is_refused(tmp_path, monkeypatch, clip_id):
    monkeypatch.setattr(NoiseClip, "id", clip_id)
    with pytest.raises(UserError, match="Rename its files"):
        write_noise(tmp_path, 1)


def test_a_record_of_another_description_is_damaged(tmp_path):
    write_noise(tmp_path / "records", 1)
    write_records(tmp_path / "other", CITYSCAPES, 3, {"train": plan_of([NoiseClip(1)])})
    (shard,) = (tmp_path / "other").glob("clip_records/*.*.*/*array_record*")
    shutil.copy(shard, tmp_path / "records" / shard.relative_to(tmp_path / "other"))
    words = "it holds frame 3 of 'noise_000001'"
    with pytest.raises(UserError, match=rf"Clip noise_000000 .record 3 of {tmp_path}.*{words}"):
        open_clips(tmp_path / "records", "train").read_encoded(0)


def test_frames_of_several_sizes_are_damage(tmp_path, monkeypatch):
    sizes = itertools.cycle([(70, 100), (70, 100), (80, 120), (70, 100)])
    monkeypatch.setattr(
        shards, "encode_frame", lambda _: encode_frame(np.zeros((*next(sizes), 3), np.uint8))
    )
    with pytest.raises(UserError, match="of several sizes"):
        write_noise(tmp_path, 1).read_encoded(0, (3, 2, 1))


@pytest.mark.parametrize(("num_memory", "memory_range"), [(4, 3), (2, 4), (-1, 3)])
def test_more_memory_than_there_is_is_refused(tmp_path, num_memory, memory_range):
    source = write_noise(tmp_path, 1)
    source.check_memory(3, 3)
    source.check_memory(0, 0)
    with pytest.raises(UserError, match="memory range"):
        source.check_memory(num_memory, memory_range)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "harm", [truncate, lambda path: path.write_bytes(b""), lambda path: path.unlink()]
)
def test_a_torn_shard_names_shard_index_and_clip(tmp_path, harm):
    source = write_noise(tmp_path, 4)
    path = next(tmp_path.glob("clip_records/*.*.*/*array_record*"))
    harm(path)
    with pytest.raises(UserError, match=rf"Clip noise_000002 \(record 11 of {path}\)"):
        source.read(2, ())


def test_changed_bytes_are_noticed(tmp_path):
    source = write_noise(tmp_path, 5)
    damage(source)
    with pytest.raises(UserError, match=r"Clip noise_000002 \(record \d+ of"):
        for index in range(5):
            source.read(index, (3, 2, 1))
