"""Labels that lie one frame off are noticed, by their numbers or by what they show."""

import numpy as np
import pytest

from data_prep.clips import find_clips
from data_prep.data_set import Options
from data_prep.folder import Folder, read_classes
from data_prep.source import SourceTree
from tests.made.picture_files import write_png
from tmanet_jax.errors import UserError

SIZE = (40, 120)
FRAMES = range(1, 31)


def square_at(number):
    """Labels of a square that moves by three pixels a frame."""
    labels_HxW = np.zeros(SIZE, np.uint8)
    labels_HxW[10:30, 3 * number : 3 * number + 20] = 1
    return labels_HxW


def frame_of(number):
    noise = np.random.default_rng(number).integers(0, 40, (*SIZE, 3), np.uint8)
    return noise + 100 * square_at(number)[..., None]


def notes(tmp_path, numbers, shown_by, frames=frame_of, labels=square_at, **options):
    """Of frames 1 to 30, and labels of some numbers that show other ones."""
    (tmp_path / "classes.csv").write_text("name,red,green,blue\nroad,9,9,9\ncar,200,0,0\n")
    for number in FRAMES:
        write_png(tmp_path / f"frames/train/drive/{number:06d}.png", frames(number))
    for number in numbers:
        write_png(tmp_path / f"labels/train/drive/{number:06d}.png", labels(number + shown_by))
    tree = SourceTree(tmp_path)
    mine = Folder(tree, read_classes(tree, "mine"), tmp_path)
    return find_clips(mine, ["train"], Options(**options))["train"].notes


def test_numbers_are_told_and_right_ones_raise_no_doubt(tmp_path):
    found = notes(tmp_path, range(5, 30, 5), 0)
    assert found == ["Numbers in train: train/drive (frames 1..30, labels 5..25)"]


@pytest.mark.parametrize(("shift", "place"), [(1, "after"), (-1, "before")])
def test_labels_that_show_another_frame_are_noticed(tmp_path, shift, place):
    _, warning = notes(tmp_path, range(5, 30, 4), shift)
    assert warning.startswith(f"Warning: 7 of 7 sampled labels of train fit the frame {place} the")
    assert "-start_number 0" in warning


@pytest.mark.parametrize("still", ["frames", "labels"])
def test_what_does_not_move_raises_no_doubt(tmp_path, still):
    fixed = {"frames": lambda number: frame_of(9), "labels": lambda number: square_at(9)}
    assert len(notes(tmp_path, range(5, 30, 4), 0, **{still: fixed[still]})) == 1


def test_labels_that_count_from_0_are_told_from_frames_that_count_from_1(tmp_path):
    with pytest.raises(UserError, match=r"000000\.png have no frame: .* 1\.\.30, labels 0\.\.29"):
        notes(tmp_path, range(30), 0)
    _, warning = notes(tmp_path, range(30), 0, on_error="skip")
    assert "each has the frame after the one of its number" in warning
