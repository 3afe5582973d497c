"""Segments a video, pictures or a camera into files: overlays with a legend, label pictures.

The folder of the output says what it was made of (`predict.json`). A run that was interrupted, be
it by a kill, goes on where it was, and ends in the same files.
"""

import collections
import contextlib
import dataclasses
import itertools
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from tqdm import tqdm

from tmanet_jax.errors import Stopped, UserError, counted
from tmanet_jax.export.engine import Computation, Precision
from tmanet_jax.inference import outputs
from tmanet_jax.inference.outputs import (
    Manifest,
    Output,
    PictureOutput,
    VideoOutput,
    fingerprint_input,
    fingerprint_weights,
    open_manifest,
)
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.inference.segmenter import Segmenter
from tmanet_jax.protocol import parse_scale
from tmanet_jax.settings import Settings
from tmanet_jax.stop_signals import StopSignals
from tmanet_jax.video.frames import PICTURE_SUFFIXES, Frames, open_frames
from tmanet_jax.video.read import SourceFrame
from tmanet_jax.weights import hub, load
from tmanet_jax.workdir import alone_in

Format = Literal["video", "png", "labels"]
OnError = Literal["keep", "stop"]
SoundChoice = Literal["keep", "none"]

_VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".gif")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is to be predicted, and how.

    Attributes:
        checkpoint: file of weights.
        source: video file or stream, picture, folder or glob of pictures, or number of a camera.
        output: folder of the results.
        formats: what is written there.
        on_error: at a broken frame, "keep" the labels of the frame before it, or "stop".
        sound: of the video, "keep" it or "none".
        settings: how the network computes, and how frames are segmented where weights do not say.
        computation: what computes; None: jax, as the settings say.
    """

    checkpoint: Path
    source: str | int
    output: Path
    formats: tuple[Format, ...] = ("video",)
    on_error: OnError = "keep"
    sound: SoundChoice = "keep"
    settings: Settings = dataclasses.field(default_factory=Settings)
    computation: Computation | None = None


def prediction_of(
    settings: Settings,
    workdir: Path,
    *,
    checkpoint: str,
    source: str,
    output: str,
    formats: list[str],
    on_error: str,
    sound: str,
    memory_stride: int | None,
    scale: str | None,
    computation: Computation | None = None,
) -> Prediction:
    """What a command line asks for; frames are segmented as the weights were scored.

    Raises:
        UserError: something is missing, or has a value that it cannot have.
    """
    if not source or not output:
        raise UserError("Say what to segment and where to: --input=drive.mp4 --output=out.")
    _check_choices(formats, on_error, sound)
    if Path(output).suffix.lower() in (*_VIDEO_SUFFIXES, *PICTURE_SUFFIXES):
        raise UserError(
            f"--output is a folder, and {output} is a file's name: --output={Path(output).stem} "
            f"gets {outputs.VIDEO_FILE}."
        )
    is_camera = source.isdecimal() and not Path(source).exists()
    evaluation = settings.evaluation.told_besides(
        memory_stride=memory_stride, scale=None if scale is None else parse_scale(scale)
    )
    return Prediction(
        settings=dataclasses.replace(settings, evaluation=evaluation),
        checkpoint=hub.fetched(checkpoint) if checkpoint else load.weights_of_run(workdir),
        source=int(source) if is_camera else source,
        output=Path(output),
        formats=tuple(name for name in get_args(Format) if name in formats),
        on_error="stop" if on_error == "stop" else "keep",
        sound="none" if sound == "none" else "keep",
        computation=computation,
    )


def _check_choices(formats: list[str], on_error: str, sound: str) -> None:
    if not formats or any(name not in get_args(Format) for name in formats):
        choices = ", ".join(get_args(Format))
        raise UserError(f"--format is {','.join(formats)!r}: choose one or several of {choices}.")
    for option, value, kind in (
        ("--on-error", on_error, OnError),
        ("--sound", sound, SoundChoice),
    ):
        if value not in get_args(kind):
            raise UserError(f"{option} is {value!r}: choose {' or '.join(get_args(kind))}.")


def predict(prediction: Prediction) -> None:
    """Writes what is not there yet, and tells broken frames and where the results are.

    Args:
        prediction: what is to be segmented, and where to.

    Raises:
        UserError: bad input; or a broken frame that is to stop the run, after what was done so far
            is saved.
        Stopped: it was interrupted; what was done so far is saved.
    """
    run = prediction.settings
    input_print = fingerprint_input(prediction.source)
    weights_print = fingerprint_weights(prediction.checkpoint, run.init.align_corners)
    seen = _Seen()
    with contextlib.ExitStack() as stack:
        frames = stack.enter_context(open_frames(prediction.source))
        _check_names(prediction, frames.names)
        segmenter = _load(prediction)
        with _told_if_unwritable(prediction.output):
            prediction.output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_in(prediction.output, "--output"))
        how = f"{segmenter.protocol}, {_computation_in_words(prediction)}"
        manifest = _manifest_of(prediction, Manifest(input_print, weights_print, how))
        tqdm.write(run.evaluation.compared_with(segmenter.protocol))
        writers = _open_outputs(prediction, manifest, frames, segmenter, seen)
        signals = stack.enter_context(StopSignals())
        watched = dataclasses.replace(frames, frames=seen.watched(frames.frames))
        end = _write_results(prediction, segmenter, watched, writers, signals)
        _close(prediction, manifest, writers, seen, is_whole=end is None)
    if seen.doubtful:
        tqdm.write(
            f"Frames {_ranges(seen.doubtful)} may refer to a broken one: their pixels, and so "
            "their labels, may be wrong."
        )
    if end is not None:
        raise end
    tqdm.write(
        f"{counted(seen.num_frames, 'frame')}, {len(seen.problems)} broken: {prediction.output}"
    )


def _load(prediction: Prediction) -> Segmenter:
    run = prediction.settings
    return Segmenter.load(
        prediction.checkpoint,
        align_corners=run.init.align_corners,
        products=run.model.precision,
        attention=run.model.attention,
        otherwise=run.evaluation.protocol,
        **vars(_computation(prediction)),
        **run.evaluation.told_fields(),
    )


def _computation(prediction: Prediction) -> Computation:
    dtype = next(name for name in get_args(Precision) if name == prediction.settings.model.dtype)
    return prediction.computation or Computation(precision=dtype)


def _computation_in_words(prediction: Prediction) -> str:
    model, computation = prediction.settings.model, _computation(prediction)
    if computation.engine != "jax":
        return str(computation)
    return f"{computation.precision}, precision {model.precision}, attention {model.attention}"


def _manifest_of(prediction: Prediction, wanted: Manifest) -> Manifest:
    """What the folder says of itself; raises UserError if that is not what is asked for."""
    manifest = open_manifest(prediction.output, wanted, prediction.checkpoint)
    video = prediction.output / outputs.VIDEO_FILE
    if not video.exists():
        return dataclasses.replace(manifest, is_video_whole=False)
    is_asked_again = manifest.is_video_whole and "video" in prediction.formats
    if is_asked_again and manifest.sound != prediction.sound:
        raise UserError(
            f"{video} was made with --sound={manifest.sound}: delete it, and the same command "
            f"makes it with --sound={prediction.sound}."
        )
    return manifest


def _check_names(prediction: Prediction, names: Sequence[str]) -> None:
    """Raises UserError if the pictures written for two frames would have one name."""
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated and set(prediction.formats) != {"video"}:
        raise UserError(
            f"Several pictures of {prediction.source} are called {repeated[0]}, and so would their "
            "results be: segment one folder at a time."
        )


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers in words: 3-5, 8."""
    texts = []
    for _, run in itertools.groupby(enumerate(numbers), key=lambda item: item[1] - item[0]):
        members = [number for _, number in run]
        texts.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else f"{members[0]}")
    return ", ".join(texts)


