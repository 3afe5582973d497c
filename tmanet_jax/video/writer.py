"""Writes videos that browsers play: H.264, 4:2:0, index in front, sound of another file beside it.

A video is made of parts, files of a fixed number of frames that are each encoded by themselves.
What is interrupted loses the part that was being written, and nothing else; `join` then copies
the parts' packets behind one another, so that the whole is the same however often it stopped.
"""

import contextlib
import functools
import heapq
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tmanet_jax.errors import UserError
from tmanet_jax.video.sound import Sound, copied, ways_to_keep

PART_FRAMES = 120

_ENCODER = {
    "crf": "20",
    "preset": "veryfast",
    "bf": "0",
    "threads": "2",
    "x264-params": "cpu-independent=1",
}
"""Without B-frames a packet is decoded when it is shown, so that parts follow seamlessly. Number of
threads and CPU must not decide bits of the result; nor must what memory held before, which x264's
AVX-512 code reads where a row of 16-pixel blocks is not a multiple of 16 of them."""
_LAST = "last.nut"
_BT709 = 1
_LIMITED_RANGE = 1


class PartWriter:
    """Writes frames as parts into a folder, going on behind those that are there.

    Args:
        folder: of the parts alone; made when it is not there.
        rate: frames a second, on average.
        time_base: unit of the frames' times, in seconds.
        pixel_aspect: width of a pixel by its height.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rate: Fraction,
        time_base: Fraction,
        pixel_aspect: Fraction = Fraction(1),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._new_part = functools.partial(
            _Part, folder / "unfinished.nut", rate, time_base, pixel_aspect
        )
        self._open: _Part | None = None
        (folder / _LAST).unlink(missing_ok=True)
        self.num_done = PART_FRAMES * _keep_full_parts(folder)

    def write(self, picture_HxWx3: np.ndarray, pts: int) -> None:
        """Adds the frame number `num_done`: RGB uint8, shown at `pts`, later than the last.

        An odd height or width is made even by repeating the last row or column.

        Raises:
            UserError: H.264 has no frames of that size.
        """
        if self._open is None:
            self._open = self._new_part(picture_HxWx3.shape[:2])
        try:
            self._open.write(picture_HxWx3, pts)
        except (av.error.ArgumentError, av.error.ExternalError) as error:
            self._open = None
            height, width, _ = picture_HxWx3.shape
            raise UserError(
                f"Frames of {height}x{width} pixels (height x width, legend included) cannot be "
                "written as a video: choose --format=png or --format=labels."
            ) from error
        self.num_done += 1
        if self.num_done % PART_FRAMES == 0:
            self._finish(_full_name(self.num_done // PART_FRAMES - 1))

    def close(self) -> None:
        """Ends the last part, which may be shorter than the others."""
        if self._open is not None:
            self._finish(_LAST)

    def _finish(self, name: str) -> None:
        assert self._open is not None
        self._open.close()
        os.replace(self._open.path, self._folder / name)
        self._open = None


def full_parts(folder: Path) -> list[Path]:
    """The parts of full length, up to the first that is missing."""
    paths = (folder / _full_name(number) for number in itertools.count())
    return list(itertools.takewhile(Path.exists, paths))


def _keep_full_parts(folder: Path) -> int:
    """Deletes what lies behind a part that is missing or cut; returns how many stay."""
    parts = full_parts(folder)
    whole = list(itertools.takewhile(_is_full, parts))
    for path in set(folder.glob("[0-9]*.nut")) - set(whole):
        path.unlink()
    return len(whole)


def _is_full(part: Path) -> bool:
    """Whether each frame is there: a machine that lost its power may leave a file empty or cut."""
    try:
        with av.open(part) as container:
            packets = container.demux(video=0)
            num_frames = sum(packet.size > 0 and not packet.is_corrupt for packet in packets)
    except (OSError, av.error.FFmpegError):
        return False
    return num_frames == PART_FRAMES


def _full_name(number: int) -> str:
    return f"{number:06d}.nut"


class _Part:
    """A video of its own, in a container that keeps every time as it is."""

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        time_base: Fraction,
        pixel_aspect: Fraction,
        size: tuple[int, ...],
    ) -> None:
        self.path = path
        self._time_base = time_base
        self._container = av.open(path, "w", format="nut")
        self._stream = self._container.add_stream("libx264", rate=rate, options=_ENCODER)
        self._stream.height, self._stream.width = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.time_base = time_base
        codec.sample_aspect_ratio = pixel_aspect
        codec.color_range = _LIMITED_RANGE
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709

    def write(self, picture_HxWx3: np.ndarray, pts: int) -> None:
        height, width, _ = picture_HxWx3.shape
        if height % 2 or width % 2:
            odd = ((0, height % 2), (0, width % 2), (0, 0))
            picture_HxWx3 = np.pad(picture_HxWx3, odd, mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HxWx3), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        with contextlib.closing(self._container):
            self._container.mux(self._stream.encode())


def join(folder: Path, out: Path, *, sound_of: str | os.PathLike[str] | None = None) -> None:
    """Puts the parts of a folder together as an MP4 file, with the sound of a video.

    Sound that browsers play is copied, other sound becomes AAC. It keeps its place in time beside
    the first frame; what cannot be kept is left out, and told.

    Args:
        folder: where a PartWriter wrote.
        out: the file; it is there when it is whole.
        sound_of: the video whose frames these are; None: no sound.

    Raises:
        UserError: there are no parts, or the file cannot be written.
    """
    last = folder / _LAST
    parts = full_parts(folder) + ([last] if last.exists() else [])
    if not parts:
        raise UserError(f"There is no frame to write to {out}.")
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        lost = None if sound_of is None else _join_with_sound(parts, unfinished, sound_of)
        if sound_of is None or lost is not None:
            _write_joined(parts, unfinished, None)
        os.replace(unfinished, out)
    except (OSError, av.error.FFmpegError) as error:
        raise UserError(f"{out} cannot be written: {error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    if lost is not None:
        logging.getLogger(__name__).warning(
            "%s is without the sound of %s: %s", out, sound_of, lost
        )


def _join_with_sound(parts: list[Path], out: Path, sound_of: str | os.PathLike[str]) -> str | None:
    """Why the sound cannot be kept; None if it is."""
    reason = "its codec is not known"
    ways = ways_to_keep(sound_of)
    while True:
        try:
            if (way := next(ways, None)) is None:
                return reason
            _write_joined(parts, out, way)
            return None
        except Exception as error:  # no fault of the sound may cost the picture
            reason = str(error)


def _write_joined(parts: list[Path], out: Path, sound: Sound | None) -> None:
    with (
        av.open(out, "w", format="mp4", options={"movflags": "+faststart"}) as container,
        contextlib.ExitStack() as opened,
    ):
        with av.open(parts[0]) as first:
            video = container.add_stream_from_template(first.streams.video[0])
        tracks = [_with_durations(_video_packets(parts, video))]
        if sound is not None:
            tracks.append(sound.packets(container, opened))
        for packet in _until_the_picture_ends(heapq.merge(*tracks, key=_seconds), video):
            container.mux(packet)


def _until_the_picture_ends(
    packets: Iterable[av.Packet], video: av.VideoStream
) -> Iterator[av.Packet]:
    end = Fraction(0)
    for packet in packets:
        if packet.stream is video:
            end = _seconds(packet) + (packet.duration or 0) * Fraction(packet.time_base)
            yield packet
        elif _seconds(packet) <= end:
            yield packet


def _seconds(packet: av.Packet) -> Fraction:
    return _time(packet) * Fraction(packet.time_base)


def _time(packet: av.Packet) -> int:
    """Without B-frames, and for sound, a packet is decoded when it is due."""
    assert packet.pts is not None
    return packet.pts


def _video_packets(parts: list[Path], stream: av.VideoStream) -> Iterator[av.Packet]:
    for part in parts:
        with av.open(part) as container:
            yield from copied(container, container.streams.video[0], stream)


def _with_durations(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    """Each frame lasts until the next; the last as long as the one before it."""
    before: av.Packet | None = None
    for packet in packets:
        if before is not None:
            before.duration = _time(packet) - _time(before)
            packet.duration = before.duration
            yield before
        before = packet
    if before is not None:
        yield before
