"""What a trained network makes of spoilt frames, of videos, and of its own memory.

Each score is kept in the run's workdir and not made again; delete its file to have it made anew.
"""

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from benchmarks.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from benchmarks.findings import write_text
from data_prep import cityscapes, synthetic
from tmanet_jax.data.clips import Clip
from tmanet_jax.data.records import ClipRecords, has_records, open_clips
from tmanet_jax.errors import UserError
from tmanet_jax.inference.attention import MemoryRead, read_of_memory
from tmanet_jax.inputs import open_split
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.parallel.sharding import to_default_device
from tmanet_jax.scoring.clips import ClipSegmenter, compile_segmenter
from tmanet_jax.scoring.metrics import scores
from tmanet_jax.scoring.trained_network import TrainedNetwork, load_trained
from tmanet_jax.scoring.videos import evaluate_videos, streaming_network
from tmanet_jax.settings import Settings

_NUM_CORRUPTED = 25
"""Clips of a pass; there are 70 passes."""
VIDEOS = Path("data/demo_videos")
_NUM_VIDEOS, _BEFORE, _AFTER = 20, 12, 7
"""Frames before and after one that in half the videos is spoilt."""
CORRUPTIONS_FILE, READS_FILE = "corruptions.json", "reads.json"
CONSISTENCY_FILE = "over_time.json"

ONE_FRAME, ALL_FRAMES = "the annotated frame alone", "all frames"


def corruption_scores(settings: Settings, workdir: Path) -> Mapping[str, Any]:
    """The mIoU of the first of the split's clean clips, spoilt in each way.

    Returns:
        Of `ONE_FRAME` and `ALL_FRAMES`, by the name of the corruption, one for each severity;
        without a memory both are alike.
    """
    return _kept(workdir / CORRUPTIONS_FILE, lambda: _corruption_scores(settings, workdir))


def _corruption_scores(settings: Settings, workdir: Path) -> dict[str, Any]:
    records, trained = _opened(settings, workdir)
    num_memory = settings.model.head.num_memory
    segmenter = _segmenter(settings, trained)
    clips = [*itertools.islice(_clips(records, "clean", num_memory), _NUM_CORRUPTED)]

    def of_severities(name: str, all_frames: bool) -> list[float]:
        return [
            _mean_iou(
                segmenter, (corrupted(clip, name, s, all_frames=all_frames) for clip in clips)
            )
            for s in SEVERITIES
        ]

    alone = {name: of_severities(name, False) for name in CORRUPTIONS}
    every = {name: of_severities(name, True) for name in CORRUPTIONS} if num_memory else alone
    return {ONE_FRAME: alone, ALL_FRAMES: every}


def _mean_iou(segmenter: ClipSegmenter, clips: Iterable[Clip]) -> float:
    matrices = [segmented.confusion_CxC for segmented in segmenter.segment(clips)]
    return scores(np.sum(matrices, axis=0)).mean_iou


class Reads(NamedTuple):
    """Where the spoilt frames of a split read.

    Attributes:
        near_T: the share of a read that comes from the same place of each memory frame, oldest
            first, the mean over positions in the first and last window: a position of the features
            and those around it.
        kept_there: the mIoU if each position is made to read its own place alone.
    """

    near_T: list[float]
    kept_there: float


def reads(settings: Settings, workdir: Path) -> Reads | None:
    """Of a trained network; None if it has no memory."""
    if not settings.model.head.num_memory:
        return None
    return Reads(*_kept(workdir / READS_FILE, lambda: _reads(settings, workdir)))


def _reads(settings: Settings, workdir: Path) -> Reads:
    num_memory = settings.model.head.num_memory
    records, trained = _opened(settings, workdir)
    model: TMANet = nnx.merge(trained.graphdef, *to_default_device(trained.weights))
    height, width = settings.evaluation.protocol.crop_size
    clips = [*_clips(records, "degraded", num_memory)]
    near_NxT = [
        near_share(read_of_memory(model, window, settings.evaluation.protocol))
        for clip in clips
        for window in (
            clip.frames_SxHxWx3[:, :height, :width],
            clip.frames_SxHxWx3[:, -height:, -width:],
        )
    ]
    there = settings.evaluation.protocol.but(neighbourhood=0)
    evaluation = dataclasses.replace(settings.evaluation, protocol=there)
    kept_there = _mean_iou(
        _segmenter(dataclasses.replace(settings, evaluation=evaluation), trained), clips
    )
    return Reads(np.mean(near_NxT, axis=0).tolist(), kept_there)


def near_share(read: MemoryRead) -> np.ndarray:
    """The weight within one position of the query's own place, the mean over these: T."""
    _, h, w = read.shape
    weights_NxTxhxw = read.attention(np.argwhere(np.ones((h, w), bool)))
    is_near_NxTxhxw = read.is_near(np.arange(h * w), distance=1).reshape(weights_NxTxhxw.shape)
    return (weights_NxTxhxw * is_near_NxTxhxw).sum((2, 3)).mean(0)


def consistency(settings: Settings, workdir: Path) -> Mapping[str, float]:
    """VC8, VC16 and mTC of rendered videos, segmented as streams."""
    return _kept(workdir / CONSISTENCY_FILE, lambda: _consistency(settings, workdir))


def _consistency(settings: Settings, workdir: Path) -> dict[str, float]:
    _ensure_videos()
    records = open_clips(VIDEOS, "val")
    trained = load_trained(settings, workdir, records.info.classes, None)
    model = nnx.merge(trained.graphdef, *to_default_device(trained.weights))
    network = streaming_network(model, settings.evaluation)
    _, temporal = evaluate_videos(network, records, num_shown=0)
    return temporal.by_name()


def _ensure_videos() -> None:
    if has_records(VIDEOS):
        return
    with tempfile.TemporaryDirectory(prefix="videos-") as source:
        synthetic.render_dataset(
            source, val=_NUM_VIDEOS, before=_BEFORE, after=_AFTER, label_all=True
        )
        words = [f"--source={source}", f"--out={VIDEOS}", "--memory-range=0", "--every-frame"]
        if cityscapes.main([*words, "--splits=val"]):
            raise UserError(f"There are no records in {VIDEOS}: see above.")


def _segmenter(settings: Settings, trained: TrainedNetwork) -> ClipSegmenter:
    num_memory = settings.model.head.num_memory
    program = compile_segmenter(trained.graphdef, num_memory, settings.evaluation)
    return program.with_weights(*trained.weights)


def _opened(settings: Settings, workdir: Path) -> tuple[ClipRecords, TrainedNetwork]:
    num_memory = settings.model.head.num_memory
    records = open_split(settings, settings.data.eval_split, memory_range=num_memory)
    return records, load_trained(settings, workdir, records.info.classes, None)


def _clips(records: ClipRecords, group: str, num_memory: int) -> Iterator[Clip]:
    for index in range(len(records)):
        if records.group(index) == group:
            yield records.read(index, range(num_memory, 0, -1))


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    if not path.exists():
        write_text(path, json.dumps(make(), indent=1) + "\n")
    return json.loads(path.read_text())
