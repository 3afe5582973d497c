"""`predict --serve`: a browser sees the newest overlay, and nobody waits for it."""

import contextlib
import http.client
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import cv2
import numpy as np
import pytest

from tests import in_process
from tests.browser import chromium, requests
from tests.made.small_predictions import SIZE, asked, frames_of
from tests.made.small_videos import numbered, write_video
from tests.made.tiny_weights import CLASSES, write_weights
from tmanet_jax.errors import UserError
from tmanet_jax.inference import serve
from tmanet_jax.inference.predict import predict
from tmanet_jax.inference.results import FrameResult
from tmanet_jax.inference.serve import served

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WITHIN_S = 60


def result(index: int, size: tuple[int, int] = SIZE) -> FrameResult:
    frame = np.full((*size, 3), 20 * index % 256, np.uint8)
    return FrameResult(index, index, 0.0, frame, np.zeros(size, np.uint8), None, CLASSES, None)


def asked_of(address: str, path: str, host: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address[len("http://") : -1], timeout=WITHIN_S)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    return connection.getresponse()


def pictures(answer: http.client.HTTPResponse) -> Iterator[np.ndarray]:
    """RGB, as they come."""
    assert answer.readline() == b"--frame\r\n"
    while line := answer.readline():
        assert line == b"Content-Type: image/jpeg\r\n"
        length = int(answer.readline().split()[1])
        assert answer.readline() == b"\r\n"
        content = np.frombuffer(answer.read(length), np.uint8)
        assert answer.readline() + answer.readline() == b"\r\n--frame\r\n"
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)
        assert picture is not None
        yield picture


def test_page_state_and_frames_are_served_to_this_machine_alone() -> None:
    with served(0) as (view, address):
        assert json.load(asked_of(address, "/state")) == {"frame": None, "rate": 0.0, "classes": []}
        page = asked_of(address, "/").read().decode()
        assert "/frames" in page and not re.search(r"https?://", page)
        for index in range(3):
            view.write(result(index))
        state = json.load(asked_of(address, "/state"))
        assert state["frame"] == 2 and state["rate"] > 0
        assert [one["name"] for one in state["classes"]] == list(CLASSES.names)
        assert [one["isShown"] for one in state["classes"]] == [
            i == 0 for i in range(len(CLASSES.names))
        ]
        shown = pictures(asked_of(address, "/frames"))
        for index in (2, 3):
            difference = np.abs(next(shown).astype(int) - result(index).overlay)
            assert difference.mean() < 4
            view.write(result(index + 1))
        assert asked_of(address, "/nothing").status == 404
        for host, status in (("localhost", 200), ("127.0.0.1:1", 200), ("elsewhere.org", 403)):
            assert asked_of(address, "/state", host).status == status
        port = int(address[:-1].rpartition(":")[2])
        with contextlib.closing(socket.socket()) as other, pytest.raises(OSError):
            other.connect(("127.0.0.2", port))
    with pytest.raises(OSError):
        asked_of(address, "/")


def test_a_slow_or_vanished_browser_stops_nobody_and_others_get_the_newest_frame() -> None:
    with served(0) as (view, address):
        view.write(result(0, (600, 800)))
        port = int(address[:-1].rpartition(":")[2])
        stuck, gone = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        for browser in (stuck, gone):
            browser.sendall(b"GET /frames HTTP/1.0\r\nHost: localhost\r\n\r\n")
            browser.recv(1)
        gone.close()
        start = time.monotonic()
        for index in range(1, 2000):
            view.write(result(index, (600, 800)))
        assert time.monotonic() - start < WITHIN_S / 4
        newest = next(pictures(asked_of(address, "/frames")))
        assert np.abs(newest.astype(int) - result(1999, (600, 800)).overlay).mean() < 4
        stuck.close()


def test_while_a_camera_stalls_the_newest_frame_comes_again_and_before_it_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "_PATIENCE_S", 0.1)
    with served(0) as (view, address):
        assert list(pictures(asked_of(address, "/frames"))) == []
        view.write(result(0))
        shown = pictures(asked_of(address, "/frames"))
        np.testing.assert_array_equal(next(shown), next(shown))


def test_an_error_of_the_server_is_told_and_a_vanished_browser_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (BrokenPipeError("gone"), ValueError("a fault")):
        answer = mock.Mock(side_effect=error)
        monkeypatch.setattr(serve.LiveView, "state", answer)
        with served(0) as (_, address), contextlib.suppress(OSError, http.client.HTTPException):
            asked_of(address, "/state")
        assert answer.called
    told = capsys.readouterr().err
    assert "a fault" in told and "gone" not in told


