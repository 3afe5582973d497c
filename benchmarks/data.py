"""How fast training clips are prepared.

    python -m benchmarks data --config=configs/benchmark.py

One side is this project's way from a record to the uint8 batch, the other the original's order of
work on the same frames as PNG files (`original_order`), turn by turn, with the same draws. Then
grain's whole pipeline with none, one and two worker processes, and what TFDS adds to reading.
"""

import argparse
import collections
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import psutil
import tensorflow_datasets as tfds

from benchmarks import command, original_order
from benchmarks.harness import Report, Target, Turn, median_cpu, median_ratio, publish, take_turns
from data_prep.demo import ensure_records
from tmanet_jax.allocator import keep_freed_memory
from tmanet_jax.data import samples
from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.data.records import BUILDER_NAME, SCHEMA_VERSION, ClipSource, open_clips
from tmanet_jax.data.samples import Sampling
from tmanet_jax.settings import Settings

_MOST_CLIPS = 4
_DRAWS = 8  # different draws in a turn; more than clips
_TURNS = 7
_WORKERS = (0, 1, 2)
_BATCHES_BEFORE, _BATCHES = 4, 8
_STAGES = ("read", "decode", "labels and draws", "resize, crop", "colours", "batch")
_FLOOR = ("read", "decode")


def add_command(commands: command.Subparsers) -> None:
    """`data`."""
    parser = command.add(commands, "data", __doc__, _run)
    command.add_options(parser, "json", config="configs/benchmark.py")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    street = settings.data.render
    if street is not None:
        ensure_records(
            Path(settings.data.dir),
            size=street.size,
            num_train=street.num_train,
            num_eval=street.num_eval,
            memory_range=street.memory_range,
        )
    publish(measure(settings), options.json)


class Laps:
    """CPU seconds of this thread by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self._last = time.thread_time()

    def start(self) -> None:
        """What comes now belongs to the next lap."""
        self._last = time.thread_time()

    def __call__(self, stage: str) -> None:
        """A stage ends."""
        now = time.thread_time()
        self.seconds[stage] += now - self._last
        self._last = now


def measure(settings: Settings) -> Report:
    """Compares the two ways of preparing clips, and measures the pipeline.

    Raises:
        UserError: there are no records, or they do not suit the settings.
    """
    source = open_clips(settings.data.dir, settings.data.train_split)
    sampling = Sampling(
        settings.data.augmentation, settings.model.head.num_memory, settings.data.memory_range
    )
    source.check_memory(sampling.num_memory, sampling.memory_range)
    source.check_labelled()
    keep_freed_memory()
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="pngs-") as directory:
        comparison = Comparison(source, sampling, Path(directory), settings.seed)
    cv2.setNumThreads(num_threads)
    reading = _compare_reading(source)
    pipeline = {workers: _measure_pipeline(settings, source, workers) for workers in _WORKERS}
    return _report(settings, source, comparison, reading, pipeline)


class Comparison:
    """Both ways on the same clips with the same draws, in turns.

    Attributes:
        turns: of each side; a turn is `_DRAWS` clips.
        laps: CPU seconds of each side by stage, all turns together.
    """

    def __init__(self, source: ClipSource, sampling: Sampling, directory: Path, seed: int) -> None:
        num_clips = min(len(source), _MOST_CLIPS)
        offsets = range(sampling.memory_range, 0, -1)
        pngs = [
            original_order.write_pngs(source.read(index, offsets), directory)
            for index in range(num_clips)
        ]
        self.laps = {"records": Laps(), "original": Laps()}

        def from_records(index: int, rng: np.random.Generator) -> np.ndarray:
            return make_from_record(source, index, rng, sampling, self.laps["records"])[0]

        def original(index: int, rng: np.random.Generator) -> np.ndarray:
            self.laps["original"].start()
            return original_order.make_clip(pngs[index], rng, sampling, self.laps["original"])[0]

        frames_SxHxWx3 = original(0, np.random.default_rng(seed))
        sides = {
            "records": _rounds(from_records, num_clips, seed),
            "original": _rounds(original, num_clips, seed),
            "normalise": lambda: [original_order.normalized(frames_SxHxWx3) for _ in range(_DRAWS)],
        }
        take_turns(sides, turns=0)
        for laps in self.laps.values():
            laps.seconds.clear()
        self.turns = take_turns(sides, turns=_TURNS, warm_up=0)

    def stage_ms(self, side: str, stage: str) -> float:
        """CPU milliseconds a clip."""
        return 1000 * self.laps[side].seconds[stage] / (_TURNS * _DRAWS)

    def total_ms(self, side: str) -> float:
        """CPU milliseconds a clip, median over the turns."""
        return 1000 * median_cpu(self.turns[side]) / _DRAWS

    def ratio(self) -> float:
        """How many times the clips per CPU second of the original's order."""
        return median_ratio(
            [turn.cpu for turn in self.turns["original"]],
            [turn.cpu for turn in self.turns["records"]],
        )


