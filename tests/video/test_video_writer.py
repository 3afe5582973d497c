"""Written videos: their frames, times and sound come back, and a browser would play them."""

import ctypes
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.made.small_videos import number_of, numbered
from tmanet_jax.video import writer
from tmanet_jax.video.read import open_video
from tmanet_jax.video.writer import PartWriter, join

TIME_BASE = Fraction(1, 1000)
M_PERTURB = -6
"""Of glibc's mallopt: what new memory is filled with, as the complement of a byte; 0: nothing."""


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_FRAMES", 4)


def write(
    folder: Path, times: list[int], size: tuple[int, int] = (96, 128), stop: int | None = None
) -> None:
    """Writes numbered frames, those that are not there yet; `stop`: is interrupted before one."""
    writer = PartWriter(folder, rate=Fraction(25), time_base=TIME_BASE)
    for number in range(writer.num_done, len(times)):
        if number == stop:
            return
        writer.write(numbered(number, size), times[number])
    writer.close()


def read(path: Path) -> tuple[list[int], list[float]]:
    """Numbers and times of the frames."""
    with open_video(path) as video:
        frames = list(video)
    assert [frame.problem for frame in frames] == [None] * len(frames)
    return (
        [number_of(frame.pixels_HxWx3) for frame in frames if frame.pixels_HxWx3 is not None],
        [frame.seconds for frame in frames if frame.seconds is not None],
    )


@pytest.mark.parametrize("count", [1, 4, 11])
def test_frames_and_their_times_come_back(tmp_path: Path, count: int) -> None:
    times = [0, 40, 80, 95, 400, 401, 440, 480, 2000, 2100, 2140][:count]
    write(tmp_path / "parts", times)
    join(tmp_path / "parts", tmp_path / "out.mp4")
    numbers, seconds = read(tmp_path / "out.mp4")
    assert numbers == list(range(count))
    np.testing.assert_allclose(seconds, np.array(times) / 1000, atol=1e-4)


def test_no_byte_depends_on_what_memory_held_before(tmp_path: Path) -> None:
    """It did on CPUs with AVX-512, in frames of 33 blocks a row."""
    mallopt = ctypes.CDLL(None).mallopt
    contents = []
    try:
        for complement in (255, 1):
            assert mallopt(M_PERTURB, complement)
            folder = tmp_path / str(complement)
            writer = PartWriter(folder, rate=Fraction(10), time_base=TIME_BASE)
            for number in range(4):
                small_HxWx3 = numbered(7 * number, (64, 48))
                writer.write(small_HxWx3.repeat(11, axis=0).repeat(11, axis=1), 100 * number)
            contents.append((folder / "000000.nut").read_bytes())
    finally:
        mallopt(M_PERTURB, 0)
    assert contents[0] == contents[1]


def test_a_browser_would_play_it(tmp_path: Path) -> None:
    write(tmp_path / "parts", [0, 40, 80, 120, 160])
    join(tmp_path / "parts", tmp_path / "out.mp4")
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(tmp_path / "out.mp4") as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert container.streams.video[0].average_rate == 25


def test_odd_sizes_become_even_by_a_repeated_edge(tmp_path: Path) -> None:
    write(tmp_path / "parts", [0, 40], size=(97, 131))
    join(tmp_path / "parts", tmp_path / "out.mp4")
    with open_video(tmp_path / "out.mp4") as video:
        assert video.size == (98, 132)
        frame = next(iter(video)).pixels_HxWx3
    assert frame is not None
    assert np.abs(frame[:97, :131].astype(int) - numbered(0, (97, 131))).mean() < 8
    assert np.abs(frame[97].astype(int) - frame[96]).mean() < 10


def test_colours_come_back(tmp_path: Path) -> None:
    colour = (200, 30, 60)
    writer = PartWriter(tmp_path / "parts", rate=Fraction(25), time_base=TIME_BASE)
    writer.write(np.full((64, 64, 3), colour, np.uint8), 0)
    writer.close()
    join(tmp_path / "parts", tmp_path / "out.mp4")
    with open_video(tmp_path / "out.mp4") as video:
        frame = next(iter(video)).pixels_HxWx3
    assert frame is not None
    np.testing.assert_allclose(frame.reshape(-1, 3).mean(0), colour, atol=3)


@pytest.mark.parametrize("stop", [3, 4, 9])
def test_an_interruption_leaves_no_trace(tmp_path: Path, stop: int) -> None:
    times = list(range(0, 440, 40))
    write(tmp_path / "once", times)
    join(tmp_path / "once", tmp_path / "once.mp4")
    write(tmp_path / "twice", times, stop=stop)
    assert (
        PartWriter(tmp_path / "twice", rate=Fraction(25), time_base=TIME_BASE).num_done
        == stop - stop % 4
    )
    write(tmp_path / "twice", times)
    join(tmp_path / "twice", tmp_path / "twice.mp4")
    assert (tmp_path / "twice.mp4").read_bytes() == (tmp_path / "once.mp4").read_bytes()


def test_going_on_begins_at_the_first_part_that_is_missing_or_cut(tmp_path: Path) -> None:
    times = list(range(0, 640, 40))
    write(tmp_path / "once", times)
    join(tmp_path / "once", tmp_path / "once.mp4")
    for name, damage in (
        ("missing", Path.unlink),
        ("empty", lambda path: path.write_bytes(b"")),
        ("cut", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    ):
        write(tmp_path / name, times)
        damage(tmp_path / name / "000001.nut")
        assert PartWriter(tmp_path / name, rate=Fraction(25), time_base=TIME_BASE).num_done == 4
        write(tmp_path / name, times, stop=9)
        assert len(writer.full_parts(tmp_path / name)) == 2
        write(tmp_path / name, times)
        join(tmp_path / name, tmp_path / f"{name}.mp4")
        assert (tmp_path / f"{name}.mp4").read_bytes() == (tmp_path / "once.mp4").read_bytes()


def test_the_aspect_of_pixels_is_written(tmp_path: Path) -> None:
    aspect = Fraction(4, 3)
    writer = PartWriter(
        tmp_path / "parts", rate=Fraction(25), time_base=TIME_BASE, pixel_aspect=aspect
    )
    for number in range(6):
        writer.write(numbered(number), 40 * number)
    writer.close()
    join(tmp_path / "parts", tmp_path / "out.mp4")
    with open_video(tmp_path / "out.mp4") as video:
        assert video.pixel_aspect == aspect
