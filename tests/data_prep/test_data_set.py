"""A data set of one's own, docs/extend.md's, is prepared, verified, skipped over, trained on."""

import re
from typing import Any

import cv2
import numpy as np
import pytest

from tests import processes
from tests.made.picture_files import write_png
from tests.made.small_videos import number_of, numbered
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.data.records import open_clips

PAGE = (processes.PROJECT / "docs" / "extend.md").read_text()
THERE: dict[str, Any] = {"__name__": "my_set"}
exec(re.findall(r"```python title=my_set.py\n(.*?)```", PAGE, flags=re.DOTALL)[0], THERE)


SIZE = (96, 128)


def mask_of(number):
    return np.random.default_rng(number).integers(0, 2, SIZE, np.uint8)


@pytest.fixture
def source(tmp_path):
    for video in ("a-train", "b-train", "c-val"):
        for number in (2, 3, 5, 10):
            (tmp_path / "mine" / video).mkdir(parents=True, exist_ok=True)
            path = tmp_path / f"mine/{video}/{number}.jpg"
            cv2.imwrite(str(path), numbered(number)[..., ::-1])
        for number in (3, 10):
            write_png(tmp_path / f"mine/{video}/{number}.png", mask_of(number))
    return tmp_path / "mine"


def run(source, *options):
    words = ["--splits=train", "--memory-range=1", *options]
    return THERE["main"]([f"--source={source}", f"--out={source.parent / 'out'}", *words])


def test_a_new_data_set_is_prepared_verified_and_read_to_batches(source, capsys):
    assert run(source) == 0
    assert "4 clips, 8 frames (2 times one stands in" in capsys.readouterr().out
    assert run(source, "--verify") == 0
    assert "4 clips, 8 frames and their labels: no differences" in capsys.readouterr().out
    clips = open_clips(source.parent / "out", "train")
    assert clips.info.classes == THERE["MySet"].classes
    assert clips.ids == ("a-train_3", "a-train_10", "b-train_3", "b-train_10")
    shown = [[number_of(f) for f in clips.read(i, (1,)).frames_SxHxWx3] for i in range(2)]
    assert shown == [[2, 3], [5, 10]]
    np.testing.assert_array_equal(clips.read(1, ()).labels_HxW, mask_of(10))
    augmentation = Augmentation((32, 48))
    with train_batches(
        clips, augmentation, num_memory=1, memory_range=1, batch_size=2, seed=0
    ) as batches:
        batch = next(batches)
    assert batch.frames.shape == (2, 2, 32, 48, 3)
    assert set(np.unique(batch.labels)) <= {0, 1, 255}


def test_what_is_wrong_with_one_clip_ends_the_preparation_or_is_skipped(source, capsys):
    (source / "a-train/3.jpg").unlink()
    assert run(source) == 2
    assert "3.png has no frame: expected 3.jpg." in capsys.readouterr().err
    assert run(source, "--on-error=skip") == 0
    assert "Skipped 1 clips of train:\n  a-train_3: " in capsys.readouterr().out


def test_missing_frames_have_names_of_their_own_and_options_their_defaults(source, capsys):
    assert run(source, "--splits=val", "--memory-range=2", "--missing=error") == 2
    assert "Clip c-val_3 has no frame 1 of c-val. Get the files" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(source, "--help")
    told = capsys.readouterr().out
    assert "separated by commas (train,val)" in told and "a clip can have (2)" in told
    assert told.startswith("usage: python -m my_set")
