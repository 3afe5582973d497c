"""Writes chosen frames of a video as PNG files, numbered by the stills that were made of it.

A video is decoded twice: once for the number of its first frame (`alignment`), once for the frames
that are wanted. What was found is noted beside the frames, so that an extraction that was stopped
goes on with the second.
"""

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.alignment import Alignment, align, thumbnail
from data_prep.pictures import read_frame, write_frame
from data_prep.source_tree import SourceFile
from tmanet_jax.data.record_writer import WrongSourceError
from tmanet_jax.data.video import VideoFrame, open_video
from tmanet_jax.errors import UserError


@dataclass(frozen=True)
class Numbering:
    """What a video was found to hold.

    Attributes:
        num_bytes: size of the file that this was found in.
        first_number: the number of the first decoded frame.
        num_frames: how many frames were counted.
        broken: indices of those that cannot be decoded, with the reason.
        faults: the stills that do not agree with the others, by number, and what is wrong.
        report: the alignment in words.
    """

    num_bytes: int
    first_number: int
    num_frames: int
    broken: Mapping[int, str]
    faults: Mapping[int, str]
    report: str

    def gives(self, number: int) -> bool:
        """Whether the video has this frame, whole."""
        index = number - self.first_number
        return 0 <= index < self.num_frames and index not in self.broken

    def to_json(self) -> bytes:
        """As a file's content."""
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Numbering":
        """Inverse of `to_json`; raises ValueError, KeyError or TypeError on anything else."""
        values = json.loads(content)
        for name in ("broken", "faults"):
            values[name] = {int(key): text for key, text in values[name].items()}
        return cls(**values)


class Stopped(Exception):  # noqa: N818, not an error
    """The extraction was told to stop."""


@dataclass(frozen=True)
class Watch:
    """Watches decoding from another thread.

    Attributes:
        on_frame: called after each decoded frame.
        stop: set to end the decoding.
    """

    on_frame: Callable[[], object] = lambda: None
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)

    def over(self, path: Path) -> Iterator[VideoFrame]:
        """The frames of a video; raises Stopped, or UserError as `open_video`."""
        with open_video(path) as video:
            for frame in video:
                if self.stop.is_set():
                    raise Stopped
                yield frame
                self.on_frame()


def number_frames(path: Path, stills: Mapping[int, SourceFile], watch: Watch) -> Numbering:
    """Finds the numbers of a video's frames by the stills that were made of it.

    Args:
        path: the video.
        stills: pictures by the number in their name.
        watch: on the decoding.

    Raises:
        WrongSourceError: most stills do not agree: it is another video.
        UserError: the video or a still cannot be read.
    """
    thumbnails = {number: thumbnail(read_frame(still)) for number, still in stills.items()}
    frames: list[np.ndarray] = []
    broken: dict[int, str] = {}
    for frame in watch.over(path):
        if frame.pixels_HxWx3 is None:
            broken[frame.index] = frame.problem or ""
            frames.append(np.zeros_like(frames[-1] if frames else next(iter(thumbnails.values()))))
        else:
            frames.append(thumbnail(frame.pixels_HxWx3))
    alignment = align(thumbnails, np.stack(frames))
    faults = {number: fault for number in stills if (fault := alignment.fault(number)) is not None}
    if 2 * len(faults) > len(stills):
        raise WrongSourceError(_foreign(path, stills, alignment, faults))
    return Numbering(
        num_bytes=path.stat().st_size,
        first_number=alignment.first_number,
        num_frames=len(frames),
        broken=broken,
        faults=faults,
        report=str(alignment),
    )


def extract_frames(
    path: Path, numbering: Numbering, wanted: Mapping[int, Path], watch: Watch
) -> None:
    """Writes frames of a video as PNG files, each whole or not at all.

    Args:
        path: the video.
        numbering: of its frames.
        wanted: the file of each frame by its number. Frames that the video does not give are left.
        watch: on the decoding.

    Raises:
        UserError: the video cannot be read, or a file cannot be written.
    """
    left = {number for number in wanted if numbering.gives(number)}
    if not left:
        return
    for frame in watch.over(path):
        number = frame.index + numbering.first_number
        if number in left and frame.pixels_HxWx3 is not None:
            write_frame(wanted[number], frame.pixels_HxWx3)
            left.remove(number)
        if not left:
            return


def read_numbering(note: Path, video: Path | None = None) -> Numbering | None:
    """What was noted of a video; None if nothing was, or of another file than `video`.

    Raises:
        UserError: the note cannot be read.
    """
    try:
        numbering = Numbering.from_json(note.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{note} cannot be read ({error}): delete it.") from error
    if video is not None and numbering.num_bytes != video.stat().st_size:
        return None
    return numbering


def _foreign(
    path: Path,
    stills: Mapping[int, SourceFile],
    alignment: Alignment,
    faults: Mapping[int, str],
) -> str:
    first = min(faults)
    return (
        f"{len(faults)} of {len(stills)} stills do not show {path} as one numbering of its frames "
        f"would have them ({alignment}). The first is {stills[first]}: {faults[first]}. Is it the "
        "right video, and is it whole?"
    )
