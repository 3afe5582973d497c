"""One input of `predict`: its frames, and the folder that goes on where it was."""

import collections
import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError, counted
from tmanet_jax.inference import outputs
from tmanet_jax.inference.outputs import (
    Manifest,
    Output,
    PictureOutput,
    VideoOutput,
    open_manifest,
)
from tmanet_jax.inference.prediction import Format, Input, Prediction
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.inference.serve import LiveView
from tmanet_jax.video.frames import Frames, open_frames
from tmanet_jax.video.read import SourceFrame
from tmanet_jax.workdir import alone_in


class Job:
    """Writes what is not there yet of an input; made by `open_job`.

    Attributes:
        frames: those of the source, until the job ends.
        error: why it has ended before its frames; None: it has not.
    """

    def __init__(
        self,
        prediction: Prediction,
        input_: Input,
        manifest: Manifest,
        frames: Frames,
        classes: ClassSet,
        view: LiveView | None,
    ):
        self.error: UserError | None = None
        self.num_expected = frames.expected
        self._prediction, self._manifest = prediction, manifest
        self._source, self._output = input_
        self._is_one_of_several = len(prediction.inputs) > 1
        self._seen = _Seen()
        self._is_unwritable = False
        self._files: dict[Format, Output] = {}
        if self._output is not None:
            self._files = _open_outputs(
                prediction, self._output, manifest, frames, classes, self._seen
            )
        self._outputs = [*self._files.values(), *([view] if view else [])]
        self.frames = self._seen.watched(frames.frames)

    def wants(self, index: int) -> bool:
        """Whether the frame of this index is still to be written."""
        return any(output.wants(index) for output in self._outputs)

    def take(self, result: FrameResult | UserError) -> None:
        """Writes a result, unless the job has ended; it ends where that fails."""
        if self.error is not None:
            return
        if isinstance(result, UserError):
            self._end(result, is_unwritable=False)
        elif result.problem is not None and self._prediction.on_error == "stop":
            end = f"stopped there; --on-error=keep goes on.{done(self._output)}"
            self._end(UserError(f"{_broken(result)}: {end}"), is_unwritable=False)
        else:
            if result.problem is not None:
                self.tell(f"{_broken(result)}: the labels before it are kept.")
            try:
                self._write(result)
            except UserError as error:
                self._end(error, is_unwritable=True)

    def _end(self, error: UserError, *, is_unwritable: bool) -> None:
        self.error, self._is_unwritable, self._seen.is_enough = error, is_unwritable, True

    def _write(self, result: FrameResult) -> None:
        with told_if_unwritable(self._output):
            for output in self._outputs:
                if output.wants(result.index):
                    output.write(result)

    def close(self, *, is_stopped: bool) -> None:
        """Finishes the files, notes how far they are, and tells it.

        Args:
            is_stopped: before the frames were over.

        Raises:
            UserError: the files cannot be written, and `error` does not say so yet.
        """
        is_whole = self.error is None and not is_stopped
        said = contextlib.suppress(UserError) if self._is_unwritable else contextlib.nullcontext()
        with said:
            self._finish_files(is_whole=is_whole)
        if self._seen.doubtful:
            self.tell(
                f"Frames {_ranges(self._seen.doubtful)} may refer to a broken one: their pixels, "
                "and so their labels, may be wrong."
            )
        if is_whole:
            where = f": {self._output}" if self._output else ""
            num_broken = len(self._seen.problems)
            tqdm.write(f"{counted(self._seen.num_frames, 'frame')}, {num_broken} broken{where}")

    def _finish_files(self, *, is_whole: bool) -> None:
        manifest = dataclasses.replace(self._manifest, problems=tuple(self._seen.problems))
        if "video" in self._files and is_whole:
            manifest = dataclasses.replace(
                manifest, is_video_whole=True, sound=self._prediction.sound
            )
        with told_if_unwritable(self._output):
            for output in self._outputs:
                output.close()
            if self._output is not None:
                manifest.write(self._output)
        if self._output is not None and manifest.is_video_whole:
            shutil.rmtree(self._output / outputs.PARTS_DIR, ignore_errors=True)

    def tell(self, message: str) -> None:
        """Says of which input it is, if there are several."""
        tqdm.write(f"{self._source}: {message}" if self._is_one_of_several else message)


