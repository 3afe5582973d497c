"""The classes of each data set: names, palettes, groups, and the ids that label files hold.

Three kinds of label values occur. *Train ids* number the classes that a network is trained on, with
255 for ignored pixels; everything in this project works on them. *Label ids* (Cityscapes' 0..33)
and *colours* (CamVid's 32) occur only in files, and are converted on the way in and out.
"""

import io
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from tmanet_jax.errors import UserError, abridged

Colour = tuple[int, int, int]

IGNORE = 255
"""The label value of pixels that neither train nor count."""

VSPW = "vspw"
"""The class set whose names come with the data set."""

NUMBERED = "numbered"
"""Name of the sets of classes that nobody has named."""

VOID = "void"
"""The class of pixels that CamVid's labels leave open. The original trains and scores it."""

ROWS_OF_A_REPORT = ("all", "categories", "without_void")
"""What reports call the means that are of no group of clips."""

INVALID = 254
"""Marks, in look-up tables of train ids, a value that no label file may hold."""


@dataclass(frozen=True)
class ClassSet:
    """The classes that a network tells apart; a class's index is its train id.

    Attributes:
        name: the data set's name.
        names: class names.
        palette_Cx3: RGB colours, one a class.

    Raises:
        ValueError: it has no class or more than 255, or not one RGB colour for each.
    """

    name: str
    names: tuple[str, ...]
    palette_Cx3: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) == len(self.palette_Cx3) <= IGNORE:
            raise ValueError(
                f"a set has 1 to {IGNORE} classes and a colour for each, not {len(self.names)} "
                f"names and {len(self.palette_Cx3)} colours"
            )
        outside = [colour for colour in self.palette_Cx3 if not all(0 <= x <= 255 for x in colour)]
        if outside:
            raise ValueError(f"colours are of 0 to 255, not {outside[0]}")

    @classmethod
    def of(cls, name: str, colour_of_class: Mapping[str, Colour]) -> "ClassSet":
        """A data set's classes, each with its colour."""
        return cls(name, tuple(colour_of_class), tuple(colour_of_class.values()))

    @property
    def num_classes(self) -> int:
        """Number of classes, ignored pixels not being one."""
        return len(self.names)

    def check(self, labels_HxW: np.ndarray, where: str) -> None:
        """Raises UserError naming `where` and the value if a label is neither class nor IGNORE."""
        is_known_256 = np.zeros(256, bool)
        is_known_256[: self.num_classes] = True
        is_known_256[IGNORE] = True
        refuse_unknown(labels_HxW, is_known_256, where, f"0..{self.num_classes - 1} or {IGNORE}")

    def paint(self, labels_HxW: np.ndarray) -> np.ndarray:
        """Colours train ids: uint8 HxWx3 RGB, ignored pixels black."""
        palette_256x1x3 = np.zeros((256, 1, 3), np.uint8)
        palette_256x1x3[: self.num_classes, 0] = self.palette_Cx3
        return cv2.applyColorMap(labels_HxW.astype(np.uint8, copy=False), palette_256x1x3)


CITYSCAPES = ClassSet.of(
    "cityscapes",
    {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    },
)

CITYSCAPES_LABEL_ID_OF_TRAIN_ID = (
    *(7, 8, 11, 12, 13, 17, 19, 20, 21, 22),
    *(23, 24, 25, 26, 27, 28, 31, 32, 33),
)
"""Label id of each of the 19 train ids; 255 becomes 0, 'unlabeled'."""

CITYSCAPES_LABEL_PALETTE_35x3: tuple[Colour, ...] = (
    (0, 0, 0),
    (0, 0, 0),
    (0, 0, 0),
    (0, 0, 0),
    (0, 0, 0),
    (111, 74, 0),
    (81, 0, 81),
    (128, 64, 128),
    (244, 35, 232),
    (250, 170, 160),
    (230, 150, 140),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (180, 165, 180),
    (150, 100, 100),
    (150, 120, 90),
    (153, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 0, 90),
    (0, 0, 110),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
    (0, 0, 142),
)
"""RGB by label id 0..33; the last row is -1, 'license plate'. Result PNGs carry it."""


def _train_id_of_label_id() -> np.ndarray:
    table_256 = np.full(256, INVALID, np.uint8)
    table_256[:34] = IGNORE
    table_256[list(CITYSCAPES_LABEL_ID_OF_TRAIN_ID)] = np.arange(CITYSCAPES.num_classes)
    table_256.flags.writeable = False
    return table_256


def _label_id_of_train_id() -> np.ndarray:
    table_256 = np.zeros(256, np.uint8)
    table_256[: CITYSCAPES.num_classes] = CITYSCAPES_LABEL_ID_OF_TRAIN_ID
    table_256.flags.writeable = False
    return table_256


