"""Frames one after the other, wherever they come from: video, pictures, arrays, a camera."""

import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from tmanet_jax.data.files import is_hidden
from tmanet_jax.data.jpeg import warning_of
from tmanet_jax.errors import UserError
from tmanet_jax.video.read import SourceFrame, is_stream, open_video

FrameSource = str | os.PathLike[str] | int | Iterable[np.ndarray]
"""A video file or stream, a picture, a folder or glob of pictures, the number of a camera, or
arrays HxWx3 RGB uint8."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_RATE = Fraction(25)
"""Frames a second of what has no rate of its own."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """A sequence of frames that is read once.

    Attributes:
        frames: in order; their `pts` are never None, begin at 0 and always rise.
        rate: frames a second, on average.
        time_base: unit of the frames' `pts`, in seconds.
        expected: how many there probably are; None if nobody knows.
        names: of pictures, without folder and ending; empty elsewhere.
        sound_of: the video whose frames these are, if it has sound.
        pixel_aspect: width of a pixel by its height.
    """

    frames: Iterator[SourceFrame]
    rate: Fraction
    time_base: Fraction
    expected: int | None
    names: tuple[str, ...] = ()
    sound_of: str | os.PathLike[str] | None = None
    pixel_aspect: Fraction = Fraction(1)


def open_frames(source: FrameSource) -> AbstractContextManager[Frames]:
    """Opens a source of frames, and closes it at the end.

    Args:
        source: a video file, or a stream of one (an address, "-" for standard input, a pipe); a
            picture; a folder of pictures, which are taken in natural order (2 before 10); a glob
            pattern of pictures; the number of a camera; or arrays HxWx3 RGB uint8.

    Raises:
        UserError: there is nothing there, or it cannot be read.
    """
    if isinstance(source, int):
        return _camera(source)
    if isinstance(source, str | os.PathLike):
        if is_video(source):
            return _video(source)
        paths = picture_files(source)
        pictures = map(_read_picture, paths)
        return nullcontext(_numbered(pictures, len(paths), _distinct_names(paths)))
    if isinstance(source, Iterable):
        expected = len(source) if isinstance(source, list) else None
        return nullcontext(_numbered(map(checked, source), expected))
    raise UserError(
        f"{source!r} is no source of frames: expected a path, the number of a camera, or arrays "
        "HxWx3 of uint8, RGB."
    )


@contextlib.contextmanager
def _video(source: str | os.PathLike[str]) -> Iterator[Frames]:
    with open_video(source) as video:
        if video.hdr is not None:
            logging.getLogger(__name__).warning(
                "%s is HDR (%s): its colours are not tone-mapped, and look pale", source, video.hdr
            )
        rate = video.average_rate or _RATE
        yield Frames(
            _rising(iter(video), video.time_base, rate),
            rate,
            video.time_base,
            video.expected_frames,
            sound_of=source if video.has_audio else None,
            pixel_aspect=video.pixel_aspect,
        )


def is_video(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a video: a stream, or a file that is no picture by its name."""
    is_picture = Path(source).suffix.lower() in PICTURE_SUFFIXES
    return is_stream(source) or (os.path.isfile(source) and not is_picture)