class Loop:
    """A camera that shows a video again and again until it is stopped."""

    def __init__(self, video: Path):
        frames = [frame[:, :, ::-1] for frame in frames_of(video)]
        self._frames = itertools.cycle(frames)
        self.is_stopped = threading.Event()

    def isOpened(self) -> bool:  # noqa: N802, OpenCV's name
        return True

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.02)
        return not self.is_stopped.is_set(), next(self._frames)

    def release(self) -> None:
        pass


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls a function with the address of a prediction, which goes on until that returns."""
    video = write_video(tmp_path / "a.mp4", (numbered(n, SIZE) for n in range(20)), "libx264")
    weights = write_weights(tmp_path / "tmanet.safetensors")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    camera = Loop(video)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)

    def watched(look: Callable[[str], Any], output: Path | str = "") -> Any:
        def looked() -> Any:
            try:
                return look(f"http://127.0.0.1:{port}/")
            finally:
                camera.is_stopped.set()

        with ThreadPoolExecutor(1) as other:
            seen = other.submit(looked)
            predict(asked(weights, "0", output, formats=["labels"], serve=port))
        return seen.result()

    return watched


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        time.sleep(0.1)
    raise AssertionError("it never came")


@pytest.mark.parametrize("has_output", [False, True])
def test_a_camera_is_shown_and_the_output_is_as_without(
    watch: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    has_output: bool,
) -> None:
    before = set(tmp_path.iterdir())

    def look(address: str) -> dict[str, Any]:
        def later() -> dict[str, Any] | None:
            state = json.load(asked_of(address, "/state"))
            return state if (state["frame"] or 0) > 5 else None

        return until(later)

    state = watch(look, tmp_path / "out" if has_output else "")
    told = capsys.readouterr().out
    assert "/ shows it in a browser of this machine." in told
    (num_frames,) = re.findall(r"(\d+) frames, 0 broken", told)
    assert state["rate"] > 0
    if has_output:
        assert len(list((tmp_path / "out" / "labels").iterdir())) == int(num_frames) > 5
    else:
        assert set(tmp_path.iterdir()) == before


def test_what_cannot_be_served_is_told_before_anything_is_done(tmp_path: Path) -> None:
    words = ["predict", "--config=configs/demo.py", "--input=a.mp4"]
    weights = write_weights(tmp_path / "tmanet.safetensors")
    words.append(f"--checkpoint={weights}")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        done = in_process.called([*words, f"--serve={port}", f"--output={tmp_path / 'out'}"])
    assert done.returncode == 2
    assert f"Port {port} of 127.0.0.1 is in use: choose another --serve" in done.stderr
    assert not (tmp_path / "out").exists()
    assert "'x' is no port" in in_process.called([*words, "--serve=x"]).stderr
    with pytest.raises(UserError, match="--serve shows one input, not 2"):
        predict(asked(weights, ["a.mp4", "b.mp4"], "", serve=0))


@pytest.mark.browser
def test_the_page_in_a_browser(watch: Callable[..., Any]) -> None:
    def look(address: str) -> None:
        with chromium("--disable-gpu", "--window-size=420,800") as page:
            until(lambda: asked_of(address, "/"))
            page.get(address)
            until(lambda: re.fullmatch(r"frame \d+, \d+\.\d frames/s", text(page, "state")))
            assert text(page, "legend").split("\n") == list(CLASSES.names)
            until(lambda: script(page, "document.getElementById('view').naturalWidth") == SIZE[1])
            view = page.find_element("id", "view")
            first = view.screenshot_as_png
            until(lambda: view.screenshot_as_png != first)
            assert script(page, "document.documentElement.scrollWidth <= innerWidth")
            grounds = {scheme: ground(page, scheme) for scheme in ("light", "dark")}
            assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 21, 21)"}
            assert page.get_log("browser") == []
            assert all(url.startswith((address, "data:")) for url in requests(page))
            script(page, "document.dispatchEvent(new Event('visibilitychange'))")
            until(lambda: f"{address}frames" in requests(page))  # it connects again
            first = view.screenshot_as_png
            until(lambda: view.screenshot_as_png != first)

    watch(look)


def text(page: "Chrome", name: str) -> str:
    return page.find_element("id", name).text


def script(page: "Chrome", expression: str) -> Any:
    return page.execute_script(f"return {expression}")


def ground(page: "Chrome", scheme: str) -> str:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return script(page, "getComputedStyle(document.body).backgroundColor")
