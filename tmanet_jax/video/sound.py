"""The sound of a video, for the one that is made of its frames; whatever it does, they come first.

A track may have a codec that nobody knows, or times that go back. `ways_to_keep` therefore gives
one way after the other, and who writes the video takes the first that works, or none.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import av

from tmanet_jax.errors import UserError
from tmanet_jax.video.read import is_stream, open_container, open_video

_Stream = TypeVar("_Stream", av.AudioStream, av.VideoStream)

_AUDIO_OF_BROWSERS = ("aac", "mp3", "opus", "flac")
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


@dataclass(frozen=True)
class Sound:
    """A sound track, and whether its packets are copied or encoded anew as AAC.

    Attributes:
        path: the video.
        track: which of its sound tracks, from 0.
        start: when its first frame is shown, in seconds; the sound is counted from there.
        is_copied: whether packets are taken as they are.
    """

    path: str | os.PathLike[str]
    track: int
    start: float
    is_copied: bool

    def packets(
        self, out: av.container.OutputContainer, opened: contextlib.ExitStack
    ) -> Iterator[av.Packet]:
        """Adds a stream to a container; its packets follow, with times that rise.

        Raises:
            Exception: of many kinds, here or while the packets are read: this way does not work.
        """
        container = opened.enter_context(open_container(self.path))
        track = container.streams.audio[self.track]
        if self.is_copied:
            packets = copied(container, track, out.add_stream_from_template(track))
        else:
            rate = track.codec_context.sample_rate
            encoder = out.add_stream("aac", rate=rate if rate in _AAC_RATES else 48000)
            encoder.codec_context.layout = _AAC_LAYOUTS.get(track.codec_context.channels, "stereo")
            packets = _encoded(container, track, encoder)
        return _moved(_rising(_while_it_can_be_read(packets, self.path)), self.start)


def ways_to_keep(path: str | os.PathLike[str]) -> Iterator[Sound]:
    """The ways to keep the sound of a video, the best first; none if libav knows no track's codec.

    The track that players choose by default goes before the others, and a copy before a new
    encoding.

    Raises:
        Exception: of many kinds: the sound cannot be read.
    """
    if is_stream(path):
        raise UserError("a stream is read only once")
    with open_video(path) as video:
        start = next((frame.seconds for frame in video if frame.seconds is not None), 0.0)
    with open_container(path) as container:
        tracks = enumerate(container.streams.audio)
        for index, track in sorted(tracks, key=lambda item: not _is_default(item[1])):
            if track.codec_context is not None:
                is_playable = track.codec_context.codec.canonical_name in _AUDIO_OF_BROWSERS
                kinds = (True, False) if is_playable else (False,)
                for is_copied in kinds:
                    yield Sound(path, index, start, is_copied)


def _is_default(track: av.AudioStream) -> bool:
    return bool(track.disposition & av.stream.Disposition.default)


def copied(
    container: av.container.InputContainer, stream: _Stream, out: _Stream
) -> Iterator[av.Packet]:
    """The packets of a stream as they are, for a stream of another container."""
    for packet in container.demux(stream):
        if packet.size:
            packet.stream = out
            yield packet


def _encoded(
    container: av.container.InputContainer, track: av.AudioStream, encoder: av.AudioStream
) -> Iterator[av.Packet]:
    for packet in container.demux(track):
        with contextlib.suppress(av.error.InvalidDataError):  # the decoder goes on behind it
            for frame in packet.decode():
                yield from encoder.encode(frame)
    yield from encoder.encode(None)


def _while_it_can_be_read(
    packets: Iterator[av.Packet], path: str | os.PathLike[str]
) -> Iterator[av.Packet]:
    try:
        yield from packets
    except av.error.FFmpegError as error:
        logging.getLogger(__name__).warning(
            "the sound of %s ends early: it cannot be read on (%s)", path, error.strerror
        )


def _rising(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """Puts right times that are missing or go back, as `open_frames` does for the frames."""
    due, last = 0, None
    for packet in packets:
        if packet.pts is None or (last is not None and packet.pts <= last):
            packet.pts = due
        packet.dts = last = packet.pts
        due = last + max(packet.duration or 0, 1)
        yield packet


def _moved(packets: Iterator[av.Packet], start: float) -> Iterator[av.Packet]:
    """Counts time from `start`, in seconds; what is over by then is left out."""
    for packet in packets:
        offset = round(start / Fraction(packet.time_base))
        assert packet.pts is not None
        packet.pts = packet.dts = packet.pts - offset
        if packet.pts + (packet.duration or 0) >= 0:
            yield packet
