"""Sources of frames beside files and folders: pictures, pipes, addresses; and what is none."""

import http.server
import itertools
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.made.small_videos import SIZE, number_of, numbered, write_video
from tmanet_jax.errors import UserError
from tmanet_jax.video.frames import FrameSource, open_frames


def read(source: FrameSource) -> list[int | str]:
    """The number of each frame, or its problem."""
    with open_frames(source) as frames:
        return [
            frame.problem or "" if frame.pixels_HxWx3 is None else number_of(frame.pixels_HxWx3)
            for frame in frames.frames
        ]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where a folder is served."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_is_a_stream(tmp_path: Path, address: str) -> None:
    write_video(tmp_path / "a.mkv", map(numbered, range(5)), "libx264")
    assert read(f"{address}/a.mkv") == list(range(5))
    with pytest.raises(UserError, match=rf"^{address}/b\.mkv cannot be opened as a video"):
        read(f"{address}/b.mkv")


def test_a_pipe_is_a_stream(tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mkv", map(numbered, range(5)), "libx264").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[content])
    writer.start()
    assert read(tmp_path / "pipe") == list(range(5))
    writer.join()


@pytest.mark.parametrize("name", ["street.png", "street.JPG", "street.webp", "a[1].tif"])
def test_a_single_picture_keeps_its_name(tmp_path: Path, name: str) -> None:
    _, content = cv2.imencode(Path(name).suffix.lower(), numbered(7)[:, :, ::-1])
    (tmp_path / name).write_bytes(content.tobytes())
    with open_frames(tmp_path / name) as frames:
        assert frames.names == (Path(name).stem,)
        assert frames.expected == 1
    assert read(tmp_path / name) == [7]


def test_what_is_no_file_among_pictures_is_a_broken_frame(tmp_path: Path) -> None:
    for number in (0, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    os.mkfifo(tmp_path / "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "2.png")
    (tmp_path / "4.png").mkdir()
    found = read(tmp_path)
    assert found[0] == 0 and found[3:] == [3]
    assert all("is no file" in str(problem) for problem in found[1:3])


def test_pixel_aspect_and_hdr_are_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(
        tmp_path / "a.mkv",
        [numbered(0)],
        "libx264",
        pixel_aspect=Fraction(4, 3),
        colour_transfer=16,
    )
    with open_frames(path) as frames:
        assert frames.pixel_aspect == Fraction(4, 3)
    assert "is HDR (PQ): its colours are not tone-mapped" in caplog.text


@pytest.mark.parametrize(
    "source",
    [None, 3.5, [np.zeros((0, *SIZE), np.uint8)], [np.zeros((0, 4, 3), np.uint8)], "x" * 300],
)
def test_what_is_no_source_is_told(source: FrameSource) -> None:
    with pytest.raises(UserError, match=r"source of frames|A frame is an array|nothing to segment"):
        read(source)


def test_times_rise_whatever_the_file_says(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", map(numbered, range(4)), "libx264", rate=30)
    with open_frames(path) as source:
        times = [frame.pts for frame in source.frames]
    assert times[0] == 0
    assert all(a is not None and b is not None and a < b for a, b in itertools.pairwise(times))
