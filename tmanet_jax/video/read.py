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
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideData

from tmanet_jax.data.codec import Size
from tmanet_jax.errors import UserError
from tmanet_jax.video.missing import Event, InOrder, MissingFrames, with_doubts
from tmanet_jax.video.transport_stream import is_cut, is_joint

_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
"""Lists each frame: a packet without a frame is a loss, and so is a packet that is not there. In
other containers it may be the second field of a frame, or a picture that is never shown (VP8)."""

_MXF = "mxf"
"""Numbers its frames one by one: a number that does not come is a loss."""

_B_FRAMES_AT_MOST = 8
"""Encoders write two or three between the frames that they refer to, seldom more."""

_B_FRAMES_ARE_LEAVES = ("mpeg1video", "mpeg2video", "mpeg4")

_TS = "mpegts"

_TORN = "the file is torn here"

_PATIENCE_S = 20.0
"""How long a stream may give nothing."""

_OPTIONS_OF_STREAMS = {
    "reconnect": "1",
    "reconnect_on_network_error": "1",
    "reconnect_streamed": "1",
    "reconnect_delay_max": "8",
    "rtsp_transport": "tcp",
}
_HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions by their numbers in ITU-T H.273."""


@dataclass(frozen=True)
class SourceFrame:
    """A frame of a video, or the place of one that cannot be decoded.

    Attributes:
        index: how many frames come before it, broken ones included.
        pts: when it is shown, in units of the video's time base; None if the file does not say.
        seconds: the same in seconds.
        pixels_HxWx3: uint8 RGB, turned upright; None if there is a problem. The size may differ
            from the video's if that changes within the stream.
        problem: what is wrong with the frame's data; None if nothing is.
        is_doubtful: whether it may refer to a frame that is lost, so that its pixels may be wrong.
    """

    index: int
    pts: int | None
    seconds: float | None
    pixels_HxWx3: np.ndarray | None
    problem: str | None
    is_doubtful: bool = False


def open_video(source: str | os.PathLike[str]) -> "VideoReader":
    """Opens a video and decodes its first frame.

    Args:
        source: a file, or what `is_stream` takes for a stream.

    Raises:
        UserError: it cannot be read, is no video, or none of its frames can be decoded.
    """
    try:
        if not is_stream(source) and Path(source).stat().st_size == 0:
            raise UserError(f"{source} is empty. Get the file again.")
        container = open_container(source)
    except (OSError, av.error.FFmpegError) as error:
        what = "there is no stream there" if is_stream(source) else "the file is torn, or no video"
        raise UserError(
            f"{source} cannot be opened as a video ({_reason(error)}): {what}."
        ) from error
    try:
        return VideoReader(source, container)
    except BaseException:
        container.close()
        raise


def is_stream(source: str | os.PathLike[str]) -> bool:
    """Whether a source can be read only once: an address, "-" (standard input) or a pipe."""
    if _is_address(source) or source == "-":
        return True
    try:
        return stat.S_ISFIFO(os.stat(source).st_mode)
    except (OSError, ValueError):
        return False


def _is_address(source: str | os.PathLike[str]) -> bool:
    return isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def open_container(source: str | os.PathLike[str]) -> av.container.InputContainer:
    """Opens a media file or stream; titles that are not UTF-8 do not matter.

    Raises:
        OSError, FFmpegError: it cannot be opened.
    """
    address = "pipe:0" if source == "-" else source
    if not _is_address(source):
        return av.open(address, "r", metadata_errors="replace")
    return av.open(
        address,
        "r",
        metadata_errors="replace",
        timeout=_PATIENCE_S,
        container_options=_OPTIONS_OF_STREAMS,
    )


def _reason(error: OSError | av.error.FFmpegError) -> str:
    if isinstance(error, av.error.ExitError):
        return f"it gave nothing for {_PATIENCE_S:.0f} seconds"
    return error.strerror or str(error)


class VideoReader:
    """An open video: a context manager, and an iterator over its frames. Made by `open_video`.

    Attributes:
        source: the file or stream.
        size: height and width of the first frame that can be decoded, turned upright. Pixels that
            are not square stay as they are stored.
        average_rate: frames a second, over the whole video; None if the file does not say.
        time_base: unit of the frames' `pts`, in seconds.
        expected_frames: what the container claims; None if it does not say. For progress bars only.
        has_audio: whether there is sound.
        pixel_aspect: width of a pixel by its height, turned upright as the frames are.
        hdr: "PQ" or "HLG" if colours have such a transfer function; frames are not tone-mapped.
    """

    def __init__(
        self, source: str | os.PathLike[str], container: av.container.InputContainer
    ) -> None:
        self.source = source
        self._container = container
        self._stream = _first_video_stream(source, container)
        self._stream.codec_context.copy_opaque = True
        # Threads by slice give a packet's frame or error at once. Threads by frame are late, and an
        # error takes the decoded frames that wait behind it with it.
        self._stream.thread_type = "SLICE"
        self.average_rate: Fraction | None = self._stream.average_rate
        self.time_base: Fraction = self._stream.time_base or Fraction(1, 1)
        self.expected_frames: int | None = self._stream.frames or None
        self.has_audio = bool(container.streams.audio)
        self.pixel_aspect = Fraction(1)
        self._frames = self._decode()
        self.size, self._frames = self._peek(self._frames)
        self.hdr = _HDR.get(self._stream.codec_context.color_trc)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[SourceFrame]:
        """The frames that were not read yet."""
        return self._frames

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _peek(self, frames: Iterator[SourceFrame]) -> tuple[Size, Iterator[SourceFrame]]:
        seen = []
        for frame in frames:
            seen.append(frame)
            if frame.pixels_HxWx3 is not None:
                height, width, _ = frame.pixels_HxWx3.shape
                return Size(height, width), itertools.chain(seen, frames)
        reason = f" ({seen[0].problem})" if seen else ""
        raise UserError(f"No frame of {self.source} can be decoded{reason}. Get the file again.")

    def _decode(self) -> Iterator[SourceFrame]:
        for index, event in enumerate(with_doubts(self._events())):
            pixels_HxWx3, problem = None, event.problem
            if event.frame is not None and problem is None:
                turn = _turn(event.frame)
                aspect = Fraction(self._stream.sample_aspect_ratio or 1)
                self.pixel_aspect = 1 / aspect if turn.is_transposed else aspect
                try:
                    pixels_HxWx3 = _upright_rgb(event.frame, turn)
                except (av.error.FFmpegError, ValueError) as error:
                    problem = str(error)
            seconds = None if event.pts is None else float(event.pts * self.time_base)
            yield SourceFrame(index, event.pts, seconds, pixels_HxWx3, problem, event.is_doubtful)

    def _events(self) -> Iterator[Event]:
        """Frames and problems in the order of showing; an error of the decoder ends nothing."""
        container = self._container.format.name
        missing = MissingFrames(
            every_packet_is_a_frame=container == _MOV,
            every_pts_is_a_frame=container == _MXF,
            b_frames_are_leaves=self._stream.codec_context.name in _B_FRAMES_ARE_LEAVES,
        )
        in_order = InOrder(num_held=_B_FRAMES_AT_MOST if container in (_MOV, _MXF) else 0)
        num_packets, end, is_torn = 0, 0.0, False
        for packet in self._packets():
            if isinstance(packet, str):
                is_torn = False
                yield from missing.failed(None, packet)
                continue
            num_packets += packet.size > 0
            end = max(end, self._shown_by(packet))
            is_cut_off = self._is_cut_off(packet)
            is_torn |= is_cut_off
            missing.sent(packet, is_cut_off=is_cut_off)
            frames, problem = _decoded(packet)
            is_last = packet.size == 0
            for frame in [*in_order.add(frames), *(in_order.rest() if is_last else ())]:
                yield from missing.before(frame)
                flaw = missing.flaw(frame)
                is_torn &= flaw is None
                yield Event(frame.pts, frame, flaw)
            if problem is not None:
                is_torn = False
                yield from missing.failed(packet.pts, problem)
        rest = list(missing.rest())
        yield from rest
        is_short = container == _MOV and num_packets < (self.expected_frames or 0)
        if not rest and (is_torn or is_short):
            yield Event(None, None, _TORN)
        elif not rest and container != _MOV:
            self._tell_early_end(end)

    def _shown_by(self, packet: av.Packet) -> float:
        """When all frames up to a packet are over, in seconds, unless one is missing."""
        lasts_s = max(self._frame_s, float((packet.duration or 0) * self.time_base))
        if packet.dts is None:
            return float((packet.pts or 0) * self.time_base) + lasts_s
        delay = self._stream.codec_context.has_b_frames
        return float(packet.dts * self.time_base) + delay * self._frame_s + lasts_s

    @property
    def _frame_s(self) -> float:
        return float(1 / (self.average_rate or 25))

    @property
    def _is_transport_stream(self) -> bool:
        """Whether the packets of one can be read beside libav."""
        return self._container.format.name == _TS and os.path.isfile(self.source)

    def _is_cut_off(self, packet: av.Packet) -> bool:
        """Whether data of a packet is missing; libav says so too where files were joined."""
        is_told = packet.is_corrupt and packet.size > 0
        if not is_told or packet.pos is None or not self._is_transport_stream:
            return packet.is_corrupt
        return not is_joint(Path(self.source), packet.pos, self._frame_s)

    def _tell_early_end(self, end_s: float) -> None:
        """Says so if the file claims to be longer: torn between two frames, it looks whole."""
        missing_s = _claimed_end(self._container, self._stream) - end_s
        if missing_s > 1.5 * self._frame_s:
            logging.getLogger(__name__).warning(
                "%s ends %.1f s before what it says: it may be torn", self.source, missing_s
            )
        elif self._is_transport_stream and is_cut(Path(self.source)):
            logging.getLogger(__name__).warning("%s ends within a packet: it is torn", self.source)

    def _packets(self) -> Iterator[av.Packet | str]:
        """The packets, the last one empty; or a message if the container cannot be read on."""
        try:
            yield from self._container.demux(self._stream)
        except av.error.FFmpegError as error:
            yield _reason(error)
            flush = av.Packet()
            flush.stream = self._stream
            yield flush


def _decoded(packet: av.Packet) -> tuple[list[av.VideoFrame], str | None]:
    """The frames that the decoder gives after a packet, or what it raises."""
    try:
        return packet.decode(), None
    except av.error.FFmpegError as error:
        return [], error.strerror


def _first_video_stream(
    source: str | os.PathLike[str], container: av.container.InputContainer
) -> av.VideoStream:
    for stream in container.streams.video:
        is_cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
        if not is_cover and stream.codec_context is None:
            raise UserError(f"{source} has a video stream of a codec that libav does not know.")
        if not is_cover:
            return stream
    raise UserError(f"{source} has no video stream: expected a video, found other media.")


def _claimed_end(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """When a video ends by what its file says, in seconds; 0 if it does not say."""
    start_s = float((stream.start_time or 0) * (stream.time_base or 0))
    if stream.frames and stream.average_rate:
        return start_s + float(stream.frames / stream.average_rate)
    if stream.duration is not None and stream.time_base is not None:
        return start_s + float(stream.duration * stream.time_base)
    if tag := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return (container.duration or 0) / av.time_base


class _Turn(NamedTuple):
    """How a stored picture becomes upright: axes exchanged or not, then each mirrored or not."""

    is_transposed: bool
    down: int
    across: int


def _turn(frame: av.VideoFrame) -> _Turn:
    """That of libav's display matrix, to the nearest quarter turn."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return _Turn(False, 1, 1)
    # A pixel at x, y is shown at a * x + c * y, b * x + d * y.
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if is_transposed else (a, d)
    return _Turn(is_transposed, -1 if down < 0 else 1, -1 if across < 0 else 1)


def _upright_rgb(frame: av.VideoFrame, turn: _Turn) -> np.ndarray:
    pixels_HxWx3 = frame.to_ndarray(format="rgb24")
    if turn.is_transposed:
        pixels_HxWx3 = pixels_HxWx3.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels_HxWx3[:: turn.down, :: turn.across])