class _Seen:
    """What was decoded so far, unwanted frames too: how many, the first size, the broken ones."""

    def __init__(self) -> None:
        self.num_frames = 0
        self.size: tuple[int, int] | None = None
        self.problems: list[tuple[int, str]] = []
        self.doubtful: list[int] = []

    def watched(self, frames: Iterator[SourceFrame]) -> Iterator[SourceFrame]:
        """The same frames."""
        for frame in frames:
            self.num_frames += 1
            if frame.problem is not None:
                self.problems.append((frame.index, frame.problem))
            elif frame.pixels_HxWx3 is not None and self.size is None:
                self.size = frame.pixels_HxWx3.shape[0], frame.pixels_HxWx3.shape[1]
            if frame.is_doubtful:
                self.doubtful.append(frame.index)
            yield frame


def _open_outputs(
    prediction: Prediction,
    manifest: Manifest,
    frames: Frames,
    segmenter: Segmenter,
    seen: _Seen,
) -> dict[Format, Output]:
    """The outputs that are not known to be whole."""

    def name_of(index: int) -> str:
        return frames.names[index] if frames.names else f"{index:06d}"

    def opened(kind: Format) -> Output:
        match kind:
            case "png":
                folder = prediction.output / outputs.OVERLAYS_DIR
                return PictureOutput(folder, name_of, outputs.overlay_png)
            case "labels":
                folder = prediction.output / outputs.LABELS_DIR
                return PictureOutput(folder, name_of, outputs.label_png)
            case "video":
                return VideoOutput(
                    prediction.output,
                    segmenter.classes,
                    frames,
                    size_of_first=lambda: seen.size,
                    keeps_sound=prediction.sound == "keep",
                )

    with _told_if_unwritable(prediction.output):
        return {
            kind: opened(kind)
            for kind in prediction.formats
            if not (kind == "video" and manifest.is_video_whole)
        }


