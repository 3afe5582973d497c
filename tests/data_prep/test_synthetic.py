"""The rendered street: layout, exactness, determinism, restarts, bad options."""

import json
import os
import pathlib
import shutil
import signal
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep import synthetic
from data_prep.street.render import SnippetFrames
from tests import processes
from tmanet_jax.data.classes import CITYSCAPES_TRAIN_ID_OF_LABEL_ID
from tmanet_jax.errors import UserError

SIZE = (64, 128)
LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "pole": 17,
    "traffic sign": 20,
    "vegetation": 21,
    "sky": 23,
    "person": 24,
    "car": 26,
}


def render(out: pathlib.Path, **options) -> None:
    defaults: dict[str, Any] = {
        "size": SIZE,
        "before": 1,
        "after": 0,
        "workers": 1,
        "progress": False,
    }
    synthetic.render_dataset(out, **(defaults | options))


def read(picture: pathlib.Path) -> np.ndarray:
    pixels = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, picture
    return pixels


def contents(out: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def pngs(out: pathlib.Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(out).items() if name.endswith(".png")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("street")
    render(out, train=2, val=2)
    return out


def test_layout_and_names_are_those_of_cityscapes(dataset):
    expected = {"groups.json", "synthetic.json"}
    for split, city in (("train", "renderstadt"), ("val", "rasterburg")):
        for index in range(2):
            stem = f"{split}/{city}/{city}_{index:06d}"
            expected |= {
                f"leftImg8bit/{stem}_000019_leftImg8bit.png",
                f"leftImg8bit_sequence/{stem}_000018_leftImg8bit.png",
                f"leftImg8bit_sequence/{stem}_000019_leftImg8bit.png",
                f"gtFine/{stem}_000019_gtFine_labelIds.png",
                f"gtFine/{stem}_000019_gtFine_labelTrainIds.png",
            }
    assert set(contents(dataset)) == expected


def test_images_and_labels_have_the_size_asked_for(dataset):
    for path in dataset.rglob("*.png"):
        pixels = read(path)
        is_image = path.name.endswith("leftImg8bit.png")
        assert pixels.dtype == np.uint8
        assert pixels.shape == ((*SIZE, 3) if is_image else SIZE)


def test_train_ids_are_those_of_the_label_ids(dataset):
    paths = list(dataset.rglob("*_labelIds.png"))
    assert paths
    for path in paths:
        label_ids = read(path)
        other = path.with_name(path.name.replace("labelIds", "labelTrainIds"))
        train_ids = read(other)
        np.testing.assert_array_equal(train_ids, CITYSCAPES_TRAIN_ID_OF_LABEL_ID[label_ids])
        assert set(np.unique(train_ids)) <= {*range(19), 255}


def test_annotated_frame_is_the_same_in_both_folders(dataset):
    for path in (dataset / "leftImg8bit").rglob("*.png"):
        in_sequence = dataset / "leftImg8bit_sequence" / path.relative_to(dataset / "leftImg8bit")
        assert path.read_bytes() == in_sequence.read_bytes()


def test_default_snippet_has_thirty_frames(tmp_path):
    render(tmp_path, test=1, before=19, after=10)
    names = sorted(path.name for path in (tmp_path / "leftImg8bit_sequence").rglob("*.png"))
    assert names == [f"pixelheim_000000_{frame:06d}_leftImg8bit.png" for frame in range(30)]


def test_files_depend_on_neither_workers_nor_counts_nor_the_frames_chosen(dataset, tmp_path):
    render(tmp_path, train=3, val=2, before=2, after=1, workers=2)
    more = pngs(tmp_path)
    assert pngs(dataset).items() < more.items()


def test_another_seed_is_another_street():
    first, second = (SnippetFrames("train", 0, SIZE, seed, False).draw(0) for seed in (0, 1))
    assert (first.labels_HxW != second.labels_HxW).mean() > 0.1


def test_at_night_the_same_street_is_dark() -> None:
    day, night = (
        SnippetFrames("train", 0, SIZE, 0, False, night=dark).draw(0) for dark in (False, True)
    )
    np.testing.assert_array_equal(night.labels_HxW, day.labels_HxW)
    assert 20 < night.image_HxWx3.mean() < 0.5 * day.image_HxWx3.mean()


def test_frames_can_be_drawn_in_any_order():
    forth, back = (SnippetFrames("val", 3, SIZE, 0, False) for _ in range(2))
    drawn = {frame: forth.draw(frame) for frame in (17, 18, 19)}
    for frame in (19, 17, 18):
        again = back.draw(frame)
        np.testing.assert_array_equal(again.image_HxWx3, drawn[frame].image_HxWx3)
        np.testing.assert_array_equal(again.labels_HxW, drawn[frame].labels_HxW)


def test_only_the_annotated_frame_is_degraded_and_its_labels_stay():
    for index in range(4):
        clean = SnippetFrames("val", index, SIZE, 0, False)
        degraded = SnippetFrames("val", index, SIZE, 0, True)
        for frame in (18, 20):
            np.testing.assert_array_equal(
                clean.draw(frame).image_HxWx3, degraded.draw(frame).image_HxWx3
            )
        before, after = clean.draw(19), degraded.draw(19)
        np.testing.assert_array_equal(before.labels_HxW, after.labels_HxW)
        change = cv2.absdiff(before.image_HxWx3, after.image_HxWx3)
        assert (change.max(axis=2) > 30).mean() > 0.2


def test_share_of_degraded_frames_is_kept_and_listed(tmp_path):
    render(tmp_path, train=10, val=4, before=0, degraded_train=0.3, degraded_val=0.5)
    groups = json.loads((tmp_path / "groups.json").read_text())
    assert set(groups) == {"clean", "degraded"}
    named = {group: sum("renderstadt" in stem for stem in groups[group]) for group in groups}
    assert named == {"clean": 7, "degraded": 3}
    assert len(groups["clean"]) == 9 and len(groups["degraded"]) == 5
    stems = {path.name[: -len("_leftImg8bit.png")] for path in tmp_path.rglob("*Img8bit.png")}
    assert {*groups["clean"], *groups["degraded"]} == stems


def test_label_all_labels_every_frame(tmp_path):
    render(tmp_path, test=1, before=2, label_all=True)
    folder = tmp_path / "gtFine_sequence/test/pixelheim"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"pixelheim_000000_{frame:06d}_gtFine_{kind}.png"
        for frame in (17, 18, 19)
        for kind in ("labelIds", "labelTrainIds")
    ]
    annotated = "pixelheim_000000_000019_gtFine_labelIds.png"
    in_gt_fine = tmp_path / "gtFine/test/pixelheim" / annotated
    assert (folder / annotated).read_bytes() == in_gt_fine.read_bytes()


def test_every_class_shows_in_most_snippets_at_a_size_to_be_seen():
    shares = []
    for index in range(20):
        labels = SnippetFrames("train", index, (128, 256), 0, False).draw(19).labels_HxW
        shares.append(np.bincount(labels.ravel(), minlength=34) / labels.size)
    for name, label_id in LABEL_IDS.items():
        share = np.array(shares)[:, label_id]
        assert (share > 0.002).mean() >= 0.7, name
        assert share.mean() > 0.01, name
    known = {*LABEL_IDS.values(), 1}
    assert not np.array(shares)[:, [i for i in range(34) if i not in known]].any()


def test_the_same_street_at_twice_the_size_has_the_same_labels():
    small = SnippetFrames("train", 5, (128, 256), 0, False).draw(19).labels_HxW
    large = SnippetFrames("train", 5, (256, 512), 0, False).draw(19).labels_HxW
    # The pictures of walls and trees are drawn anew at each size; road and cars are geometry.
    for name in ("road", "car"):
        first, second = small == LABEL_IDS[name], large[::2, ::2] == LABEL_IDS[name]
        assert (first & second).sum() / (first | second).sum() > 0.9, name


def test_textures_stay_on_the_street_while_the_camera_moves():
    """Between frames the picture moves by a few pixels, and the labels with it."""
    frames = SnippetFrames("train", 1, (128, 256), 0, False)
    labels = [frames.draw(frame).labels_HxW for frame in (15, 18, 19)]
    next_change, far_change = (labels[1] != labels[2]).mean(), (labels[0] != labels[2]).mean()
    assert 0 < next_change < far_change < 0.35


def test_second_run_renders_only_what_is_missing(tmp_path):
    render(tmp_path, train=2)
    before = contents(tmp_path)
    folder = tmp_path / "leftImg8bit_sequence/train/renderstadt"
    lost = folder / "renderstadt_000001_000018_leftImg8bit.png"
    kept = folder / "renderstadt_000000_000018_leftImg8bit.png"
    lost.unlink()
    empty = tmp_path / "gtFine/train/renderstadt/renderstadt_000000_000019_gtFine_labelIds.png"
    empty.write_bytes(b"")
    lost.with_name(f".{lost.name}.unfinished").write_bytes(b"\x89PNG half of a fil")
    age = kept.stat().st_mtime_ns
    render(tmp_path, train=2)
    assert contents(tmp_path) == before
    assert kept.stat().st_mtime_ns == age


@pytest.mark.drills
def test_a_killed_run_leaves_whole_files_and_can_be_finished(tmp_path):
    command = [sys.executable, "-m", "data_prep.synthetic", f"--out={tmp_path}"]
    command += ["--size=64x128", "--before=3", "--after=0", "--train=60", "--workers=2"]
    last = "gtFine/train/renderstadt/.renderstadt_000059_000019_gtFine_labelIds.png.unfinished"
    (tmp_path / last).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / last)  # there it waits for a reader, however late it is killed
    with processes.started(command) as run:
        processes.wait_until(lambda: len(list(tmp_path.rglob("[!.]*.png"))) >= 20, run)
    (tmp_path / last).unlink()
    cut_short = list(tmp_path.rglob("[!.]*.png"))
    assert len(cut_short) >= 20
    assert not (tmp_path / "groups.json").exists()
    assert all(cv2.imread(str(path)) is not None for path in cut_short)
    render(tmp_path, train=60, before=3)
    assert len(list(tmp_path.rglob("[!.]*.png"))) == 60 * (4 + 1 + 2)
    assert len(json.loads((tmp_path / "groups.json").read_text())["clean"]) == 42


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_ends_with_what_it_is_at(tmp_path, end):
    command = [sys.executable, "-m", "data_prep.synthetic", f"--out={tmp_path}"]
    command += ["--size=64x128", "--before=0", "--after=0", "--train=5000", "--workers=2"]
    with processes.started(command) as run:
        processes.wait_until(lambda: any(tmp_path.rglob("[!.]*.png")), run)
        run.send_signal(end)
        _, told = run.communicate(timeout=processes.SECONDS)
    assert run.returncode == 128 + end
    assert told.startswith("Rendering 5000 snippets of 64x128 pixels.\n")
    assert told.endswith("Stopped. The same command goes on from here.\n")
    assert "Traceback" not in told
    assert len(list(tmp_path.rglob("[!.]*labelIds.png"))) < 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 2, "seed": 7}, "rendered with"),
        ({"train": 1}, "2 snippets of train, and 1 are asked for"),
        ({"train": 2, "val": 1}, "2 snippets of val, and 1 are asked for"),
    ],
)
def test_another_street_in_the_folder_is_refused_and_replaced_where_that_is_asked_for(
    dataset, tmp_path, options, message
):
    shutil.copytree(dataset, tmp_path / "street")
    with pytest.raises(UserError, match=message):
        render(tmp_path / "street", **options)
    assert contents(tmp_path / "street") == contents(dataset)
    render(tmp_path / "street", **options, replace=True)
    render(tmp_path / "new", **options)
    assert contents(tmp_path / "street") == contents(tmp_path / "new")


