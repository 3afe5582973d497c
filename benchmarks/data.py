"""How fast training clips are prepared.

    python -m benchmarks data --config=configs/benchmark.py

One side is this project's way from a record to the uint8 batch, the other the original's order of
work on the same frames as PNG files, turn by turn, with the same draws. Then grain's whole pipeline
with none, one and two worker processes.

The original decodes T + 1 whole PNG frames and a PNG of labels, resizes all of them whole, tests
crops of the whole resized labels, crops, mirrors, distorts in float32, and stacks with padding.
Each step calls what its transforms call (OpenCV, Pillow, numpy), except that frames are decoded as
RGB at once, which costs the same and spares a conversion, and without its slow way of making
tensors of lists.
"""

import argparse
import collections
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import psutil
from PIL import Image

from benchmarks import command
from benchmarks.findings import Findings, Target, load_note, publish
from benchmarks.harness import Turn, median_cpu, median_ratio, take_turns
from data_prep.street.demo import ensure_records
from tmanet_jax.allocator import keep_freed_memory
from tmanet_jax.data import augment, samples
from tmanet_jax.data.augment import PhotometricDraw, draw_clip_photometry
from tmanet_jax.data.classes import IGNORE
from tmanet_jax.data.clips import Clip
from tmanet_jax.data.codec import Size
from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.data.records import ClipRecords, open_clips
from tmanet_jax.data.resize import Box, scaled_size
from tmanet_jax.data.samples import Lap, Sampling
from tmanet_jax.settings import Settings

MOST_CLIPS = 4
DRAWS = 8
"""Different draws in a turn; more than clips."""
TURNS = 7
WORKERS = (0, 1, 2)
BATCHES_BEFORE, BATCHES = 4, 8

WAYS = ("records", "original")
STAGES = ("read", "decode", "labels and draws", "resize, crop", "colours", "batch")


def add_command(commands: command.Subparsers) -> None:
    """`data`."""
    parser = command.add(commands, "data", __doc__, _run)
    command.add_options(parser, "json", config="configs/benchmark.py")


def _run(options: argparse.Namespace) -> None:
    settings = command.settings_of(options)
    ensure_records(Path(settings.data.dir), settings.data.render)
    publish(measure(settings), options.json)


def open_training(settings: Settings) -> tuple[ClipRecords, Sampling]:
    """The clips that a run trains on, and how it makes samples of them.

    Raises:
        UserError: there are no records, or they do not suit the settings.
    """
    source = open_clips(settings.data.dir, settings.data.train_split, settings.data.frame_stride)
    sampling = Sampling(
        settings.data.augmentation, settings.model.head.num_memory, settings.memory_range
    )
    source.check_memory(sampling.num_memory, sampling.memory_range)
    source.check_labelled()
    return source, sampling


def measure(settings: Settings) -> Findings:
    """Compares the two ways of preparing clips, and measures the pipeline.

    Raises:
        UserError: as `open_training`.
    """
    source, sampling = open_training(settings)
    keep_freed_memory()
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="pngs-") as directory:
        ways = Ways(source, sampling, Path(directory), settings.seed)
    cv2.setNumThreads(num_threads)
    pipeline = {workers: _pipeline(settings, source, workers) for workers in WORKERS}
    return _findings(settings, source, ways, pipeline)


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


class Ways:
    """Both ways on the same clips with the same draws, in turns.

    Attributes:
        turns: of each; a turn is `DRAWS` clips.
        laps: CPU seconds of each by stage, all turns together.
    """

    def __init__(self, source: ClipRecords, sampling: Sampling, directory: Path, seed: int) -> None:
        num_clips = min(len(source), MOST_CLIPS)
        offsets = range(sampling.memory_range, 0, -1)
        pngs = [write_pngs(source.read(index, offsets), directory) for index in range(num_clips)]
        self.laps = {way: Laps() for way in WAYS}

        def from_records(index: int, rng: np.random.Generator) -> np.ndarray:
            return make_from_record(source, index, rng, sampling, self.laps["records"])[0]

        def original(index: int, rng: np.random.Generator) -> np.ndarray:
            self.laps["original"].start()
            return make_from_pngs(pngs[index], rng, sampling, self.laps["original"])[0]

        calls = {
            "records": rounds(from_records, num_clips, seed),
            "original": rounds(original, num_clips, seed),
        }
        take_turns(calls, turns=0)
        for laps in self.laps.values():
            laps.seconds.clear()
        self.turns = take_turns(calls, turns=TURNS, warm_up=0)

    def stage_ms(self, way: str, stage: str) -> float:
        """CPU milliseconds a clip."""
        return 1000 * self.laps[way].seconds[stage] / (TURNS * DRAWS)

    def total_ms(self, way: str) -> float:
        """CPU milliseconds a clip, median over the turns."""
        return 1000 * median_cpu(self.turns[way]) / DRAWS

    def ratio(self) -> float:
        """How many times the clips per CPU second of the original's order."""
        records, original = ([turn.cpu for turn in self.turns[way]] for way in WAYS)
        return median_ratio(original, records)


