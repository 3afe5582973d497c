"""Reads video files frame by frame, from the first to the last.

    with open_video("drive.mp4") as video:
        for frame in video:
            if frame.problem is None:
                use(frame.index, frame.pixels_HxWx3)

Frames are decoded in sequence and counted: what containers claim of their length is often wrong,
and seeking lands on other frames than it says. Broken data is told where it stands, and decoding
goes on behind it. Only what container or decoder notice can be told: a Matroska file torn between
two frames looks whole, and a damaged frame may decode to a wrong picture.

Colours: libswscale converts with the matrix that the stream is tagged with (BT.601, BT.709, ...)
and its range; an untagged stream counts as BT.601 of limited range, as in OpenCV and ffmpeg.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from tmanet_jax.data.codec import Size
from tmanet_jax.errors import UserError

_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
"""Lists each frame: a packet without a frame is a loss, and so is a packet that is not there. In
other containers it may be the second field of a frame, or a picture that is never shown (VP8)."""

_MXF = "mxf"
"""Numbers its frames one by one: a number that does not come is a loss."""

_NO_FRAME = "its data gave no frame"
_CUT_OFF = "its data is cut off"
_CORRUPT = "the decoder marks it as corrupt"
_TORN = "the file is torn here"


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video, or the place of one that cannot be decoded.

    Attributes:
        index: how many frames come before it, broken ones included.
        pts: when it is shown, in units of the video's time base; None if the file does not say.
        seconds: the same in seconds.
        pixels_HxWx3: uint8 RGB, turned upright; None if there is a problem. The size may differ
            from the video's if that changes within the stream.
        problem: what is wrong with the frame's data; None if nothing is.
    """

    index: int
    pts: int | None
    seconds: float | None
    pixels_HxWx3: np.ndarray | None
    problem: str | None


@dataclass(frozen=True)
class _Event:
    """A decoded frame, or what stands in its way."""

    pts: int | None
    frame: av.VideoFrame | None
    problem: str | None = None