def test_a_data_set_that_was_not_rendered_is_never_mixed_in_or_replaced(tmp_path):
    frame = tmp_path / "leftImg8bit" / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    frame.parent.mkdir(parents=True)
    frame.write_bytes(b"real")
    with pytest.raises(UserError, match=r"aachen_000000_000019.* was not rendered"):
        render(tmp_path, train=1, replace=True)
    assert contents(tmp_path) == {str(frame.relative_to(tmp_path)): b"real"}


def test_more_snippets_and_other_splits_are_added_to_a_street(tmp_path):
    for counts in ({"val": 1}, {"train": 1}, {"train": 2}):
        render(tmp_path / "street", **counts)
    render(tmp_path / "new", train=2, val=1)
    assert contents(tmp_path / "street") == contents(tmp_path / "new")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (32, 64)}, "size 32x64"),
        ({"train": -1}, "train=-1"),
        ({"train": 0}, "nothing to render"),
        ({"degraded_train": 1.5}, "1.5"),
        ({"before": 20}, "before=20"),
        ({"after": 11}, "after=11"),
        ({"workers": 0}, "workers=0"),
        ({"workers": 10**9}, "workers=1000000000"),
        ({"size": (64, 10**6)}, "size 64x1000000"),
        ({"train": 10**12}, "train=1000000000000"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(tmp_path, options, message):
    out = tmp_path / "new"
    with pytest.raises(UserError, match=message):
        render(out, **({"train": 1} | options))
    assert not out.exists()


def test_command_line_says_what_is_wrong_and_exits_2(tmp_path, capsys):
    assert synthetic.main([f"--out={tmp_path}", "--size=16x16", "--train=1"]) == 2
    assert "size 16x16 is too small" in capsys.readouterr().err
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert synthetic.main([f"--out={occupied}", "--train=1"]) == 2
    assert str(occupied) in capsys.readouterr().err
    for bad in (["--out=x", "--size=big"], []):
        with pytest.raises(SystemExit) as stop:
            synthetic.main(bad)
        assert stop.value.code == 2