@contextlib.contextmanager
def open_job(
    prediction: Prediction,
    input_: Input,
    wanted: Manifest,
    classes: ClassSet,
    view: LiveView | None,
) -> Iterator[Job]:
    """Opens an input, and its folder for this run alone.

    Args:
        prediction: what it is part of.
        input_: the one.
        wanted: what the folder is to say of itself.
        classes: what the network tells apart.
        view: what shows the results besides.

    Raises:
        UserError: the input cannot be read, or the folder holds something else or is in use.
    """
    source, output = input_
    with contextlib.ExitStack() as stack:
        frames = stack.enter_context(open_frames(source))
        _check_names(prediction, source, frames.names)
        manifest = wanted
        if output is not None:
            with told_if_unwritable(output):
                output.mkdir(parents=True, exist_ok=True)
                stack.enter_context(alone_in(output, "--output"))
            manifest = _manifest_of(prediction, output, wanted)
        yield Job(prediction, input_, manifest, frames, classes, view)


def done(output: Path | None) -> str:
    """Where to look after a run that was ended."""
    return f" What was done before is in {output}." if output else ""


def _manifest_of(prediction: Prediction, output: Path, wanted: Manifest) -> Manifest:
    """What the folder says of itself; raises UserError if that is not what is asked for."""
    manifest = open_manifest(output, wanted, prediction.checkpoint)
    video = output / outputs.VIDEO_FILE
    if not video.exists():
        return dataclasses.replace(manifest, is_video_whole=False)
    is_asked_again = manifest.is_video_whole and "video" in prediction.formats
    if is_asked_again and manifest.sound != prediction.sound:
        raise UserError(
            f"{video} was made with --sound={manifest.sound}: delete it, and the same command "
            f"makes it with --sound={prediction.sound}."
        )
    return manifest


def _check_names(prediction: Prediction, source: str | int, names: Sequence[str]) -> None:
    """Raises UserError if the pictures written for two frames would have one name."""
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated and set(prediction.formats) != {"video"}:
        raise UserError(
            f"Several pictures of {source} are called {repeated[0]}, and so would their "
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
        self.is_enough = False
        self.size: tuple[int, int] | None = None
        self.problems: list[tuple[int, str]] = []
        self.doubtful: list[int] = []

    def watched(self, frames: Iterator[SourceFrame]) -> Iterator[SourceFrame]:
        """The same frames, until they are enough."""
        for frame in itertools.takewhile(lambda _: not self.is_enough, frames):
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
    output: Path,
    manifest: Manifest,
    frames: Frames,
    classes: ClassSet,
    seen: _Seen,
) -> dict[Format, Output]:
    """The outputs that are not known to be whole."""

    def name_of(index: int) -> str:
        return frames.names[index] if frames.names else f"{index:06d}"

    def opened(kind: Format) -> Output:
        match kind:
            case "png":
                folder = output / outputs.OVERLAYS_DIR
                return PictureOutput(folder, name_of, outputs.overlay_png)
            case "labels":
                folder = output / outputs.LABELS_DIR
                return PictureOutput(folder, name_of, outputs.label_png)
            case "video":
                return VideoOutput(
                    output,
                    classes,
                    frames,
                    size_of_first=lambda: seen.size,
                    keeps_sound=prediction.sound == "keep",
                )

    with told_if_unwritable(output):
        return {
            kind: opened(kind)
            for kind in prediction.formats
            if not (kind == "video" and manifest.is_video_whole)
        }


@contextlib.contextmanager
def told_if_unwritable(output: Path | None) -> Iterator[None]:
    """What the system says of a disk becomes a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{output} cannot be written ({error}). Once it can, the same command goes on."
        ) from error


def _broken(result: FrameResult) -> str:
    return f"Frame {result.index} at {result.seconds:.2f} s is broken ({result.problem})"
