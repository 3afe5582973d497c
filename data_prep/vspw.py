"""Makes clip records from VSPW as it was downloaded.

    python -m data_prep.vspw --source=VSPW_480p --out=DIR

reads, below the source (zip files in it are read in place),

    train.txt  val.txt  test.txt           the videos of each split, one a line
    label_num_dic_final.json               the number of each class's name
    data/VIDEO/origin/NNNNNNNN.jpg         frames; their numbers are the source video's, and jump
    data/VIDEO/mask/NNNNNNNN.png           labels of every frame: 0 others, 1 to 124, 255 ignored

Every frame becomes a clip. The frame before it is the one before it in the order of the numbers,
and 0 and 255 are ignored. The test split has no labels (--splits=train,val,test). --height=480
makes of the full-size download what the data set's own kit does: frames resized bilinearly, labels
to the nearest, widths rounded down.

Layout and values: VSPW-dataset/VSPW_baseline, `dataset.py` and `change2_480p.py`.
"""

import argparse
import io
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from data_prep import command
from data_prep.data_set import (
    UNLABELLED_SPLIT,
    DataSet,
    FoundSplit,
    LabelledVideo,
    Options,
    Query,
    Unusable,
    files_by_number,
)
from data_prep.labels import LabelPicture
from data_prep.source import SourceFile, SourceTree, WrongSourceError
from data_prep.stored_source import open_tree
from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import (
    IGNORE,
    INVALID,
    VSPW,
    ClassSet,
    refuse_unknown,
    voc_colour,
)
from tmanet_jax.data.files import is_hidden
from tmanet_jax.data.resize import LONGEST_SIDE
from tmanet_jax.errors import UserError