@contextlib.contextmanager
def _told_if_unwritable(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{output} cannot be written ({error}). Once it can, the same command goes on."
        ) from error


def _write_results(
    prediction: Prediction,
    segmenter: Segmenter,
    frames: Frames,
    writers: Mapping[Format, Output],
    signals: StopSignals,
) -> UserError | Stopped | None:
    """Writes until the frames end; returns why it ended before."""
    done = f"What was done before is in {prediction.output}."
    interrupted = f"Interrupted; the same command goes on. {done}"
    results = segmenter.segment(
        frames, wanted=lambda index: any(writer.wants(index) for writer in writers.values())
    )
    bar = tqdm(total=frames.expected, desc="predict", unit="frame", disable=None)
    with contextlib.closing(bar), contextlib.closing(results):
        try:
            for result in results:
                if result.problem is not None:
                    broken = _broken(result)
                    if prediction.on_error == "stop":
                        return UserError(
                            f"{broken}: stopped there; --on-error=keep goes on. {done}"
                        )
                    tqdm.write(f"{broken}: the labels before it are kept.")
                if bar.n == 0:
                    bar.n = bar.initial = result.index  # what an earlier run has done
                with _told_if_unwritable(prediction.output):
                    for writer in writers.values():
                        if writer.wants(result.index):
                            writer.write(result)
                bar.update()
                if signals.stops_now():
                    return Stopped(interrupted, signals.number)
        except KeyboardInterrupt:  # the second one
            return Stopped(interrupted, signal.SIGINT)
    return None


def _broken(result: FrameResult) -> str:
    return f"Frame {result.index} at {result.seconds:.2f} s is broken ({result.problem})"


def _close(
    prediction: Prediction,
    manifest: Manifest,
    writers: Mapping[Format, Output],
    seen: _Seen,
    *,
    is_whole: bool,
) -> None:
    """Finishes the files, and notes how far they are."""
    with _told_if_unwritable(prediction.output):
        for writer in writers.values():
            writer.close()
    if "video" in writers and is_whole:
        manifest = dataclasses.replace(manifest, is_video_whole=True, sound=prediction.sound)
    dataclasses.replace(manifest, problems=tuple(seen.problems)).write(prediction.output)
    if manifest.is_video_whole:
        shutil.rmtree(prediction.output / outputs.PARTS_DIR, ignore_errors=True)
