"""Labels read as other classes: some of the recorded ones, or several of them as one.

    ("road", "vehicle=car,truck,bus")

tells two classes apart; pixels of all others are ignored.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tmanet_jax.data.classes import IGNORE, ClassSet, Colour, voc_colour
from tmanet_jax.data.records_info import RecordsInfo, SplitInfo
from tmanet_jax.errors import UserError


class Relabelling(NamedTuple):
    """Recorded classes as others.

    Attributes:
        classes: the others; each has the colour of the first class that it is made of.
        table_256: the other label of each recorded one, uint8.
    """

    classes: ClassSet
    table_256: np.ndarray

    def of_info(self, info: RecordsInfo) -> RecordsInfo:
        """What is known of records when they are read so."""
        splits = {name: self._of_split(split) for name, split in info.splits.items()}
        return dataclasses.replace(info, classes=self.classes, splits=splits)

    def _of_split(self, split: SplitInfo) -> SplitInfo:
        table_C = self.table_256[: len(split.class_pixels)]
        pixels_256 = np.zeros(256, np.int64)
        np.add.at(pixels_256, table_C, np.array(split.class_pixels, np.int64))
        return dataclasses.replace(
            split,
            class_pixels=tuple(pixels_256[: self.classes.num_classes].tolist()),
            ignored_pixels=split.ignored_pixels + int(pixels_256[IGNORE]),
        )


def relabelling(
    wanted: Sequence[str], classes: ClassSet, *, of_several: bool = False
) -> Relabelling:
    """Reads what classes are wanted.

    Args:
        wanted: a recorded class each, or NEW=CLASS,CLASS,...
        classes: the recorded ones.
        of_several: records of other classes are mixed with these: one that these lack is known
            there.

    Raises:
        UserError: one is unknown, or named twice.
    """
    table_256 = np.full(256, IGNORE, np.uint8)
    palette: list[Colour] = []
    names: list[str] = []
    used: set[str] = set()
    for label, text in enumerate(wanted):
        name, _, parts = text.partition("=")
        members = [member.strip() for member in (parts or name).split(",")]
        twice = used & {*members} or ({name} & {*names})
        if twice or len({*members}) < len(members):
            raise UserError(
                f"config.data.classes names a class twice: {text!r}. Each goes to one at most."
            )
        used |= {*members}
        there = [member for member in members if member in classes.names or not of_several]
        indices = [_index_of(member, classes) for member in there]
        table_256[indices] = label
        names.append(name)
        palette.append(classes.palette_Cx3[indices[0]] if indices else voc_colour(label + 1))
    return Relabelling(
        ClassSet(f"{classes.name}_relabelled", tuple(names), tuple(palette)), table_256
    )


def _index_of(name: str, classes: ClassSet) -> int:
    if name in classes.names:
        return classes.names.index(name)
    near = difflib.get_close_matches(name, classes.names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"config.data.classes names {name!r}, which the records do not have.{hint} They have: "
        f"{', '.join(classes.names)}."
    )