CITYSCAPES_TRAIN_ID_OF_LABEL_ID = _train_id_of_label_id()
"""uint8[256]: train id, 255 (ignored) or INVALID of each label id."""

_LABEL_ID_OF_TRAIN_ID_256 = _label_id_of_train_id()

CAMVID = ClassSet.of(
    "camvid",
    {
        "void": (0, 0, 0),
        "sky": (128, 128, 128),
        "building": (128, 0, 0),
        "column_pole": (192, 192, 128),
        "road": (128, 64, 128),
        "sidewalk": (0, 0, 192),
        "tree": (128, 128, 0),
        "sign_symbol": (192, 128, 128),
        "fence": (64, 64, 128),
        "car": (64, 0, 128),
        "pedestrian": (64, 64, 0),
        "bicyclist": (0, 128, 192),
    },
)

CAMVID_CLASS_OF_COLOUR: dict[Colour, str] = {
    (0, 0, 0): "void",  # Void
    (128, 128, 128): "sky",  # Sky
    (128, 0, 0): "building",  # Building
    (192, 0, 128): "building",  # Archway
    (0, 128, 64): "building",  # Bridge
    (64, 0, 64): "building",  # Tunnel
    (64, 192, 0): "building",  # Wall
    (192, 192, 128): "column_pole",  # Column_Pole
    (0, 0, 64): "column_pole",  # TrafficCone
    (128, 64, 128): "road",  # Road
    (128, 0, 192): "road",  # LaneMkgsDriv
    (192, 0, 64): "road",  # LaneMkgsNonDriv
    (0, 0, 192): "sidewalk",  # Sidewalk
    (64, 192, 128): "sidewalk",  # ParkingBlock
    (128, 128, 192): "sidewalk",  # RoadShoulder
    (128, 128, 0): "tree",  # Tree
    (192, 192, 0): "tree",  # VegetationMisc
    (192, 128, 128): "sign_symbol",  # SignSymbol
    (128, 128, 64): "sign_symbol",  # Misc_Text
    (0, 64, 64): "sign_symbol",  # TrafficLight
    (64, 64, 128): "fence",  # Fence
    (64, 0, 128): "car",  # Car
    (64, 128, 192): "car",  # SUVPickupTruck
    (192, 128, 192): "car",  # Truck_Bus
    (192, 64, 128): "car",  # Train
    (128, 64, 64): "car",  # OtherMoving
    (64, 64, 0): "pedestrian",  # Pedestrian
    (192, 128, 64): "pedestrian",  # Child
    (64, 0, 192): "pedestrian",  # CartLuggagePram
    (64, 128, 64): "pedestrian",  # Animal
    (0, 128, 192): "bicyclist",  # Bicyclist
    (192, 0, 192): "bicyclist",  # MotorcycleScooter
}
"""The 32 RGB colours of CamVid's own label pictures, in the usual grouping."""


@dataclass(frozen=True)
class Categories:
    """Groups of classes.

    Attributes:
        names: the categories' names.
        category_of_class_C: index of each class's category.
    """

    names: tuple[str, ...]
    category_of_class_C: tuple[int, ...]


def _by_name(members: dict[str, tuple[str, ...]], classes: ClassSet) -> Categories:
    category_of = {name: index for index, names in enumerate(members.values()) for name in names}
    return Categories(tuple(members), tuple(category_of[name] for name in classes.names))


CITYSCAPES_CATEGORIES = _by_name(
    {
        "flat": ("road", "sidewalk"),
        "construction": ("building", "wall", "fence"),
        "object": ("pole", "traffic light", "traffic sign"),
        "nature": ("vegetation", "terrain"),
        "sky": ("sky",),
        "human": ("person", "rider"),
        "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
    },
    CITYSCAPES,
)
"""Source: `cityscapesscripts/helpers/labels.py`."""


def categories_of(classes: ClassSet) -> Categories | None:
    """The categories that a data set scores, or None."""
    return CITYSCAPES_CATEGORIES if classes.name == CITYSCAPES.name else None


def void_class(classes: ClassSet) -> int | None:
    """Index of the class that stands for open pixels, or None."""
    return classes.names.index(VOID) if VOID in classes.names else None