def make_from_record(
    source: ClipRecords, index: int, rng: np.random.Generator, sampling: Sampling, laps: Laps
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a training clip as the pipeline does: padded frames and labels."""
    laps.start()
    offsets = samples.draw_memory_offsets(rng, sampling.num_memory, sampling.memory_range)
    clip = source.read_encoded(index, offsets)
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


def rounds(
    make: Callable[[int, np.random.Generator], object], num_clips: int, seed: int
) -> Callable[[], None]:
    """A call for each turn: `DRAWS` clips, no two turns with the same draws."""
    rounds = itertools.count()

    def make_round() -> None:
        number = next(rounds)
        for draw in range(DRAWS):
            make(draw % num_clips, np.random.default_rng((seed, number, draw)))

    return make_round


def _pipeline(settings: Settings, source: ClipRecords, num_workers: int) -> Turn:
    """What a clip takes when grain prepares batches, worker processes included."""
    with train_batches(
        source,
        settings.data.augmentation,
        num_memory=settings.model.head.num_memory,
        memory_range=settings.memory_range,
        batch_size=settings.batch_size,
        seed=settings.seed,
        num_workers=num_workers,
    ) as batches:
        for _ in range(BATCHES_BEFORE):
            next(batches)
        wall, cpu = time.perf_counter(), _cpu_of_all_processes()
        for _ in range(BATCHES):
            next(batches)
        wall, cpu = time.perf_counter() - wall, _cpu_of_all_processes() - cpu
    num_clips = BATCHES * settings.batch_size
    return Turn(wall / num_clips, cpu / num_clips)


def _cpu_of_all_processes() -> float:
    """CPU seconds of this process and its children."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _findings(
    settings: Settings,
    source: ClipRecords,
    ways: Ways,
    pipeline: Mapping[int, Turn],
) -> Findings:
    height, width = source.read_encoded(0).size
    crop_height, crop_width = settings.data.augmentation.crop_size
    low, high = settings.data.augmentation.ratio_range
    rows = [(stage, *(f"{ways.stage_ms(way, stage):.1f}" for way in WAYS)) for stage in STAGES]
    rows += [("to the uint8 batch", *(f"{ways.total_ms(way):.1f}" for way in WAYS))]
    fastest = max(1 / turn.wall for turn in pipeline.values())
    return Findings(
        title=(
            f"Training clips of {settings.model.head.num_memory + 1} frames, {height}x{width} to "
            f"{crop_height}x{crop_width}, ratio {low:g} to {high:g}: ms of CPU a clip"
        ),
        columns=("stage", "this project", "original's order"),
        rows=rows,
        targets=[
            Target("clips per CPU second, this project / original's order", ways.ratio(), 6),
            Target("clips/s of grain's pipeline on this machine", fastest, 20),
        ],
        notes=[
            *(
                f"grain, {workers} workers: {1 / turn.wall:.1f} clips/s, {1000 * turn.cpu:.1f} ms "
                "of CPU a clip in all processes."
                for workers, turn in pipeline.items()
            ),
            load_note(),
        ],
    )


