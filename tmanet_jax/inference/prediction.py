"""What a command line asks `predict` for."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from tmanet_jax.errors import UserError
from tmanet_jax.inference import outputs
from tmanet_jax.inference.engine import Computation
from tmanet_jax.protocol import parse_scale
from tmanet_jax.settings import Settings
from tmanet_jax.video.frames import PICTURE_SUFFIXES, videos_of_glob
from tmanet_jax.weights import hub, load

Format = Literal["video", "png", "labels"]
OnError = Literal["keep", "stop"]
SoundChoice = Literal["keep", "none"]

_VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".gif")
_HIGHEST_PORT = 65535


class Input(NamedTuple):
    """What is segmented, and into which folder.

    Attributes:
        source: video file or stream, picture, folder or glob of pictures, or number of a camera.
        output: folder of the results; None: they are shown alone.
    """

    source: str | int
    output: Path | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is to be predicted, and how.

    Attributes:
        checkpoint: file of weights.
        source: video file or stream, picture, folder or glob of pictures, or number of a camera; of
            several, or of a glob of videos, each gets a folder of its own.
        output: folder of the results; None: they are shown alone.
        formats: what is written there.
        on_error: at a broken frame, "keep" the labels of the frame before it, or "stop".
        sound: of the video, "keep" it or "none".
        settings: how the network computes, and how frames are segmented where weights do not say.
        computation: what computes; None: jax, as the settings say.
        serve: port of this machine at which a browser sees the newest overlay; 0: any.

    Raises:
        UserError: there is nothing to segment or nowhere to show it, or a value cannot be.
    """

    checkpoint: Path
    source: str | int | tuple[str | int, ...]
    output: Path | None
    formats: tuple[Format, ...] = ("video",)
    on_error: OnError = "keep"
    sound: SoundChoice = "keep"
    settings: Settings = dataclasses.field(default_factory=Settings)
    computation: Computation | None = None
    serve: int | None = None

    def __post_init__(self) -> None:
        if not self._sources or "" in self._sources or (self.output is None and self.serve is None):
            raise UserError("Say what to segment and where to: --input=drive.mp4 --output=out.")
        if not self.formats or any(name not in get_args(Format) for name in self.formats):
            choices = ", ".join(get_args(Format))
            found = ",".join(self.formats)
            raise UserError(f"--format is {found!r}: choose one or several of {choices}.")
        for option, value, kind in (
            ("--on-error", self.on_error, OnError),
            ("--sound", self.sound, SoundChoice),
        ):
            if value not in get_args(kind):
                raise UserError(f"{option} is {value!r}: choose {' or '.join(get_args(kind))}.")
        if self.serve is not None and not 0 <= self.serve <= _HIGHEST_PORT:
            raise UserError(f"--serve is {self.serve}: choose a port, 0 to {_HIGHEST_PORT}.")
        if self.output and self.output.suffix.lower() in (*_VIDEO_SUFFIXES, *PICTURE_SUFFIXES):
            raise UserError(
                f"--output is a folder, and {self.output} is a file's name: "
                f"--output={self.output.stem} gets {outputs.VIDEO_FILE}."
            )

    @property
    def _sources(self) -> tuple[str | int, ...]:
        return self.source if isinstance(self.source, tuple) else (self.source,)

    @functools.cached_property
    def inputs(self) -> tuple[Input, ...]:
        """What is segmented, and into which folders.

        Raises:
            UserError: two would be written to one folder, or several shown in one picture.
        """
        inputs = _inputs(self._sources, self.output)
        if self.serve is not None and len(inputs) > 1:
            raise UserError(f"--serve shows one input, not {len(inputs)}: give one --input.")
        return inputs


def prediction_of(
    settings: Settings,
    workdir: Path,
    *,
    checkpoint: str,
    sources: Sequence[str],
    output: str,
    formats: Sequence[Format],
    on_error: OnError,
    sound: SoundChoice,
    memory_stride: int | None,
    scale: str | None,
    computation: Computation | None = None,
    serve: int | None = None,
) -> Prediction:
    """What a command line asks for; frames are segmented as the weights were scored.

    Raises:
        UserError: something is missing, or has a value that it cannot have.
    """
    evaluation = settings.evaluation.override(
        memory_stride=memory_stride, scale=None if scale is None else parse_scale(scale)
    )
    prediction = Prediction(
        settings=dataclasses.replace(settings, evaluation=evaluation),
        checkpoint=Path(checkpoint),
        source=tuple(source_of(source) for source in sources),
        output=Path(output) if output else None,
        formats=tuple(formats),
        on_error=on_error,
        sound=sound,
        computation=computation,
        serve=serve,
    )
    found = hub.fetched(checkpoint) if checkpoint else load.weights_of_run(workdir)
    return dataclasses.replace(prediction, checkpoint=found)


def source_of(word: str) -> str | int:
    """What a word of a command line names: a camera's number, or anything else as it is."""
    is_camera = word.isdecimal() and not Path(word).exists()
    return int(word) if is_camera else word


def _inputs(sources: Sequence[str | int], output: Path | None) -> tuple[Input, ...]:
    """A single one has the output to itself; several, or those of a glob, get a folder each."""
    globs = [videos_of_glob(source) for source in sources]
    if len(sources) == 1 and not globs[0]:
        return (Input(sources[0], output),)
    inputs: dict[str, Input] = {}
    for source, videos in zip(sources, globs, strict=True):
        for one in map(str, videos) if videos else [source]:
            name = _name(str(one))
            folder = output / name if output else None
            if name in inputs:
                raise UserError(
                    f"{inputs[name].source} and {one} would both be written to {folder}: rename "
                    "one of them, or give each an --output in a command of its own."
                )
            inputs[name] = Input(one, folder)
    return tuple(inputs.values())


def _name(source: str) -> str:
    """Of its file without ending, of the folder, or of the folder of a glob."""
    path = Path(os.path.abspath(source))
    own = path.name if path.is_dir() else path.stem
    if own and path.exists():
        return own
    parts = [own, *reversed(path.parts[1:-1])]
    return next((part for part in parts if part and not set("*?[") & set(part)), "root")