def name_differences(classes: ClassSet, others: ClassSet) -> str:
    """The first classes whose names differ, in words; empty if none do, or if nobody named them.

    Capitals, underscores and hyphens make no difference.
    """
    if NUMBERED in (classes.name, others.name):
        return ""
    pairs = itertools.zip_longest(classes.names, others.names, fillvalue="(none)")
    different = [
        f"class {index} is {name!r} there and {other!r} here"
        for index, (name, other) in enumerate(pairs)
        if _folded(name) != _folded(other)
    ]
    return abridged(different, 3)


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def numbered_classes(num_classes: int) -> ClassSet:
    """Classes that nobody has named: "class 0", "class 1", ..., each with a colour of its own."""
    palette_Cx3 = tuple(voc_colour(index + 1) for index in range(num_classes))
    names = tuple(f"class {index}" for index in range(num_classes))
    return ClassSet(NUMBERED, names, palette_Cx3)


def voc_colour(number: int) -> Colour:
    """The colour that PASCAL VOC (`VOClabelcolormap`) gives to a number.

    The bits of the number are dealt out to the channels from the highest bit down.
    """
    red, green, blue = (
        sum((number >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
        for channel in range(3)
    )
    return red, green, blue


def class_set(name: str) -> ClassSet:
    """The class set called `name`; raises UserError if there is none."""
    for classes in (CITYSCAPES, CAMVID):
        if classes.name == name:
            return classes
    raise UserError(f"No class set is called {name!r}; there are 'cityscapes' and 'camvid'.")


def label_ids_to_train_ids(label_ids_HxW: np.ndarray, where: str = "the labels") -> np.ndarray:
    """Converts Cityscapes label ids 0..33 to train ids; raises UserError on any other value."""
    is_known_256 = CITYSCAPES_TRAIN_ID_OF_LABEL_ID != INVALID
    refuse_unknown(label_ids_HxW, is_known_256, where, "Cityscapes label ids, 0..33")
    return CITYSCAPES_TRAIN_ID_OF_LABEL_ID[label_ids_HxW]


def train_ids_to_label_ids(train_ids_HxW: np.ndarray, where: str = "the labels") -> np.ndarray:
    """Converts Cityscapes train ids to label ids, 255 to 0; raises UserError on any other value."""
    CITYSCAPES.check(train_ids_HxW, where)
    return _LABEL_ID_OF_TRAIN_ID_256[train_ids_HxW]


def colours_to_train_ids(colours_HxWx3: np.ndarray, where: str = "the labels") -> np.ndarray:
    """Converts CamVid's 32 RGB colours to 12 train ids; raises UserError on any other colour."""
    index_of_colour = {
        colour: CAMVID.names.index(name) for colour, name in CAMVID_CLASS_OF_COLOUR.items()
    }
    return colours_to_indices(colours_HxWx3, index_of_colour, where, "the 32 colours of CamVid")


def colours_to_indices(
    colours_HxWx3: np.ndarray, index_of_colour: Mapping[Colour, int], where: str, expected: str
) -> np.ndarray:
    """Converts RGB colours, uint8, to indices, uint8 HxW.

    Raises:
        UserError: a colour has no index; names `where` and what was `expected`.
    """
    table = sorted((_packed(np.array(colour)), index) for colour, index in index_of_colour.items())
    codes_K = np.array([code for code, _ in table])
    indices_K = np.array([index for _, index in table], np.uint8)
    packed_HxW = _packed(colours_HxWx3)
    position_HxW = np.minimum(np.searchsorted(codes_K, packed_HxW), len(codes_K) - 1)
    unknown_HxW = codes_K[position_HxW] != packed_HxW
    if unknown_HxW.any():
        row, column = np.argwhere(unknown_HxW)[0]
        colour = tuple(int(value) for value in colours_HxWx3[row, column])
        raise UserError(
            f"Unknown label colour (RGB) {colour} in {where} at row {row}, column {column}: "
            f"expected {expected}. Was the picture resized or saved as JPEG?"
        )
    return indices_K[position_HxW]


def palette_png(indices_HxW: np.ndarray, palette_Kx3: tuple[Colour, ...]) -> bytes:
    """An 8-bit palette PNG, as result files are: indices, and RGB colours to show them in."""
    picture = Image.fromarray(indices_HxW.astype(np.uint8))
    picture.putpalette(np.array(palette_Kx3, np.uint8).tobytes())
    content = io.BytesIO()
    picture.save(content, "PNG", bits=8)
    return content.getvalue()


def refuse_unknown(
    labels_HxW: np.ndarray, is_known_256: np.ndarray, where: str, expected: str
) -> None:
    """Raises UserError naming `where`, the value and what was `expected` if a label is unknown."""
    unknown_HxW = ~is_known_256[labels_HxW]
    if unknown_HxW.any():
        row, column = np.argwhere(unknown_HxW)[0]
        raise UserError(
            f"Label value {labels_HxW[row, column]} in {where} at row {row}, column {column} "
            f"is out of range: expected {expected}. Give the file that holds those, or correct it."
        )


def _packed(colours_x3: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colours_x3.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
