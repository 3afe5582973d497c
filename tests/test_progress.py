"""How far a long loop is, on a terminal and elsewhere."""

import io
from unittest import mock

import numpy as np
import pytest

from tmanet_jax.export import quantise
from tmanet_jax.progress import ProgressBar, with_progress


class Seconds:
    """A clock that goes on when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_tells_every_half_minute_how_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Seconds()
    with ProgressBar("predict", "frame", 600, now=clock) as bar:
        bar.skip(100)  # of an earlier start
        clock.now += 300  # the first one compiles
        for _ in range(250):
            bar.update()
            clock.now += 0.25
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "predict: frame 221 of 600, 4 frames/s, 01:34 left",
        "predict: frame 341 of 600, 4 frames/s, 01:04 left",
    ]


def test_what_has_no_known_end_tells_its_speed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Seconds()
    with ProgressBar("Reading videos", "frame", now=clock) as bar:
        for _ in range(3):
            bar.update(10)
            clock.now += 20
    assert capsys.readouterr().err == "Reading videos: frame 30, 0.5 frames/s\n"


def test_a_terminal_gets_a_bar_and_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("tmanet_jax.progress._LINE_EVERY_S", 0.0)
    assert list(with_progress(iter("abc"), "evaluate", "clip", 3)) == ["a", "b", "c"]
    assert "3/3" in screen.getvalue() and "of 3" not in screen.getvalue()


def test_another_process_than_the_first_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tmanet_jax.progress._LINE_EVERY_S", 0.0)
    assert list(with_progress("abc", "evaluate", "clip", 3, is_shown=False)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    assert list(with_progress("abc", "evaluate", "clip", 3)) == ["a", "b", "c"]
    assert "evaluate: clip 3 of 3, " in capsys.readouterr().err


def test_what_calibrates_an_export_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tmanet_jax.progress._LINE_EVERY_S", 0.0)
    network = mock.Mock(about={"frames": [1, 4, 6, 3]})
    frames = quantise._Inputs(network, [np.zeros((3, 4, 6, 3), np.uint8)])
    assert len(list(frames)) == 3 and network.call_count == 3
    assert "calibrate: frame 3 of 3, " in capsys.readouterr().err
