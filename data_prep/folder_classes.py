"""The classes of somebody's own data: a table of names and colours, and labels by it."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from data_prep.label_pictures import LabelPicture
from data_prep.label_values import LabelTable, read_values
from data_prep.records.writer import WrongSourceError
from data_prep.source_tree import SourceFile, SourceTree
from tmanet_jax.data.classes import IGNORE, INVALID, ClassSet, Colour, colours_to_indices

FILE = "classes.csv"
_COLUMNS = ["name", "red", "green", "blue"]
_IGNORED = "ignored"


@dataclass(frozen=True)
class Classes:
    """Classes, and how label files hold them.

    Attributes:
        class_set: the classes.
        ignored_colour: of pixels that do not count, in label files of colours; None if none is.
    """

    class_set: ClassSet
    ignored_colour: Colour | None

    @property
    def index_of_colour(self) -> Mapping[Colour, int]:
        """The train id that each colour stands for."""
        colours = dict(zip(self.class_set.palette_Cx3, range(IGNORE), strict=False))
        return colours if self.ignored_colour is None else {**colours, self.ignored_colour: IGNORE}


@dataclass(frozen=True)
class FolderLabels:
    """A label file of indices or colours.

    Attributes:
        file: the picture.
        classes: what it holds.
    """

    file: SourceFile
    classes: Classes

    @property
    def fingerprint(self) -> str:
        """Changes when the picture does, or the classes."""
        return f"{self.file.fingerprint} {self.classes}"

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """Train ids: uint8 HxW.

        Raises:
            UserError: the file cannot be read, or holds an index or a colour of no class.
        """
        class_set, where = self.classes.class_set, str(self.file)
        colours = self.classes.index_of_colour
        if picture.holds_colours:
            return colours_to_indices(picture.colours(), colours, where, f"those of {FILE}")
        table = LabelTable.of([*range(class_set.num_classes), IGNORE], colours.items())
        indices_HxW = read_values(picture, table)
        class_set.check(indices_HxW, where)
        return indices_HxW


def read_classes(tree: SourceTree, name: str) -> Classes:
    """Reads the table of classes.

    Args:
        tree: where it lies, as classes.csv.
        name: of the data set.

    Raises:
        WrongSourceError: it is missing or wrong; names the line.
    """
    file = tree.files("").get(FILE)
    if file is None:
        raise WrongSourceError(
            f"There is no {tree.root / FILE}: expected a line 'name,red,green,blue', then one line "
            "a class, such as 'road,128,64,128'."
        )
    rows = list(_read_rows(file))
    ignored = [colour for class_name, colour in rows if class_name == _IGNORED]
    if ignored and rows[-1][0] != _IGNORED:
        raise WrongSourceError(f"{file}: '{_IGNORED}' is no class and must be the last line.")
    classes = [row for row in rows if row[0] != _IGNORED]
    if not 2 <= len(classes) < INVALID:
        raise WrongSourceError(
            f"{file} has {len(classes)} classes: expected 2 to {INVALID - 1}, one a line."
        )
    names, palette_Cx3 = zip(*classes, strict=True)
    return Classes(ClassSet(name, names, palette_Cx3), ignored[0] if ignored else None)


def _read_rows(file: SourceFile) -> Iterator[tuple[str, Colour]]:
    try:
        lines = list(csv.reader(io.StringIO(file.read_bytes().decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise WrongSourceError(f"{file} is no table: {error}.") from error
    if not lines or [cell.strip() for cell in lines[0]] != _COLUMNS:
        found = ",".join(lines[0]) if lines else "nothing"
        raise WrongSourceError(
            f"{file} begins with {found!r}: expected the line {','.join(_COLUMNS)!r}."
        )
    seen: dict[str | Colour, int] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        name, colour = _parse_line(file, number, line)
        for value in (name, colour):
            if value in seen:
                raise WrongSourceError(
                    f"{file}, line {number}: {value!r} is in line {seen[value]} already; names and "
                    "colours must differ."
                )
            seen[value] = number
        yield name, colour


def _parse_line(file: SourceFile, number: int, line: list[str]) -> tuple[str, Colour]:
    try:
        name, *values = (cell.strip() for cell in line)
        red, green, blue = (int(value) for value in values)
        if not name or not all(0 <= value <= 255 for value in (red, green, blue)):
            raise ValueError
    except ValueError:
        raise WrongSourceError(
            f"{file}, line {number} is {','.join(line)!r}: expected a name and three numbers from "
            "0 to 255, such as 'road,128,64,128'."
        ) from None
    return _IGNORED if name.lower() == _IGNORED else name, (red, green, blue)
