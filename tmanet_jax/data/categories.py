"""Groups of classes that data sets score besides the classes themselves."""

from dataclasses import dataclass

from tmanet_jax.data.classes import CITYSCAPES, ClassSet

VOID = "void"
"""The class of pixels that CamVid's labels leave open. The original trains and scores it."""

ROWS_OF_A_REPORT = ("all", "categories", "without_void")
"""What reports call the means that are of no group of clips."""


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