def write_pngs(clip: Clip, directory: Path) -> list[Path]:
    """Writes a clip's frames, the query last, and then its labels, with OpenCV's compression."""
    pictures = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in clip.frames_SxHxWx3]
    pictures.append(clip.labels_HxW)
    paths = [directory / f"{clip.id}_{place}.png" for place in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        cv2.imwrite(str(path), picture)
    return paths


def make_from_pngs(
    pngs: Sequence[Path], rng: np.random.Generator, sampling: Sampling, lap: Lap
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a training clip; its draws are those that `samples.draw_clip` makes of the generator.

    Returns:
        SxHxWx3 uint8 RGB frames, the query last, and HxW uint8 labels, both padded.
    """
    augmentation = sampling.augmentation
    offsets = samples.draw_memory_offsets(rng, sampling.num_memory, sampling.memory_range)
    paths = [pngs[-2 - offset] for offset in (*offsets, 0)]
    contents = [np.frombuffer(path.read_bytes(), np.uint8) for path in paths]
    lap("read")
    frames = [np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)) for content in contents]
    with Image.open(pngs[-1]) as picture:
        labels_HxW = np.array(picture)
    lap("decode")
    size = scaled_size(Size(*labels_HxW.shape), rng.uniform(*augmentation.ratio_range))
    frames = [_resized(frame_HxWx3, size, cv2.INTER_LINEAR) for frame_HxWx3 in frames]
    labels_HxW = _resized(labels_HxW, size, cv2.INTER_NEAREST)
    lap("resize, crop")
    box = _choose_box(rng, labels_HxW, size, sampling)
    is_flipped = rng.random() < augmentation.flip_probability
    lap("labels and draws")
    frames = [_cropped(frame_HxWx3, box, flip=is_flipped) for frame_HxWx3 in frames]
    labels_HxW = _cropped(labels_HxW, box, flip=is_flipped)
    lap("resize, crop")
    photometry = draw_clip_photometry(rng, len(frames), augmentation.photometric)
    frames = [
        _distorted(frame_HxWx3, draw) for frame_HxWx3, draw in zip(frames, photometry, strict=True)
    ]
    lap("colours")
    frames_SxHxWx3 = np.stack([_padded(frame, augmentation.crop_size, 0) for frame in frames])
    labels_HxW = _padded(labels_HxW, augmentation.crop_size, IGNORE)
    lap("batch")
    return frames_SxHxWx3, labels_HxW


def _resized(picture_HxW: np.ndarray, size: Size, interpolation: int) -> np.ndarray:
    return cv2.resize(picture_HxW, (size.width, size.height), interpolation=interpolation)


def _choose_box(
    rng: np.random.Generator, labels_HxW: np.ndarray, size: Size, sampling: Sampling
) -> Box:
    boxes = augment.draw_boxes(rng, size, sampling.augmentation.crop_size)
    for _ in range(augment.CROP_TRIES):
        box = next(boxes)
        classes, counts = np.unique(box.of(labels_HxW), return_counts=True)
        counts = counts[classes != IGNORE]
        if len(counts) > 1 and counts.max() / counts.sum() < sampling.augmentation.cat_max_ratio:
            return box
    return next(boxes)


def _cropped(picture_HxW: np.ndarray, box: Box, *, flip: bool) -> np.ndarray:
    crop_HxW = box.of(picture_HxW)
    return cv2.flip(crop_HxW, 1) if flip else crop_HxW


def _padded(picture_HxW: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    below, right = size[0] - picture_HxW.shape[0], size[1] - picture_HxW.shape[1]
    values = (value,) * 3
    return cv2.copyMakeBorder(picture_HxW, 0, below, 0, right, cv2.BORDER_CONSTANT, value=values)


def _distorted(frame_HxWx3: np.ndarray, draw: PhotometricDraw) -> np.ndarray:
    if draw.brightness is not None:
        frame_HxWx3 = _converted(frame_HxWx3, offset=draw.brightness)
    if draw.contrast_before is not None:
        frame_HxWx3 = _converted(frame_HxWx3, factor=draw.contrast_before)
    if draw.saturation is not None:
        hsv_HxWx3 = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2HSV)
        hsv_HxWx3[:, :, 1] = _converted(hsv_HxWx3[:, :, 1], factor=draw.saturation)
        frame_HxWx3 = cv2.cvtColor(hsv_HxWx3, cv2.COLOR_HSV2RGB)
    if draw.hue is not None:
        hsv_HxWx3 = cv2.cvtColor(frame_HxWx3, cv2.COLOR_RGB2HSV)
        hsv_HxWx3[:, :, 0] = (hsv_HxWx3[:, :, 0].astype(int) + draw.hue) % 180
        frame_HxWx3 = cv2.cvtColor(hsv_HxWx3, cv2.COLOR_HSV2RGB)
    if draw.contrast_after is not None:
        frame_HxWx3 = _converted(frame_HxWx3, factor=draw.contrast_after)
    return frame_HxWx3


def _converted(picture_HxW: np.ndarray, factor: float = 1.0, offset: float = 0.0) -> np.ndarray:
    values_HxW = picture_HxW.astype(np.float32) * factor + offset
    return np.clip(values_HxW, 0, 255).astype(np.uint8)
