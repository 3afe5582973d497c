"""What a data set has to say so that records can be made of it: its classes and its videos.

A new data set is one short file with a subclass of `DataSet` and a command, as in `docs/extend.md`.
All else is the same for all: which frames a clip remembers, stand-ins, records, resuming, skipping,
`--verify`.
"""

import abc
import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from data_prep.labels import LabelFile
from data_prep.source import SourceFile, SourceTree, WrongSourceError
from data_prep.stored_source import open_tree
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError

UNLABELLED_SPLIT = "test"
"""Its labels are the data set's server's alone."""

MOST_FRAMES = 1000
"""Of a memory range, and of a frame stride."""


@dataclass(frozen=True)
class Options:
    """How clips are made.

    Attributes:
        memory_range: number of memory frames that a clip can have.
        frame_stride: they lie so many frames, twice as many, ... before the query.
        missing: whether another frame stands in for a missing one, or that is an error.
        on_error: whether a clip that cannot be read ends the preparation or is left out.

    Raises:
        UserError: the range or the stride is out of bounds.
    """

    memory_range: int = 2
    frame_stride: int = 1
    missing: Literal["stand-in", "error"] = "stand-in"
    on_error: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        if not 0 <= self.memory_range <= MOST_FRAMES:
            raise UserError(f"The memory range is {self.memory_range}: use 0 to {MOST_FRAMES}.")
        if not 1 <= self.frame_stride <= MOST_FRAMES:
            raise UserError(f"The frame stride is {self.frame_stride}: use 1 to {MOST_FRAMES}.")

    @property
    def reach(self) -> int:
        """How many frames before the query the oldest memory frame lies; all up to it are kept."""
        return self.memory_range * self.frame_stride

    @property
    def memory_offsets(self) -> range:
        """How many frames before the query each memory frame lies, oldest first."""
        return range(self.reach, 0, -self.frame_stride)


@dataclass(frozen=True)
class Query:
    """A frame that a clip is made for.

    Attributes:
        id: the clip's: one of its split, and files can be named after it.
        number: the frame's, in its video.
        frame: its picture.
        labels: what it shows; None in a split without labels.
        group: '' or the part of the data set that it is scored with.
    """

    id: str
    number: int
    frame: SourceFile
    labels: LabelFile | None
    group: str = ""


@dataclass(frozen=True)
class Unusable:
    """In place of a query: a clip that cannot be made. It ends the preparation or is skipped.

    Attributes:
        id: the clip's.
        reason: what is wrong and what to do, for the user.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class LabelledVideo:
    """A video: its frames in the order of their numbers, and which of them become clips.

    Attributes:
        name: for messages.
        frames: the files of the frames that a memory may take, by number.
        queries: in the order that records have. Their frames need not be among `frames`.
        frame_name: what messages call the frame of a number, also of one that is missing; 'frame 7
            of NAME' by default.
        largest_gap: where more than this many frames are missing, another video begins.
    """

    name: str
    frames: Mapping[int, SourceFile]
    queries: Sequence[Query | Unusable]
    frame_name: Callable[[int], str] | None = None
    largest_gap: int | None = None

    def name_of(self, number: int) -> str:
        """What messages call a frame."""
        return self.frame_name(number) if self.frame_name else f"frame {number} of {self.name}"


@dataclass(frozen=True)
class FoundSplit:
    """A split of a data set.

    Attributes:
        videos: in the order that records have.
        labelled: whether its queries have labels.
        notes: what was noticed, for the user.
        of_pictures: whether each video is a single picture, which any memory is to repeat.
    """

    videos: Sequence[LabelledVideo]
    labelled: bool = True
    notes: Sequence[str] = ()
    of_pictures: bool = False


class DataSet(abc.ABC):
    """A data set somewhere on a disk.

    Attributes:
        classes: its classes: a class attribute, or set when it is opened.
        tree: its folders and zip files.
        default_splits: those that are prepared if none are named.
        default_memory_range: number of memory frames that a clip can have if none is given.
        default_frame_stride: they lie so many frames apart if nothing else is said.
    """

    classes: ClassSet
    default_splits: ClassVar[tuple[str, ...]] = ("train", "val")
    default_memory_range: ClassVar[int] = 2
    default_frame_stride: ClassVar[int] = 1

    def __init__(self, tree: SourceTree) -> None:
        self.tree = tree

    @abc.abstractmethod
    def find(self, splits: Sequence[str], options: Options) -> Mapping[str, FoundSplit]:
        """Finds the videos of some splits; reads no picture, but may extract the frames of videos.

        Raises:
            WrongSourceError: nothing can be made of the source, or of a whole split.
            UserError: the same; clips that alone are wrong are `Unusable` instead.
        """

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options that this data set alone has."""
        del parser

    @classmethod
    def of_options(cls, options: argparse.Namespace) -> Self:
        """Opens the data set that a command line names; raises UserError."""
        return cls(open_tree(options.source))


def files_by_number(
    tree: SourceTree, folder: str, suffixes: tuple[str, ...]
) -> Mapping[int, SourceFile]:
    """The files of a folder that are named after numbers alone, in their order.

    Args:
        tree: where it lies.
        folder: its path in the tree.
        suffixes: of the files that are wanted, such as '.png'; capitals make no difference.

    Raises:
        WrongSourceError: a name is no number, or two files have one.
    """
    files: dict[int, SourceFile] = {}
    for name, file in tree.files(folder).items():
        stem, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" not in suffixes:
            continue
        if not (stem.isascii() and stem.isdecimal()) or int(stem) in files:
            raise WrongSourceError(
                f"{file} is not named after a number of its own: expected names such as "
                f"{folder}/000001{suffixes[0]}, and one file a number."
            )
        files[int(stem)] = file
    return dict(sorted(files.items()))
