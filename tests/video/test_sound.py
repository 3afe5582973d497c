"""The sound of a video beside written frames: kept, made to fit, or left out; never their loss."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.made.small_videos import SIZE, numbered, with_sound, write_video
from tmanet_jax.video import sound
from tmanet_jax.video.writer import PartWriter, join


def joined(tmp_path: Path, source: Path, num_frames: int = 25) -> Path:
    """A video of frames of its own with the sound of a source."""
    writer = PartWriter(tmp_path / "parts", rate=Fraction(25), time_base=Fraction(1, 25))
    for number in range(num_frames):
        writer.write(numbered(number, SIZE), number)
    writer.close()
    join(tmp_path / "parts", tmp_path / "out.mp4", sound_of=source)
    with av.open(tmp_path / "out.mp4") as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == num_frames
    return tmp_path / "out.mp4"


def heard(path: Path) -> tuple[str, float, float, float]:
    """Codec, beginning, end and pitch of what is loud."""
    with av.open(path) as container:
        (track,) = container.streams.audio
        name = track.codec_context.codec.canonical_name
        rate = track.sample_rate
        samples = np.zeros(rate * 3, np.float32)
        for frame in container.decode(track):
            values = frame.to_ndarray().astype(np.float32)
            mono = values.mean(0) if frame.format.is_planar else values.reshape(-1, 2).mean(1)
            at = round((frame.time or 0) * rate)
            samples[at : at + len(mono)] = mono
    loud = np.flatnonzero(np.abs(samples) > 0.2 * np.abs(samples).max())
    first, end = loud[0], loud[-1]
    pitch = np.abs(np.fft.rfft(samples[first:end])).argmax() * rate / (end - first)
    return name, first / rate, end / rate, pitch


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.mkv", "pcm_s16le", "aac"),
        ("a.mkv", "libopus", "opus"),
        ("a.mkv", "libmp3lame", "mp3"),
        ("a.avi", "libmp3lame", "mp3"),
        ("a.avi", "adpcm_ms", "aac"),
        ("adts.ts", "aac", "aac"),
        ("a.ts", "mp2", "aac"),
    ],
)
def test_sound_is_kept(tmp_path: Path, name: str, codec: str, kept: str) -> None:
    video_codec = "mpeg4" if name.endswith("avi") else "libx264"
    source = with_sound(tmp_path / name, codec, video_codec=video_codec)
    found, first, end, pitch = heard(joined(tmp_path, source))
    assert found == kept
    assert (first, end) == pytest.approx((0, 1), abs=0.06)
    assert pitch == pytest.approx(440, abs=3)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_that_begins_late_and_ends_early_keeps_its_place(tmp_path: Path, codec: str) -> None:
    source = with_sound(tmp_path / "a.mkv", codec, seconds=(0.4, 0.8), start=5)
    _, first, end, _ = heard(joined(tmp_path, source))
    assert (first, end) == pytest.approx((0.2, 0.6), abs=0.05)


@pytest.mark.parametrize("codec", ["aac", "mp2"], ids=["copied", "encoded anew"])
def test_times_of_sound_that_go_back_are_made_to_rise(tmp_path: Path, codec: str) -> None:
    part = with_sound(tmp_path / "part.ts", codec).read_bytes()
    (tmp_path / "both.ts").write_bytes(part + part)
    _, first, end, _ = heard(joined(tmp_path, tmp_path / "both.ts", num_frames=50))
    assert (first, end) == pytest.approx((0, 2), abs=0.12)


def renamed(source: Path, codec: bytes, out: Path) -> Path:
    """A video whose first sound track has a codec that nobody knows."""
    content = source.read_bytes()
    assert content.count(codec) >= 1
    out.write_bytes(content.replace(codec, b"A_" + b"X" * (len(codec) - 2), 1))
    return out


def test_sound_that_nobody_knows_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = with_sound(tmp_path / "a.mkv", "libopus")
    source = renamed(whole, b"A_OPUS", tmp_path / "unknown.mkv")
    with av.open(joined(tmp_path, source)) as container:
        assert not container.streams.audio
    assert f"without the sound of {source}: its codec is not known" in caplog.text


def test_of_several_tracks_the_first_that_can_be_kept_is(tmp_path: Path) -> None:
    whole = with_sound(tmp_path / "a.mkv", "libopus", tracks=(440, 880))
    assert heard(joined(tmp_path / "a", whole))[3] == pytest.approx(440, abs=3)
    source = renamed(whole, b"A_OPUS", tmp_path / "unknown.mkv")
    assert heard(joined(tmp_path / "b", source))[3] == pytest.approx(880, abs=3)


def test_what_cannot_be_copied_is_encoded_anew(tmp_path: Path) -> None:
    """MP4 takes no MP3 of such a low rate."""
    source = tmp_path / "low.mkv"
    with av.open(source, "w") as container:
        video = container.add_stream("libx264", rate=25)
        assert isinstance(video, av.VideoStream)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        audio = container.add_stream("libmp3lame", rate=8000, layout="mono")
        assert isinstance(audio, av.AudioStream)
        container.mux(video.encode(av.VideoFrame.from_ndarray(numbered(0, SIZE))))
        container.mux(video.encode())
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        samples.sample_rate = 8000
        container.mux(audio.encode(samples))
        container.mux(audio.encode())
    with av.open(joined(tmp_path, source)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize("fault", [AttributeError, MemoryError, av.error.InvalidDataError])
def test_no_fault_of_the_sound_costs_the_picture(
    tmp_path: Path,
    fault: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = with_sound(tmp_path / "a.mp4", "aac")

    def failing(*_: object) -> None:
        raise fault(22, "it is spoilt")

    monkeypatch.setattr(sound, "_moved", failing)
    with av.open(joined(tmp_path, source)) as container:
        assert not container.streams.audio
    assert "is without the sound of" in caplog.text and "it is spoilt" in caplog.text


def test_damaged_sound_is_kept_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.mkv", "ac3")
    content = bytearray(source.read_bytes())
    with av.open(source) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    for packet in packets[10:14]:
        assert packet.pos is not None
        content[packet.pos + 12 : packet.pos + packet.size] = bytes(packet.size - 12)
    (tmp_path / "damaged.mkv").write_bytes(content)
    _, first, end, _ = heard(joined(tmp_path, tmp_path / "damaged.mkv"))
    assert (first, end) == pytest.approx((0, 1), abs=0.06)


def test_a_video_without_sound_stays_without(tmp_path: Path) -> None:
    source = write_video(tmp_path / "mute.mp4", [numbered(0)], "libx264")
    with av.open(joined(tmp_path, source)) as container:
        assert not container.streams.audio
