"""A new data set is one short file: this one is prepared, verified, skipped over, trained on."""

import re

import cv2
import numpy as np
import pytest

from data_prep import command
from data_prep.data_set import DataSet, FoundSplit, LabelledVideo, Query, Unusable
from data_prep.labels import Classes, ClassLabels
from tests.made.small_camvid import write_png
from tests.made.small_videos import number_of, numbered
from tmanet_jax.data.augment import Augmentation
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.pipeline import train_batches
from tmanet_jax.data.records import open_clips

# The data set, from here: SOURCE/VIDEO-SPLIT/shot7.jpg, and masks/7.png of some of its frames

CLASSES = Classes(ClassSet.of("toy", {"ground": (90, 60, 30), "sky": (0, 0, 250)}))


class Toy(DataSet):
    """Videos in folders side by side, whose names say the split."""

    classes = CLASSES.class_set
    default_splits = ("train",)
    default_memory_range = 1

    def find(self, splits, options):
        return {
            split: FoundSplit([
                self._video(name) for name in self.tree.folders("") if name.endswith(f"-{split}")
            ])
            for split in splits
        }  # fmt: skip

    def _video(self, name):
        frames = _by_number(self.tree.files(name))
        masks = _by_number(self.tree.files(f"{name}/masks"))
        queries = [_query(f"{name}_{n}", n, frames.get(n), mask) for n, mask in masks.items()]
        return LabelledVideo(name, frames, queries)


def _by_number(files):
    return dict(sorted((int(re.sub(r"\D", "", name)), file) for name, file in files.items()))


def _query(clip_id, number, frame, mask):
    if frame is None:
        return Unusable(clip_id, f"{mask} has no frame: expected shot{number}.jpg.")
    return Query(clip_id, number, frame, ClassLabels(mask, CLASSES))


main = command.main_of(Toy, "tests.data_prep.test_data_set", __doc__)


# to here


SIZE = (96, 128)


def mask_of(number):
    return np.random.default_rng(number).integers(0, 2, SIZE, np.uint8)


@pytest.fixture
def source(tmp_path):
    for video in ("a-train", "b-train", "c-val"):
        for number in (2, 3, 5, 10):
            write_png(tmp_path / f"toy/{video}/shot{number}.png", numbered(number))
            path = tmp_path / f"toy/{video}/shot{number}.png"
            cv2.imwrite(str(path.with_suffix(".jpg")), numbered(number)[..., ::-1])
            path.unlink()
        for number in (3, 10):
            write_png(tmp_path / f"toy/{video}/masks/{number}.png", mask_of(number))
    return tmp_path / "toy"


def run(source, *options):
    return main([f"--source={source}", f"--out={source.parent / 'out'}", *options])


def test_a_new_data_set_is_prepared_verified_and_read_to_batches(source, capsys):
    assert run(source) == 0
    assert "4 clips, 8 frames (2 times one stands in" in capsys.readouterr().out
    assert run(source, "--verify") == 0
    assert "4 clips, 8 frames and their labels: no differences" in capsys.readouterr().out
    clips = open_clips(source.parent / "out", "train")
    assert clips.info.classes == Toy.classes
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
    (source / "a-train/shot3.jpg").unlink()
    assert run(source) == 2
    assert "masks/3.png has no frame: expected shot3.jpg." in capsys.readouterr().err
    assert run(source, "--on-error=skip") == 0
    assert "Skipped 1 clips of train:\n  a-train_3: " in capsys.readouterr().out


def test_missing_frames_have_names_of_their_own_and_options_their_defaults(source, capsys):
    assert run(source, "--splits=val", "--memory-range=2", "--missing=error") == 2
    assert "Clip c-val_3 has no frame 1 of c-val. Get the files" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(source, "--help")
    told = capsys.readouterr().out
    assert "separated by commas (train)" in told and "a clip can have (1)" in told
    assert told.startswith("usage: python -m tests.data_prep.test_data_set")
