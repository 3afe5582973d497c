"""Records that hold each frame once against those of version 2, which held whole clips.

    python -m benchmarks formats --config=configs/benchmark.py

The clips of the training split are written as version 2 had them, their frames as they are encoded
already. Then both are read, decoded and made into crops, turn by turn and with the same draws, and
the bytes of what they hold are added up.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from benchmarks import command
from benchmarks.data import DRAWS, Laps, make_from_record, open_training, rounds
from benchmarks.findings import Findings, Target, load_note, publish
from benchmarks.harness import median_cpu, median_ratio, take_turns
from data_prep.street.demo import ensure_records
from tmanet_jax.allocator import keep_freed_memory
from tmanet_jax.data import clip_records_v2
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.clips import EncodedClip
from tmanet_jax.data.frame_records import BUILDER_NAME, shard_name
from tmanet_jax.data.records import ClipRecords, open_clips
from tmanet_jax.data.samples import Sampling
from tmanet_jax.settings import Settings

MOST_CLIPS = 64
TURNS = 9
_TEXT, _ENCODED = tfds.features.Text(), tfds.features.Tensor(shape=(), dtype=np.object_)
_FEATURES = tfds.features.FeaturesDict(
    {
        "id": _TEXT,
        "group": _TEXT,
        "memory": tfds.features.Sequence(_ENCODED),
        "query": _ENCODED,
        "labels": _ENCODED,
    }
)


def add_command(commands: command.Subparsers) -> None:
    """`formats`."""
    parser = command.add(commands, "formats", __doc__, _run)
    command.add_options(parser, "json", config="configs/benchmark.py")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    ensure_records(Path(settings.data.dir), settings.data.render)
    publish(measure(settings), options.json)


def measure(settings: Settings) -> Findings:
    """Compares the two formats.

    Raises:
        UserError: as `open_training`.
    """
    split = settings.data.train_split
    source, sampling = open_training(settings)
    keep_freed_memory()
    cv2.setNumThreads(1)
    offsets = range(sampling.memory_range, 0, -1)
    indices = range(min(len(source), MOST_CLIPS))
    with tempfile.TemporaryDirectory(prefix="version-2-") as directory:
        clips = [source.read_encoded(index, offsets) for index in indices]
        copies = range(-(-DRAWS // len(clips)))  # reading version 2 remembers a few clips
        older = [dataclasses.replace(clip, id=f"{clip.id}_{i}") for i in copies for clip in clips]
        write_version_2(Path(directory), older, split, source.info.classes, source.frame_stride)
        formats = {"version 2": open_clips(directory, split), "each frame once": source}
        return _findings(formats, _bytes_of(source, offsets, clips), sampling, settings)


def _bytes_of(
    source: ClipRecords, offsets: Sequence[int], clips: Sequence[EncodedClip]
) -> tuple[int, int]:
    """Of frames and labels in version 2, and with each frame once."""
    wanted = [offset * source.frame_stride for offset in offsets]
    places: set[int] = set()
    for index in range(len(clips)):
        places |= {*source.index.memory(index, wanted), source.index.queries[index]}
    stored = [source.frames.read(place) for place in places]
    return sum(map(_size, clips)), sum(len(s.frame) + len(s.labels) for s in stored)


def _size(clip: EncodedClip) -> int:
    return len(clip.labels) + sum(len(frame.content) for frame in clip.frames)


def _findings(
    formats: dict[str, ClipRecords],
    num_bytes: tuple[int, int],
    sampling: Sampling,
    settings: Settings,
) -> Findings:
    laps = {name: Laps() for name in formats}
    num_clips = len(formats["version 2"])

    def maker(name: str) -> Callable[[int, np.random.Generator], object]:
        source, lap = formats[name], laps[name]
        return lambda index, rng: make_from_record(source, index % len(source), rng, sampling, lap)

    calls = {name: rounds(maker(name), num_clips, settings.seed) for name in formats}
    take_turns(calls, turns=0)
    for lap in laps.values():
        lap.seconds.clear()
    turns = take_turns(calls, turns=TURNS, warm_up=0)
    cpu = {name: 1000 * median_cpu(turns[name]) / DRAWS for name in formats}
    read = {name: 1000 * lap.seconds["read"] / (TURNS * DRAWS) for name, lap in laps.items()}
    older, newer = ([turn.cpu for turn in turns[name]] for name in formats)
    height, width = formats["version 2"].read_encoded(0).size
    return Findings(
        title=(
            f"{num_clips} clips of {sampling.memory_range + 1} frames of {height}x{width}, "
            f"T = {sampling.num_memory}"
        ),
        columns=("", *formats),
        rows=[
            ("CPU ms a clip, to the uint8 batch", *(f"{cpu[name]:.1f}" for name in formats)),
            ("of which reading and parsing", *(f"{read[name]:.1f}" for name in formats)),
            ("clips a core-second", *(f"{1000 / cpu[name]:.1f}" for name in formats)),
            ("MB of frames and labels", *(f"{size / 1e6:.1f}" for size in num_bytes)),
        ],
        targets=[
            Target(
                "clips a core-second, each frame once / version 2", median_ratio(older, newer), 1
            )
        ],
        notes=[load_note()],
    )


def write_version_2(
    out: Path, clips: Sequence[EncodedClip], split: str, classes: ClassSet, frame_stride: int
) -> None:
    """Writes clips as version 2 did, into one shard of a split."""
    directory = out / BUILDER_NAME / clip_records_v2.VERSION
    directory.mkdir(parents=True)
    shard = directory / shard_name(split, 0, 1)
    writer = ArrayRecordWriter(str(shard), "group_size:1,uncompressed")
    for clip in clips:
        *memory, query = (bytes(frame.content) for frame in clip.frames)
        encoded = {"memory": memory, "query": query, "labels": bytes(clip.labels)}
        writer.write(_FEATURES.serialize_example({"id": clip.id, "group": clip.group, **encoded}))
    writer.close()
    of_split = {
        "labelled": True,
        "ids": [clip.id for clip in clips],
        "groups": [clip.group for clip in clips],
        "stand_ins": [0] * len(clips),
        "skipped": [],
        "class_pixels": [7] * classes.num_classes,
        "ignored_pixels": 3,
    }
    about = {
        "classes": {**dataclasses.asdict(classes), "ignore": 255},  # as early ones say
        "memory_range": len(clips[0].frames) - 1,
        "frame_stride": frame_stride,
        "splits": {split: of_split},
    }
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=_FEATURES,
        split_infos=[tfds.core.SplitInfo(split, [len(clips)], shard.stat().st_size)],
        version=clip_records_v2.VERSION,
        check_data=False,
        metadata=tfds.core.MetadataDict(about),
        disable_shuffling=True,
    )
