"""Contact sheets of records: both kinds of file, and what they refuse."""

import json
import re

import cv2
import numpy as np
import pytest

from data_prep import browse
from data_prep.records.writer import write_records
from tests.made.small_clips import NoiseClip, damage, plan_of, write_noise
from tmanet_jax.data.classes import CITYSCAPES


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("records"), 4).data_dir


def run(records, out, *options):
    return browse.main([f"--records={records}", f"--out={out}", *options])


def test_the_png_shows_each_clip_as_recorded_and_as_trained(records, tmp_path):
    out = tmp_path / "new" / "clips.png"
    assert run(records, out, "--clips=2") == 0
    sheet = np.asarray(cv2.imread(str(out)))
    panel = round(100 / 70 * 192)  # the width of a frame at the height of a panel
    assert sheet.shape[1] == 5 * panel + 4 * 4  # three memory frames, query, labels, gaps
    assert sheet.shape[0] > 2 * 2 * 192
    assert list(out.parent.iterdir()) == [out]


def test_a_seed_is_a_sheet(records, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(records, tmp_path / f"{name}.png", "--clips=1", f"--seed={seed}")
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_the_html_is_one_file_with_all_clips(records, tmp_path):
    out = tmp_path / "clips.html"
    assert run(records, out, "--clips=9", "--crop=32x40", "--memory=1") == 0
    page = out.read_text()
    for number in range(4):
        assert f"<h2>{NoiseClip(number).id}</h2>" in page
    assert "crop of 32x40" in page
    assert all(name in page for name in CITYSCAPES.names)
    sources = re.findall(r'(?:src|href|url)[=(]"?([^">]{0,30})', page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def workdir_of(records, tmp_path, **fields):
    config = {
        "model.num_memory": 1,
        "data.memory_range": None,
        "data.crop_size": [24, 40],
        "data.ratio_range": [1.0, 1.0],
        "data.cat_max_ratio": 0.75,
        "data.flip_probability": 0.0,
        "data.photometric": "off",
        **fields,
    }
    said = {"config": config, "data_dir": str(records), "command": "run.py"}
    (tmp_path / "config.json").write_text(json.dumps(said))
    return tmp_path


def test_clips_are_shown_as_a_run_trains_on_them(records, tmp_path):
    workdir = workdir_of(records, tmp_path)
    out = tmp_path / "clips.html"
    assert browse.main([f"--workdir={workdir}", f"--out={out}", "--clips=4"]) == 0
    page = out.read_text()
    assert page.count("crop of 24x40") == page.count("resized to 70x100") == 4
    assert "mirrored" not in page
    assert browse.main([f"--workdir={workdir}", f"--out={out}", "--crop=16x16"]) == 0
    assert "crop of 16x16" in out.read_text()


@pytest.mark.parametrize(
    "fields", [{"data.crop_size": "24"}, {"data.photometric": 3}, {"data.ratio_range": [1.0]}]
)
def test_a_workdir_that_says_something_else_is_told(records, tmp_path, capsys, fields):
    workdir = workdir_of(records, tmp_path, **fields)
    assert browse.main([f"--workdir={workdir}", f"--out={tmp_path / 'clips.png'}"]) == 2
    assert "config.json: " in capsys.readouterr().err
    (workdir / "config.json").write_text("[]")
    assert browse.main([f"--workdir={workdir}", f"--out={tmp_path / 'clips.png'}"]) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_ids_and_groups_are_text_not_html(tmp_path):
    clips = [NoiseClip(0, group="<b>wet & dark</b>")]
    write_records(tmp_path, CITYSCAPES, 3, {"train": plan_of(clips)})
    run(tmp_path, tmp_path / "clips.html")
    assert "&lt;b&gt;wet &amp; dark&lt;/b&gt;" in (tmp_path / "clips.html").read_text()


def test_clips_without_labels_are_shown(tmp_path):
    write_records(tmp_path, CITYSCAPES, 3, {"test": plan_of([NoiseClip(0)], labelled=False)})
    assert run(tmp_path, tmp_path / "clips.png", "--split=test") == 0
    assert np.any(np.asarray(cv2.imread(str(tmp_path / "clips.png"))) < 255)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_frames_of_one_pixel_are_shown(tmp_path, size, monkeypatch):
    monkeypatch.setattr(browse, "_PANEL_HEIGHT", 8)  # 300 columns are not a picture of 57,600
    plans = {"train": plan_of([NoiseClip(0, size=size)])}
    write_records(tmp_path, CITYSCAPES, 3, plans)
    for seed in range(4):  # other ratios
        assert run(tmp_path, tmp_path / "clips.png", f"--seed={seed}") == 0


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("clips.jpg", (), "neither .png nor .html"),
        ("clips.png", ("--clips=0",), "1 or more"),
        ("clips.png", ("--split=val",), "no split 'val'"),
        ("clips.png", ("--seed=-1",), "0 or more"),
        ("clips.png", ("--memory=4",), "4 memory frames cannot be drawn"),
        ("taken/clips.png", (), "cannot be written"),
    ],
)
def test_bad_input_is_told(records, tmp_path, capsys, out, options, message):
    (tmp_path / "taken").write_text("a file")
    assert run(records, tmp_path / out, *options) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_damage_is_named(tmp_path, capsys):
    path = damage(write_noise(tmp_path, 7))
    assert run(tmp_path, tmp_path / "clips.png", "--clips=7") == 2
    assert f" of {path}) cannot" in capsys.readouterr().err