def picture_files(source: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a folder or of a glob pattern in natural order, without hidden ones.

    What is called a picture and is no file (a pipe, a link that leads nowhere) is among them.

    Raises:
        UserError: there are none.
    """
    folder = Path(source)
    if os.path.isdir(folder):
        found = list(folder.iterdir())
    else:
        found = [folder] if os.path.isfile(folder) else list(map(Path, glob.glob(str(source))))
    paths = [
        path
        for path in found
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not any(map(is_hidden, set(path.parts) - set(folder.parts)))
        and not path.is_dir()
    ]
    if not paths:
        raise UserError(
            f"There is nothing to segment at {source}: expected a video file or the address of a "
            "stream, a glob pattern of videos, a picture, a folder or a glob pattern of pictures "
            f"({', '.join(PICTURE_SUFFIXES)}), or the number of a camera."
        )
    return sorted(paths, key=_natural_order)


def fingerprint_input(source: str | os.PathLike[str] | int) -> str:
    """Names a source, and tells apart what it held at different times."""
    if isinstance(source, int):
        return f"camera {source} at {time.time():.3f}"
    if is_stream(source):
        return f"{source} at {time.time():.3f}"
    path = Path(source)
    paths = [path] if is_video(path) else picture_files(path)
    stats = [file.stat(follow_symlinks=file.exists()) for file in paths]
    facts = [
        (file.name, stat.st_size, stat.st_mtime_ns) for file, stat in zip(paths, stats, strict=True)
    ]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return f"{path} ({len(paths)} file(s), {digest[:16]})"


def videos_of_glob(source: str | int) -> list[Path]:
    """The videos of a glob pattern in natural order; none if it is none, or matches pictures."""
    if isinstance(source, int) or is_stream(source) or os.path.exists(source):
        return []
    found = [path for path in map(Path, glob.glob(source)) if path.is_file()]
    is_of_pictures = any(path.suffix.lower() in PICTURE_SUFFIXES for path in found)
    return [] if is_of_pictures else sorted(found, key=_natural_order)


def _natural_order(path: Path) -> tuple[tuple[int, int | str], ...]:
    parts = re.split(r"(\d+)", path.name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part)


def _distinct_names(paths: list[Path]) -> tuple[str, ...]:
    stems = tuple(path.stem for path in paths)
    return stems if len(set(stems)) == len(stems) else tuple(path.name for path in paths)


def _read_picture(path: Path) -> np.ndarray | str:
    """RGB pixels, or what is wrong with the file."""
    if not path.is_file():
        return f"{path.name} is no file: a pipe, or a link that leads nowhere"
    with contextlib.suppress(OSError, cv2.error):  # such as a size that OpenCV refuses
        content = path.read_bytes()
        # Unlike `imread`, it refuses a JPEG that was cut off.
        pixels_HxWx3 = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels_HxWx3 is not None:
            if warning := warning_of(content):
                logging.getLogger(__name__).warning(
                    "%s is damaged, and some of its pixels are wrong: libjpeg warns of '%s'",
                    path,
                    warning,
                )
            return pixels_HxWx3
    return f"{path.name} cannot be read as a picture"


def checked(array_HxWx3: np.ndarray) -> np.ndarray:
    """A copy: who gives arrays may fill the same one again while frames are read ahead.

    Raises:
        UserError: it is no picture.
    """
    array_HxWx3 = np.array(array_HxWx3)
    is_picture = array_HxWx3.ndim == 3 and array_HxWx3.shape[2] == 3 and array_HxWx3.size > 0
    if array_HxWx3.dtype != np.uint8 or not is_picture:
        raise UserError(
            f"A frame is an array HxWx3 of uint8, RGB, H and W at least 1; found "
            f"{array_HxWx3.dtype} of shape {array_HxWx3.shape}."
        )
    return array_HxWx3


def _numbered(
    pictures: Iterable[np.ndarray | str], expected: int | None, names: tuple[str, ...] = ()
) -> Frames:
    """Frames that are shown at a steady rate."""
    frames = itertools.starmap(numbered, enumerate(pictures))
    return Frames(frames, _RATE, 1 / _RATE, expected, names)


def numbered(index: int, picture: np.ndarray | str) -> SourceFrame:
    """A frame of what has no rate of its own.

    Args:
        index: frames before it.
        picture: HxWx3 RGB uint8, or what is wrong with it.
    """
    seconds = float(index / _RATE)
    if isinstance(picture, str):
        return SourceFrame(index, index, seconds, None, picture)
    return SourceFrame(index, index, seconds, picture, None)


def _rising(
    frames: Iterator[SourceFrame], time_base: Fraction, rate: Fraction
) -> Iterator[SourceFrame]:
    """Counts time from the first frame; one without a time, or with an earlier one, is put right.

    It is shown as long after the frame before it as the rate says.
    """
    duration = max(round(1 / rate / time_base), 1)
    first, last = None, -duration
    for frame in frames:
        first = frame.pts if first is None else first
        pts = last if frame.pts is None or first is None else frame.pts - first
        last = pts if pts > last else last + duration
        yield dataclasses.replace(frame, pts=last, seconds=float(last * time_base))


@contextlib.contextmanager
def _camera(number: int) -> Iterator[Frames]:
    if not 0 <= number < 2**31:
        raise UserError(f"Camera {number}: expected the number of one, 0, 1 and so on.")
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise UserError(f"Camera {number} cannot be opened: is it there, and free?")
        claimed = capture.get(cv2.CAP_PROP_FPS)
        is_rate = math.isfinite(claimed) and claimed > 0
        rate = Fraction(claimed).limit_denominator(1001) if is_rate else _RATE
        time_base = Fraction(1, 1000)

        def frames() -> Iterator[SourceFrame]:
            start = cv2.getTickCount()
            for index in itertools.count():
                is_read, pixels_HxWx3 = capture.read()
                if not is_read:
                    return
                pts = round((cv2.getTickCount() - start) / cv2.getTickFrequency() / time_base)
                yield SourceFrame(index, pts, None, pixels_HxWx3[:, :, ::-1].copy(), None)

        yield Frames(_rising(frames(), time_base, rate), rate, time_base, None)
    finally:
        capture.release()
