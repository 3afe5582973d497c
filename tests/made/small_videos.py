"""Videos whose frames carry their number as large dark and light squares."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (96, 128)
_BITS = 12
_COLUMNS = 4
_INTERLACED = (1 << 18) | (1 << 29)  # AV_CODEC_FLAG_INTERLACED_DCT, _ME


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame, uint8 HxWx3, that shows its number: 12 squares, and grain of its own."""
    height, width = size
    frame_HxWx3 = np.random.default_rng(number).integers(50, 70, (height, width, 3), np.uint8)
    for bit in range(_BITS):
        if number >> bit & 1:
            frame_HxWx3[_square(bit, size)] += 150
    return frame_HxWx3


def number_of(frame_HxWx3: np.ndarray) -> int:
    """Reads the number, also after lossy compression."""
    size = frame_HxWx3.shape[:2]
    return sum(
        (frame_HxWx3[_square(bit, size, inset=4)].mean() > 135) << bit for bit in range(_BITS)
    )


def _square(bit: int, size: tuple[int, int], inset: int = 0) -> tuple[slice, slice]:
    side = min(size[0] * _COLUMNS // _BITS, size[1] // _COLUMNS)
    row, column = divmod(bit, _COLUMNS)
    top, left = row * side, column * side
    return (
        slice(top + inset, top + side - inset),
        slice(left + inset, left + side - inset),
    )


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str,
    *,
    pixel_format: str = "yuv420p",
    rate: int = 30,
    interlaced: bool = False,
    rotation: int = 0,
    pixel_aspect: Fraction = Fraction(1),
    colour_transfer: int = 2,
    title: str = "",
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Encodes frames, uint8 HxWx3, of one size."""
    frames = list(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.time_base = Fraction(1, rate)
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.codec_context.color_trc = colour_transfer
        if title:
            container.metadata["title"] = title
        if interlaced:
            stream.codec_context.flags |= _INTERLACED
        if rotation:
            stream.set_display_rotation(rotation)
        for index, frame_HxWx3 in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(frame_HxWx3)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_sound(
    path: Path,
    codec: str,
    *,
    seconds: tuple[float, float] = (0.0, 1.0),
    start: int = 0,
    video_codec: str = "libx264",
    tracks: Sequence[int] = (440,),
) -> Path:
    """25 frames, the first at the number `start`, and a tone a track between two seconds."""
    with av.open(path, "w") as container:
        video = container.add_stream(video_codec, rate=25)
        assert isinstance(video, av.VideoStream)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        audio = [container.add_stream(codec, rate=48000, layout="stereo") for _ in tracks]
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(numbered(index, SIZE))
            frame.pts = start + index
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for stream, pitch in zip(audio, tracks, strict=True):
            assert isinstance(stream, av.AudioStream)
            first, end = (round(48000 * time) for time in seconds)
            tone = 8000 * np.sin(np.arange(end - first) * 2 * np.pi * pitch / 48000)
            samples = np.repeat(tone.astype(np.int16), 2)[None]
            sound = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
            sound.sample_rate, sound.pts = 48000, first
            container.mux(stream.encode(sound))
            container.mux(stream.encode())
    return path


def packet_positions(path: Path) -> list[tuple[int, int]]:
    """Where each packet of the video stream lies in the file, and its size, in bytes."""
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [(packet.pos or 0, packet.size) for packet in packets]