def make_from_record(
    source: ClipSource, index: int, rng: np.random.Generator, sampling: Sampling, laps: Laps
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a training clip as the pipeline does: padded frames and labels."""
    laps.start()
    clip = source.read_encoded(index)
    laps("read")
    labels_HxW = clip.decode_labels()
    laps("decode")
    draw = samples.draw_clip(rng, labels_HxW, sampling)
    laps("labels and draws")
    batch = samples.empty_batch(1, sampling.num_memory + 1, sampling.augmentation.crop_size)
    laps("batch")
    samples.make_frames(clip, draw, batch.frames[0], laps)
    samples.make_labels(labels_HxW, draw, batch.labels[0])
    laps("labels and draws")
    return batch.frames[0], batch.labels[0]


def _rounds(
    make: Callable[[int, np.random.Generator], object], num_clips: int, seed: int
) -> Callable[[], None]:
    """Rounds of `_DRAWS` clips, no two rounds with the same draws."""
    rounds = itertools.count()

    def make_round() -> None:
        number = next(rounds)
        for draw in range(_DRAWS):
            make(draw % num_clips, np.random.default_rng((seed, number, draw)))

    return make_round


def _compare_reading(source: ClipSource) -> Mapping[str, Sequence[Turn]]:
    """Reading records undecoded: ArrayRecord alone, as here, and through TFDS's own parser."""
    builder = tfds.builder_from_directory(source.data_dir / BUILDER_NAME / SCHEMA_VERSION)
    parsed = builder.as_data_source(source.split)
    indices = range(min(len(source), _MOST_CLIPS))
    sides: dict[str, Callable[[], object]] = {
        "ArrayRecord": lambda: [parsed.data_source[index] for index in indices],
        "here": lambda: [source.read_encoded(index) for index in indices],
        "TFDS": lambda: [parsed[index] for index in indices],
    }
    turns = take_turns(sides, turns=_TURNS)
    return {
        name: [Turn(turn.wall / len(indices), turn.cpu / len(indices)) for turn in taken]
        for name, taken in turns.items()
    }


def _measure_pipeline(settings: Settings, source: ClipSource, num_workers: int) -> Turn:
    """What a clip takes when grain prepares batches, worker processes included."""
    with train_batches(
        source,
        settings.data.augmentation,
        num_memory=settings.model.head.num_memory,
        memory_range=settings.data.memory_range,
        batch_size=settings.batch_size,
        seed=settings.seed,
        num_workers=num_workers,
    ) as batches:
        for _ in range(_BATCHES_BEFORE):
            next(batches)
        wall, cpu = time.perf_counter(), _cpu_of_all_processes()
        for _ in range(_BATCHES):
            next(batches)
        wall, cpu = time.perf_counter() - wall, _cpu_of_all_processes() - cpu
    num_clips = _BATCHES * settings.batch_size
    return Turn(wall / num_clips, cpu / num_clips)


def _cpu_of_all_processes() -> float:
    """CPU seconds of this process and its children."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _report(
    settings: Settings,
    source: ClipSource,
    comparison: Comparison,
    reading: Mapping[str, Sequence[Turn]],
    pipeline: Mapping[int, Turn],
) -> Report:
    augmentation = settings.data.augmentation
    height, width = source.read_encoded(0).size
    rows = [
        (stage, *(f"{comparison.stage_ms(side, stage):.1f}" for side in ("records", "original")))
        for stage in _STAGES
    ]
    ours, original = comparison.total_ms("records"), comparison.total_ms("original")
    normalise = comparison.total_ms("normalise")
    rows += [
        ("to the uint8 batch", f"{ours:.1f}", f"{original:.1f}"),
        ("normalise", "on the device", f"{normalise:.1f}"),
    ]
    floor = sum(comparison.stage_ms("records", stage) for stage in _FLOOR)
    best = min(pipeline.values(), key=lambda turn: turn.wall)
    plain = median_cpu(reading["ArrayRecord"])
    notes = [
        f"Floor of this project: {floor:.1f} ms to read and decode, {ours - floor:.1f} above it. "
        f"With normalising on the host the original takes {(original + normalise) / ours:.1f} "
        "times as long.",
        *(
            f"grain, {workers} workers: {1 / turn.wall:.1f} clips/s, {1000 * turn.cpu:.1f} ms of "
            f"CPU a clip in all processes ({1 / turn.cpu:.1f} clips per CPU second)."
            for workers, turn in pipeline.items()
        ),
        f"Reading a record: ArrayRecord alone {1000 * plain:.1f} ms, as here "
        f"{1000 * median_cpu(reading['here']):.1f}, through TFDS's parser "
        f"{1000 * median_cpu(reading['TFDS']):.1f}.",
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f} processes. Only CPU seconds "
        "and ratios mean much where others work beside it.",
    ]
    return Report(
        title=(
            f"Training clips of {settings.model.head.num_memory + 1} frames, {height}x{width} to "
            f"{augmentation.crop_size[0]}x{augmentation.crop_size[1]}, ratio "
            f"{augmentation.ratio_range[0]:g} to {augmentation.ratio_range[1]:g}: ms of CPU a clip"
        ),
        columns=("stage", "this project", "original's order"),
        rows=rows,
        targets=[
            Target("clips per CPU second, this project / original's order", comparison.ratio(), 6),
            Target("clips/s of grain's pipeline on this machine", 1 / best.wall, 20),
        ],
        notes=notes,
    )
