"""Writes chosen frames of a video as PNG files, numbered by the stills that were made of it.

A video is decoded twice: once for the number of its first frame (`alignment`), once for the frames
that are wanted. What was found is noted beside the frames, so that an extraction that was stopped
goes on with the second.
"""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.alignment import Alignment, align, mean_colours, thumbnail
from data_prep.pictures import read_frame
from data_prep.records.writer import WrongSourceError
from data_prep.source_tree import SourceFile
from data_prep.writing import write_frame
from tmanet_jax.data import strict_json
from tmanet_jax.errors import UserError
from tmanet_jax.video.read import SourceFrame, open_video

_DOUBTFUL = "a frame that it may refer to is lost"

_NOTHING_1x1x3 = np.zeros((1, 1, 3), np.uint8)
"""Stands for a frame that cannot be decoded: it resembles no still."""


@dataclass(frozen=True)
class Numbering:
    """What a video was found to hold.

    Attributes:
        num_bytes: size of the video that this was found in.
        stills: fingerprint of the stills that it was compared with.
        first_number: the number of the first decoded frame.
        num_frames: how many frames were counted.
        broken: indices of those that cannot be used, with the reason.
        faults: the stills that do not agree with the others, by number, and what is wrong.
        report: the alignment in words.
    """

    num_bytes: int
    stills: str
    first_number: int
    num_frames: int
    broken: Mapping[int, str]
    faults: Mapping[int, str]
    report: str

    def __post_init__(self) -> None:
        if self.num_bytes < 0 or self.num_frames < 1:
            raise ValueError(
                f"a video of {self.num_bytes} bytes and {self.num_frames} frames gives none"
            )
        if any(not 0 <= index < self.num_frames for index in self.broken):
            raise ValueError(f"broken are frames beyond its {self.num_frames}")

    def gives(self, number: int) -> bool:
        """Whether the video has this frame, whole."""
        index = number - self.first_number
        return 0 <= index < self.num_frames and index not in self.broken

    def is_of(self, video: Path | None, stills: Mapping[int, SourceFile]) -> bool:
        """Whether it was found in this video, if there is one, and with these stills."""
        is_of_video = video is None or video.stat().st_size == self.num_bytes
        return is_of_video and self.stills == _fingerprint(stills)

    def to_json(self) -> bytes:
        """As a file's content."""
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes, where: str) -> "Numbering":
        """Inverse of `to_json`; raises UserError that names the field on anything else."""
        return strict_json.decode(cls, strict_json.parse(content, where), where)


class _Abandoned(Exception):  # noqa: N818, not an error
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

    def over(self, path: Path) -> Iterator[SourceFrame]:
        """The frames of a video; raises _Abandoned, or UserError as `open_video`."""
        with open_video(path) as video:
            for frame in video:
                if self.stop.is_set():
                    raise _Abandoned
                yield frame
                self.on_frame()


def number_frames(path: Path, stills: Mapping[int, SourceFile], watch: Watch) -> Numbering:
    """Finds the numbers of a video's frames by the stills that were made of it.

    Args:
        path: the video.
        stills: pictures by the number in their name.
        watch: on the decoding.

    Raises:
        WrongSourceError: most stills do not agree, or are of another size: it is another video.
        UserError: the video or a still cannot be read.
    """
    thumbnails: dict[int, np.ndarray] = {}
    colours: dict[int, np.ndarray] = {}
    for number, still in stills.items():
        try:
            picture_HxWx3 = read_frame(still)
        except UserError:
            continue  # told when the still's clip is loaded
        if not thumbnails:
            _check_size_of_video(path, still, picture_HxWx3.shape[:2])
        thumbnails[number] = thumbnail(picture_HxWx3)
        colours[number] = mean_colours(picture_HxWx3)
    if not thumbnails:
        raise WrongSourceError(f"None of the stills of {path} can be read, such as {still}.")
    frames, frame_colours, broken = _decode_small(path, watch)
    alignment = align(thumbnails, np.stack(frames))
    faults = {n: fault for n in thumbnails if (fault := alignment.fault(n)) is not None}
    if 2 * len(faults) > len(thumbnails):
        raise WrongSourceError(_foreign(path, stills, alignment, faults))
    off_by = [
        np.abs(frame_colours[number - alignment.first_number] - colours[number].astype(int)).mean()
        for number in thumbnails
        if number not in faults
    ]
    return Numbering(
        num_bytes=path.stat().st_size,
        stills=_fingerprint(stills),
        first_number=alignment.first_number,
        num_frames=len(frames),
        broken=broken,
        faults=faults,
        report=f"{alignment}; their colours are {np.mean(off_by):.1f} of 255 away",
    )


def _check_size_of_video(path: Path, still: SourceFile, size: tuple[int, ...]) -> None:
    """Raises WrongSourceError unless a video is as large as its stills; decodes one frame."""
    with open_video(path) as video:
        height, width = video.size
    if (height, width) != size:
        raise WrongSourceError(
            f"The stills of {path} are {size[0]}x{size[1]} pixels (height x width), such as "
            f"{still}, but its frames are {height}x{width}: all pictures of a clip must have the "
            "same size. Give the published stills and labels, or frames of the stills' size that "
            "you extracted yourself (--frames), or ask for --memory-range=0."
        )


def _decode_small(
    path: Path, watch: Watch
) -> tuple[list[np.ndarray], list[np.ndarray], dict[int, str]]:
    """Thumbnails and mean colours of all frames, and what is wrong with the broken ones."""
    thumbnails: list[np.ndarray] = []
    colours: list[np.ndarray] = []
    broken: dict[int, str] = {}
    for frame in watch.over(path):
        picture_HxWx3 = frame.pixels_HxWx3
        if picture_HxWx3 is None:
            broken[frame.index] = frame.problem or ""
            picture_HxWx3 = _NOTHING_1x1x3
        elif frame.is_doubtful:
            broken[frame.index] = _DOUBTFUL
        thumbnails.append(thumbnail(picture_HxWx3))
        colours.append(mean_colours(picture_HxWx3))
    return thumbnails, colours, broken


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


def read_numbering(note: Path) -> Numbering | None:
    """What was noted of a video; None if nothing was. Raises UserError if it cannot be read."""
    try:
        return Numbering.from_json(note.read_bytes(), "its JSON")
    except FileNotFoundError:
        return None
    except (OSError, UserError) as error:
        raise UserError(f"{note} cannot be read ({error}): delete it.") from error


def _fingerprint(stills: Mapping[int, SourceFile]) -> str:
    lines = [f"{number} {still.fingerprint}" for number, still in sorted(stills.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _foreign(
    path: Path,
    stills: Mapping[int, SourceFile],
    alignment: Alignment,
    faults: Mapping[int, str],
) -> str:
    first = min(faults)
    return (
        f"{len(faults)} of {len(alignment.differences)} stills do not show {path} as one numbering "
        f"of its frames would have them ({alignment}). The first is {stills[first]}: "
        f"{faults[first]}. Is it the right video, and is it whole? Frames that you extracted and "
        "checked yourself can be given instead: --frames."
    )
