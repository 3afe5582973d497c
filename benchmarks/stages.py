"""What each stage of a whole prediction takes on a video of 720p, and all of them together."""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.findings import Findings, load_note
from benchmarks.harness import Turn
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.codec import Size
from tmanet_jax.inference.outputs import VideoOutput
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.pictures import blend
from tmanet_jax.video.frames import open_frames
from tmanet_jax.video.writer import PartWriter, join

SIZE = Size(720, 1280)
MOST_FRAMES = 15
"""So that all engines together take a few minutes."""
RATE = Fraction(25)


def measure(
    segmenters: Mapping[str, Segmenter],
    classes: ClassSet,
    street: Sequence[np.ndarray],
    size: Size = SIZE,
) -> Findings:
    """Times each stage alone, then whole predictions by each engine, to a video of overlays.

    Args:
        segmenters: by engine and precision.
        classes: what they tell apart.
        street: frames of a drive, HxWx3; the video shows them enlarged.
        size: height and width of the video in pixels.
    """
    pictures = [cv2.resize(frame, (size.width, size.height)) for frame in street[:MOST_FRAMES]]
    labels_HxW = np.zeros(size, np.uint8)
    with tempfile.TemporaryDirectory(prefix="stages-") as folder:
        video = Path(folder, "street.mp4")
        writer = PartWriter(Path(folder, "parts"), rate=RATE, time_base=1 / RATE)
        taken = {
            "encode": _each(lambda item: writer.write(item[1], item[0]), enumerate(pictures)),
            "draw": _each(lambda picture: blend(picture, labels_HxW, classes), pictures),
        }
        writer.close()
        join(Path(folder, "parts"), video)
        with open_frames(video) as frames:
            taken["decode"] = _each(lambda frame: None, frames.frames)
        for name, segmenter in segmenters.items():
            list(segmenter.stream(pictures[:1]))  # compiles, or loads the export
            results = segmenter.stream(pictures)
            taken[f"resize, segment: {name}"] = _each(lambda result: None, results)
            output = Path(folder, name.replace(" ", "-"))
            taken[f"all: {name}"] = _predicting(segmenter, classes, video, output)
    return Findings(
        title=f"Stages of a prediction, {size.height}x{size.width}",
        columns=("stage", "ms a frame", "CPU ms a frame"),
        rows=[
            (stage, f"{1e3 * turn.wall:.3g}", f"{1e3 * turn.cpu:.3g}")
            for stage, turn in taken.items()
        ],
        notes=(
            f"Means of {len(pictures)} frames; the stages alone, then all of them.",
            load_note(),
        ),
    )


def _each(call: Callable[[Any], object], items: Iterable[Any]) -> Turn:
    """Seconds of a call, and of what makes the items, for each of them."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007
        call(item)
    return Turn((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def _predicting(segmenter: Segmenter, classes: ClassSet, video: Path, output: Path) -> Turn:
    """As `run.py predict` does it, from a video to a video."""
    with open_frames(video) as frames:
        writer = VideoOutput(output, classes, frames, size_of_first=lambda: None, keeps_sound=False)
        taken = _each(writer.write, segmenter.stream(video))
        writer.close()
    return taken
