"""Class sets, label ids, colours and palette PNGs."""

import cv2
import numpy as np
import pytest

from tmanet_jax.data import classes
from tmanet_jax.data.classes import CAMVID, CITYSCAPES
from tmanet_jax.errors import UserError


@pytest.mark.parametrize("class_set", [CITYSCAPES, CAMVID])
def test_every_class_has_a_name_and_a_colour_of_its_own(class_set):
    assert len(set(class_set.names)) == len(set(class_set.palette_Cx3)) == class_set.num_classes
    assert classes.class_set(class_set.name) is class_set


def test_an_unknown_class_set_is_refused():
    with pytest.raises(UserError, match="'kitti'"):
        classes.class_set("kitti")


def test_train_ids_survive_the_way_to_label_ids_and_back():
    train_ids = np.append(np.arange(19), 255).astype(np.uint8)[None]
    label_ids = classes.train_ids_to_label_ids(train_ids)
    np.testing.assert_array_equal(classes.label_ids_to_train_ids(label_ids), train_ids)
    assert label_ids[0, -1] == 0  # 'unlabeled'


def test_label_ids_without_a_class_are_ignored():
    label_ids = np.arange(34, dtype=np.uint8)[None]
    train_ids = classes.label_ids_to_train_ids(label_ids)
    assert np.count_nonzero(train_ids != 255) == 19
    assert train_ids[0, 7] == 0
    assert train_ids[0, 33] == 18


@pytest.mark.parametrize("value", [34, 200, 255])
def test_a_label_id_out_of_range_is_named(value):
    label_ids = np.full((4, 5), 7, np.uint8)
    label_ids[2, 3] = value
    with pytest.raises(UserError, match=rf"{value} in a\.png at row 2, column 3"):
        classes.label_ids_to_train_ids(label_ids, "a.png")


@pytest.mark.parametrize("value", [19, 254])
def test_a_train_id_out_of_range_is_named(value):
    labels = np.full((4, 5), value, np.uint8)
    with pytest.raises(UserError, match=rf"{value} in a\.png"):
        CITYSCAPES.check(labels, "a.png")
    with pytest.raises(UserError, match=rf"{value} in the labels"):
        classes.train_ids_to_label_ids(labels)


def test_the_32_colours_of_camvid_become_its_12_classes():
    colours = np.array([list(classes.CAMVID_CLASS_OF_COLOUR)], np.uint8)
    train_ids = classes.colours_to_train_ids(colours)
    names = [CAMVID.names[train_id] for train_id in train_ids[0]]
    assert names == list(classes.CAMVID_CLASS_OF_COLOUR.values())
    assert len(names) == 32
    assert set(names) == set(CAMVID.names)


def test_the_first_colour_of_a_class_is_the_one_it_is_painted_in():
    train_ids = np.arange(12, dtype=np.uint8)[None]
    np.testing.assert_array_equal(classes.colours_to_train_ids(CAMVID.paint(train_ids)), train_ids)


@pytest.mark.parametrize("colour", [(1, 2, 3), (255, 255, 255)])
def test_an_unknown_colour_is_named(colour):
    colours = np.zeros((4, 5, 3), np.uint8)
    colours[1, 2] = colour
    with pytest.raises(UserError, match=rf"\({colour[0]}, .*b\.png at row 1, column 2"):
        classes.colours_to_train_ids(colours, "b.png")


def test_ignored_pixels_are_painted_black():
    painted = CITYSCAPES.paint(np.array([[0, 255]], np.uint8))
    np.testing.assert_array_equal(painted, [[CITYSCAPES.palette_Cx3[0], (0, 0, 0)]])


def test_a_palette_png_shows_the_palettes_colours():
    indices = np.random.default_rng(0).integers(0, 34, (23, 29), np.uint8)
    palette = classes.CITYSCAPES_LABEL_PALETTE_35x3
    png = np.frombuffer(classes.palette_png(indices, palette), np.uint8)
    shown = cv2.imdecode(png, cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(shown, np.array(palette, np.uint8)[indices])
