"""The picture of curves."""

import importlib.util

import cv2
import pytest

from benchmarks import curves
from benchmarks.__main__ import main
from benchmarks.curves import Point
from tmanet_jax.errors import UserError

KNOWN = [Point(t, side, 0.1 * side, 10.0, side**2) for t in (1, 2) for side in (64, 128)]


def test_the_picture_holds_time_and_where_it_is_known_memory(tmp_path):
    curves.draw(KNOWN, tmp_path / "both.png")
    unknown = [point._replace(megabytes=float("nan")) for point in KNOWN]
    curves.draw(unknown, tmp_path / "seconds.png")
    both, seconds = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("both", "seconds"))
    assert both is not None
    assert seconds is not None
    assert both.shape[1] == 2 * seconds.shape[1]
    with pytest.raises(UserError, match="cannot be written"):
        curves.draw(KNOWN, tmp_path / "both.png" / "nowhere.png")


def test_without_matplotlib_it_says_what_to_install_before_anything_is_measured(
    monkeypatch, capsys
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["curves"]) == 2
    assert "pip install -r requirements-dev.txt" in capsys.readouterr().err