def open_video(path: str | os.PathLike[str]) -> "VideoReader":
    """Opens a video and decodes its first frame.

    Raises:
        UserError: the file cannot be read, is no video, or none of its frames can be decoded.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty. Get the file again.")
        container = open_container(path)
    except (OSError, av.error.FFmpegError) as error:
        raise UserError(
            f"{path} cannot be opened as a video ({error.strerror}): the file is torn, or no video."
        ) from error
    try:
        return VideoReader(path, container)
    except BaseException:
        container.close()
        raise


def open_container(path: str | os.PathLike[str]) -> av.container.InputContainer:
    """Opens a media file; what its titles say in another encoding than UTF-8 is not our concern.

    Raises:
        OSError, FFmpegError: it cannot be opened.
    """
    return av.open(path, "r", metadata_errors="replace")


class VideoReader:
    """An open video: a context manager, and an iterator over its frames. Made by `open_video`.

    Attributes:
        path: the file.
        size: height and width of the first frame that can be decoded, turned upright. Pixels that
            are not square stay as they are stored.
        average_rate: frames a second, over the whole video; None if the file does not say.
        time_base: unit of the frames' `pts`, in seconds.
        expected_frames: what the container claims; None if it does not say. For progress bars only.
        has_audio: whether there is sound.
    """

    def __init__(self, path: Path, container: av.container.InputContainer) -> None:
        self.path = path
        self._container = container
        self._stream = _first_video_stream(path, container)
        # Threads by slice give a packet's frame or error at once. Threads by frame are late, and an
        # error takes the decoded frames that wait behind it with it.
        self._stream.thread_type = "SLICE"
        self.average_rate: Fraction | None = self._stream.average_rate
        self.time_base: Fraction = self._stream.time_base or Fraction(1, 1)
        self.expected_frames: int | None = self._stream.frames or None
        self.has_audio = bool(container.streams.audio)
        self._frames = self._decode()
        self.size, self._frames = self._peek(self._frames)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """The frames that were not read yet."""
        return self._frames

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _peek(self, frames: Iterator[VideoFrame]) -> tuple[Size, Iterator[VideoFrame]]:
        seen = []
        for frame in frames:
            seen.append(frame)
            if frame.pixels_HxWx3 is not None:
                height, width, _ = frame.pixels_HxWx3.shape
                return Size(height, width), itertools.chain(seen, frames)
        reason = f" ({seen[0].problem})" if seen else ""
        raise UserError(f"No frame of {self.path} can be decoded{reason}. Get the file again.")

    def _decode(self) -> Iterator[VideoFrame]:
        for index, event in enumerate(self._events()):
            pixels_HxWx3, problem = None, event.problem
            if event.frame is not None and problem is None:
                try:
                    pixels_HxWx3 = _upright_rgb(event.frame)
                except (av.error.FFmpegError, ValueError) as error:
                    problem = str(error)
            seconds = None if event.pts is None else float(event.pts * self.time_base)
            yield VideoFrame(index, event.pts, seconds, pixels_HxWx3, problem)

    def _events(self) -> Iterator[_Event]:
        """Frames and problems in the order of showing; an error of the decoder ends nothing."""
        container = self._container.format.name
        losses = _Losses(
            every_packet_is_a_frame=container == _MOV, every_pts_is_a_frame=container == _MXF
        )
        num_packets, is_torn = 0, False
        for packet in self._packets():
            problem = None
            if isinstance(packet, str):
                frames, problem = [], packet
                is_torn = False
            else:
                num_packets += packet.size > 0
                is_torn |= packet.is_corrupt
                losses.sent(packet)
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    frames, problem = [], error.strerror
            for frame in frames:
                yield from losses.before(frame.pts)
                flaw = losses.flaw(frame)
                is_torn &= flaw is None
                yield _Event(frame.pts, frame, flaw)
            if problem is not None:
                is_torn = False
                yield from losses.failed(None if isinstance(packet, str) else packet.pts, problem)
        rest = list(losses.rest())
        yield from rest
        is_short = container == _MOV and num_packets < (self.expected_frames or 0)
        if not rest and (is_torn or is_short):
            yield _Event(None, None, _TORN)

    def _packets(self) -> Iterator[av.Packet | str]:
        """The packets, the last one empty; or a message if the container cannot be read on."""
        try:
            yield from self._container.demux(self._stream)
        except av.error.FFmpegError as error:
            yield error.strerror or str(error)
            flush = av.Packet()
            flush.stream = self._stream
            yield flush


class _Losses:
    """Packets without a frame, each told at the time that its frame should have been shown."""

    def __init__(self, every_packet_is_a_frame: bool, every_pts_is_a_frame: bool) -> None:
        self._expects_packets = every_packet_is_a_frame
        self._expects_pts = every_pts_is_a_frame
        self._last_pts: int | None = None
        self._comes_one_by_one = False
        self._waiting: dict[int, str] = {}
        self._cut_off: set[int] = set()

    def sent(self, packet: av.Packet) -> None:
        """A packet goes to the decoder."""
        if packet.pts is None or packet.size == 0 or packet.is_discard:
            return
        if packet.is_corrupt:
            self._cut_off.add(packet.pts)
        if self._expects_packets:
            self._waiting[packet.pts] = _NO_FRAME

    def failed(self, pts: int | None, problem: str) -> Iterable[_Event]:
        """The decoder raised: at once if nobody knows when the frame should have been shown."""
        if pts is None:
            return [_Event(None, None, problem)]
        self._waiting[pts] = problem
        return []

    def before(self, pts: int | None) -> Iterable[_Event]:
        """What is lost before a frame that is shown now."""
        if pts is None:
            return []
        if self._waiting.pop(pts, None) is None and self._expects_packets:
            # The decoder makes its own times: what is missing cannot be told by them.
            self._expects_packets = False
            self._waiting = {k: text for k, text in self._waiting.items() if text != _NO_FRAME}
        if self._expects_pts:
            self._expect_from(self._last_pts, pts)
            self._last_pts = pts if self._last_pts is None else max(pts, self._last_pts)
        return self._told(sorted(waiting for waiting in self._waiting if waiting < pts))

    def _expect_from(self, last_pts: int | None, pts: int) -> None:
        """Once frames have come one by one, none may be left out between two."""
        if last_pts is None:
            return
        self._comes_one_by_one |= pts == last_pts + 1
        if self._comes_one_by_one:
            for missing in range(last_pts + 1, pts):
                self._waiting.setdefault(missing, _NO_FRAME)

    def rest(self) -> Iterable[_Event]:
        """What is lost after the last frame."""
        return self._told(sorted(self._waiting))

    def flaw(self, frame: av.VideoFrame) -> str | None:
        """What is wrong with a frame that the decoder gave."""
        if frame.pts is not None and frame.pts in self._cut_off:
            return _CUT_OFF
        return _CORRUPT if frame.is_corrupt else None

    def _told(self, all_pts: list[int]) -> list[_Event]:
        return [_Event(pts, None, self._waiting.pop(pts)) for pts in all_pts]


def _first_video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    for stream in container.streams.video:
        is_cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
        if not is_cover:
            return stream
    raise UserError(f"{path} has no video stream: expected a video, found other media.")


def _upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    pixels_HxWx3 = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90)  # counterclockwise, as np.rot90's
    return np.ascontiguousarray(np.rot90(pixels_HxWx3, quarter_turns))