_CLASSES = "label_num_dic_final.json"
_OTHERS = 0
_NO_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow may raise."""


@dataclass(frozen=True)
class VspwLabels:
    """A mask.

    Attributes:
        file: the picture.
        num_classes: its values are 1 to this, 0 (others) and 255 (ignored).
    """

    file: SourceFile
    num_classes: int

    @property
    def fingerprint(self) -> str:
        """Changes when the file does."""
        return f"{self.file.fingerprint} of {self.num_classes} classes from 1"

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """Train ids: uint8 HxW; raises UserError if the file is torn or holds another value."""
        train_id_256 = np.full(256, INVALID, np.uint8)
        train_id_256[[_OTHERS, IGNORE]] = IGNORE
        train_id_256[1 : self.num_classes + 1] = np.arange(self.num_classes)
        values_HxW = picture.indices()
        expected = f"0..{self.num_classes} or {IGNORE}"
        refuse_unknown(values_HxW, train_id_256 != INVALID, str(self.file), expected)
        return train_id_256[values_HxW]


@dataclass(frozen=True)
class ResizedFile:
    """A picture of another height, its ratio kept, as PNG.

    Attributes:
        file: the picture.
        height: in pixels.
        how: it is interpolated.
    """

    file: SourceFile
    height: int
    how: Image.Resampling

    def __str__(self) -> str:
        return str(self.file)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.file.name

    @property
    def fingerprint(self) -> str:
        """Changes when the file does, or the height."""
        return f"{self.file.fingerprint} at height {self.height}"

    def read_bytes(self, size: int = -1) -> bytes:
        """The first `size` bytes of the PNG or all; those of a file that is no picture as is."""
        content = self.file.read_bytes()
        try:
            with Image.open(io.BytesIO(content)) as picture:
                width = int(self.height * picture.width / picture.height)
                resized = picture.resize((width, self.height), self.how)
        except _NO_PICTURE:
            return content  # whoever decodes it says what is wrong
        png = io.BytesIO()
        resized.save(png, "PNG", compress_level=1)
        return png.getvalue()[: None if size < 0 else size]


class Vspw(DataSet):
    """VSPW as it was downloaded.

    Args:
        tree: where everything lies.
        height: that pictures are resized to; None: they stay as they are.
    """

    default_memory_range = 3
    default_frame_stride = 3

    def __init__(self, tree: SourceTree, height: int | None = None) -> None:
        super().__init__(tree)
        if height is not None and not 8 <= height <= LONGEST_SIDE:
            raise UserError(f"--height is {height}: use 8 to {LONGEST_SIDE} pixels, such as 480.")
        self.classes = read_classes(tree)
        self._height = height

    @classmethod
    def of_options(cls, options: argparse.Namespace) -> Self:
        """Opens the download that a command line names."""
        return cls(open_tree(options.source), options.height)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """The height of the pictures."""
        parser.add_argument(
            "--height", type=int, help="resize pictures to it (480: as the kit does)"
        )

    def find(self, splits: Sequence[str], options: Options) -> Mapping[str, FoundSplit]:
        """The videos of some splits, in the order of their lists.

        Raises:
            WrongSourceError: there is no list of a split, or none of its videos.
        """
        del options
        return {split: self._split(split) for split in splits}

    def _split(self, split: str) -> FoundSplit:
        labelled = split != UNLABELLED_SPLIT
        videos = [self._video(name, labelled) for name in _listed(self.tree, split)]
        if not any(isinstance(query, Query) for video in videos for query in video.queries):
            raise WrongSourceError(
                f"None of the videos in {self.tree.root / split}.txt is there: expected "
                f"{self.tree.root}/data/VIDEO/origin/NNNNNNNN.jpg."
            )
        return FoundSplit(videos, labelled)

    def _video(self, name: str, labelled: bool) -> LabelledVideo:
        frames = files_by_number(self.tree, f"data/{name}/origin", (".jpg", ".png"))
        masks = files_by_number(self.tree, f"data/{name}/mask", (".png",)) if labelled else {}
        numbers = sorted({*frames, *masks})
        queries = [
            self._query(name, index, frames.get(number), masks.get(number), labelled)
            for index, number in enumerate(numbers)
        ] or [Unusable(name, f"The video {name} is listed, and data/{name}/origin is empty.")]
        in_order = {i: self._frame(frames[n]) for i, n in enumerate(numbers) if n in frames}
        return LabelledVideo(name, in_order, queries)

    def _query(
        self,
        video: str,
        index: int,
        frame: SourceFile | None,
        mask: SourceFile | None,
        labelled: bool,
    ) -> Query | Unusable:
        named = frame or mask
        assert named is not None
        stem = Path(named.name).stem
        clip_id, folder = f"{video}_{stem}", f"data/{video}"
        if frame is None:
            reason = f"{mask} has no frame: expected {folder}/origin/{stem}.jpg."
            return Unusable(clip_id, reason)
        if labelled and mask is None:
            reason = f"{frame} has no labels: expected {folder}/mask/{stem}.png."
            return Unusable(clip_id, reason)
        labels = None
        if mask is not None:
            resized = self._resized(mask, Image.Resampling.NEAREST)
            labels = VspwLabels(resized, self.classes.num_classes)
        return Query(clip_id, index, self._frame(frame), labels)

    def _frame(self, file: SourceFile) -> SourceFile:
        return self._resized(file, Image.Resampling.BILINEAR)

    def _resized(self, file: SourceFile, how: Image.Resampling) -> SourceFile:
        return file if self._height is None else ResizedFile(file, self._height, how)


def read_classes(tree: SourceTree) -> ClassSet:
    """The classes of the download, numbered from 1 in its own file; 0 and 255 are none.

    Raises:
        WrongSourceError: the file is missing, or is no list of names with their numbers.
    """
    file = tree.files("").get(_CLASSES)
    if file is None:
        raise WrongSourceError(
            f"There is no {tree.root / _CLASSES}, which names the classes: is {tree.root} the "
            "folder that the data set was unpacked to?"
        )
    try:
        values = strict_json.decode(
            dict[str, int], strict_json.parse(file.read_bytes(), "it"), "it"
        )
    except UserError as error:
        raise WrongSourceError(f"{file} cannot be read ({error}). Get it again.") from error
    names = {number: name for name, number in values.items() if number not in (_OTHERS, IGNORE)}
    if sorted(names) != list(range(1, len(names) + 1)) or not 2 <= len(names) < INVALID:
        raise WrongSourceError(
            f'{file} should give the classes the numbers 1, 2, 3, ..., as in {{"wall": 1, ...}}; '
            f"it gives {reprlib.repr(sorted(values.values()))}."
        )
    return ClassSet.of(VSPW, {names[number]: voc_colour(number) for number in sorted(names)})


def _listed(tree: SourceTree, split: str) -> list[str]:
    """The videos that a split's file names, hidden ones left out."""
    file = tree.files("").get(f"{split}.txt")
    if file is None:
        only = tree.other_splits(split, "{}.txt")
        raise WrongSourceError(
            f"There is no {tree.root / split}.txt, which lists the videos of {split}.{only}"
        )
    try:
        names = [line.strip() for line in file.read_bytes().decode().splitlines()]
    except UnicodeDecodeError as error:
        raise WrongSourceError(f"{file} is no list of videos: {error}. Get it again.") from error
    for name in names:
        if "/" in name or "\\" in name or name == "..":
            raise WrongSourceError(f"{file} lists {name!r}, which is no name of a video.")
    return [name for name in names if name and not is_hidden(name)]


main = command.main_of(Vspw, "data_prep.vspw", __doc__)


if __name__ == "__main__":
    sys.exit(main())
