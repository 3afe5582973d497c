r"""Makes clip records from frames, labels and a list of classes of your own.

    python -m data_prep.folder --source=DIR --out=DIR

reads, below the source (zip files in it are read in place),

    classes.csv                        name,red,green,blue; then one line a class: road,128,64,128
    frames/SPLIT/VIDEO/NUMBER.png      the frames of each video, numbered; or .jpg,
                                       .bmp, .tif, .webp; or frames/SPLIT/VIDEO.mp4, a
                                       video file, whose frames count from 0
    labels/SPLIT/VIDEO/NUMBER.png      the labels of some of them: grey or palette PNGs that hold
                                       indices (0: the first class; 255: ignored), or RGB PNGs in
                                       the classes' colours

or frames/SPLIT/NAME.png and labels/SPLIT/NAME.png, pictures that are of no video; or, in place of
such PNGs, polygons drawn on the frames:

    labels/SPLIT/VIDEO/NUMBER.json     of LabelMe; or for all frames of a video, by their names,
    labels/SPLIT/VIDEO.xml             of CVAT ("for images 1.1"), or VIDEO.json of COCO; what
                                       nothing covers is ignored, or of the class `background`

Each labelled frame becomes a clip; its memory are the frames before it. A picture of no video is
its own memory, however long that is. A last line of classes.csv named `ignored` is no class: its
colour marks pixels that do not count. A fifth column, `values`, says what else stands for a class
(or is ignored), separated by semicolons: indices, which then alone are valid, colours, and names of
polygons: truck,0,0,70,14;15;#000046;lorry. Text may stand before the number in names. Numbers of
ten digits and more are times, and so are 20211201_120000_033 and 1638316800_033 (or _033000) unless
what they end with counts frames: frames then count in their order. Frames are turned as their EXIF
says, labels never are. For example:

    import cv2, pathlib, numpy as np
    mine = pathlib.Path("mine")
    for folder in ("frames/train/a", "frames/val/b", "labels/train/a", "labels/val/b"):
        (mine / folder).mkdir(parents=True)
    (mine / "classes.csv").write_text("name,red,green,blue\nroad,90,90,90\ncar,200,0,0\n")
    for video in ("train/a", "val/b"):
        for number in range(10):
            frame = np.random.default_rng(number).integers(0, 256, (128, 256, 3), np.uint8)
            cv2.imwrite(f"mine/frames/{video}/{number:06d}.png", frame)
        cv2.imwrite(f"mine/labels/{video}/000009.png", frame[..., 0] // 128)

A run needs to be told the number of classes:

    python -m data_prep.folder --source=mine --out=data/mine
    python run.py --config=configs/default.py --config.data.dir=data/mine \
        --config.model.num_classes=2 --config.data.crop_size=128,256
"""

import argparse
import csv
import hashlib
import io
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from data_prep import command
from data_prep.data_set import DataSet, FoundSplit, LabelledVideo, Options, Query, Unusable
from data_prep.extraction import Watch, extract_frames
from data_prep.label_shift import SHIFT_ADVICE, NumberedVideo, in_order_of_time, notes_on_numbers
from data_prep.labels import Classes, ClassLabels, Mark
from data_prep.naming import frame_numbers
from data_prep.polygons import DrawnLabels, drawn_frame, drawn_labels
from data_prep.source import (
    SourceFile,
    SourceTree,
    UnpackedFile,
    WrongSourceError,
    is_turned_by_exif,
)
from data_prep.stored_source import open_tree
from tmanet_jax.data.classes import IGNORE, INVALID, ClassSet, Colour
from tmanet_jax.progress import ProgressBar
from tmanet_jax.video.frames import PICTURE_SUFFIXES

_CLASSES = "classes.csv"
_COLUMNS = ["name", "red", "green", "blue"]
_IGNORED = "ignored"


class Folder(DataSet):
    """Frames, labels and classes of one's own.

    Args:
        tree: where they lie.
        classes: what labels hold.
        frames_dir: where the frames of videos are written to.
    """

    def __init__(self, tree: SourceTree, classes: Classes, frames_dir: Path) -> None:
        super().__init__(tree)
        self.classes = classes.class_set
        self._classes = classes
        self._frames_dir = frames_dir

    @classmethod
    def of_options(cls, options: argparse.Namespace) -> Self:
        """Opens the folder that a command line names, and reads its classes."""
        tree = open_tree(options.source)
        classes = read_classes(tree, options.name or tree.name)
        return cls(tree, classes, Path(options.out, "frames"))

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """What the data set is called."""
        parser.add_argument("--name", help="of the data set (the source's)")

    def find(self, splits: Sequence[str], options: Options) -> Mapping[str, FoundSplit]:
        """Finds the videos of some splits, and extracts the frames of video files that they need.

        Raises:
            WrongSourceError: a split has no labels, or files are named wrongly.
            UserError: a video cannot be read.
        """
        return {split: self._split(split, options) for split in splits}

    def _split(self, split: str, options: Options) -> FoundSplit:
        drawings = self.tree.files(f"labels/{split}")
        of_videos = {Path(name).stem for name in drawings if _is_drawing_of(name, Path(name).stem)}
        names = sorted({*self.tree.folders(f"labels/{split}"), *of_videos})
        videos = [self._video(f"{split}/{name}", options) for name in names]
        alone = self._pictures_alone(split)
        of_pictures = not any(video.labels for video in videos)
        if not alone and of_pictures:
            raise WrongSourceError(
                f"There are no labels in {self.tree.root}: expected labels/{split}/VIDEO/NUMBER.png"
                f", e.g. labels/{split}/drive/000123.png. --splits=... names other splits."
                + self.tree.other_splits(split, "labels/{}")
            )
        notes = [*notes_on_numbers(split, videos), *_notes_on_turned(split, [*videos, *alone])]
        labelled = [*map(_labelled, videos), *map(_picture, alone)]
        return FoundSplit(labelled, notes=notes, of_pictures=of_pictures)

    def _pictures_alone(self, split: str) -> list[NumberedVideo]:
        """The labelled pictures that are of no video: each is one of a single frame."""
        frames, labels = (
            {
                _stem(file): file
                for name, file in self.tree.files(f"{kind}/{split}").items()
                if name.lower().endswith(PICTURE_SUFFIXES)
            }
            for kind in ("frames", "labels")
        )
        return [
            NumberedVideo(
                f"{split}/{stem}",
                {0: frames[stem]} if stem in frames else {},
                {0: self._labels(file)},
            )
            for stem, file in labels.items()
        ]

    def _video(self, name: str, options: Options) -> NumberedVideo:
        split, _, video = name.rpartition("/")
        drawn = self._drawn(split, video)
        pictures = [_pictures(self.tree, f"{kind}/{name}") for kind in ("frames", "labels")]
        pictures[1] = sorted([*pictures[1], *_numbered(drawn)], key=lambda file: file.name)
        number_of = frame_numbers({stem for files in pictures for stem in map(_stem, files)})
        frames, labels = (_by_number(files, number_of) for files in pictures)
        of_stem = {Path(n).stem: file for n, file in self.tree.files(f"frames/{split}").items()}
        if not frames and video in of_stem:
            wanted = {n - offset for n in labels for offset in range(options.reach + 1)}
            frames = _frames_of_video(of_stem[video], self._frames_dir / split, wanted)
        of_classes = {number: self._labels(file) for number, file in labels.items()}
        return in_order_of_time(NumberedVideo(name, frames, of_classes))

    def _labels(self, file: SourceFile) -> ClassLabels:
        is_drawn = isinstance(file, DrawnLabels)
        return ClassLabels(file, Classes(self.classes) if is_drawn else self._classes, _CLASSES)

    def _drawn(self, split: str, video: str) -> list[SourceFile]:
        """The label pictures of a video that are drawn as polygons."""
        names = {**self._classes.index_of_name, _IGNORED: IGNORE}
        of_split = self.tree.files(f"labels/{split}")
        of_video = [file for name, file in of_split.items() if _is_drawing_of(name, video)]
        of_frames = self.tree.files(f"labels/{split}/{video}").values()
        return [
            *(drawn for file in of_video for drawn in drawn_labels(file, names)),
            *(drawn_frame(file, names) for file in of_frames if file.name.endswith(".json")),
        ]


def _labelled(video: NumberedVideo) -> LabelledVideo:
    stems = {number: _stem(labels.file) for number, labels in video.labels.items()}
    prefix = video.name.rpartition("/")[2]
    queries = [
        _query(f"{prefix}_{stem}", number, video, f"{video.name}/{stem}")
        for number, stem in stems.items()
    ]
    return LabelledVideo(video.name, video.frames, queries)


def _picture(video: NumberedVideo) -> LabelledVideo:
    query = _query(video.name.rpartition("/")[2], 0, video, video.name)
    return LabelledVideo(video.name, video.frames, [query])


def _query(clip_id: str, number: int, video: NumberedVideo, expected: str) -> Query | Unusable:
    labels, frame = video.labels[number], video.frames.get(number)
    if not labels.file.name.lower().endswith(".png"):
        reason = f"The labels {labels.file} are no PNG: other formats change values on the way."
        return Unusable(clip_id, reason)
    if frame is None:
        numbers = "" if expected == video.name else f" Numbers in {video}."
        reason = (
            f"The labels {labels.file} have no frame: expected frames/{expected}.png or .jpg."
            f"{numbers}"
        )
        is_before_the_first = number + 1 == min(video.frames, default=None)
        return Unusable(clip_id, f"{reason} {SHIFT_ADVICE}" if is_before_the_first else reason)
    return Query(clip_id, number, frame, labels)


def _notes_on_turned(split: str, videos: Sequence[NumberedVideo]) -> list[str]:
    turned = [
        frame
        for video in videos
        for number in video.labels
        if (frame := video.frames.get(number)) is not None and is_turned_by_exif(frame)
    ]
    if not turned:
        return []
    return [
        f"Warning: EXIF turns or mirrors {len(turned)} labelled frames of {split}, such as "
        f"{turned[0]}. They are taken as viewers show them: labels that were drawn on the pixels "
        "as they are stored do not lie on them. If so, remove the orientation from the frames."
    ]


def _pictures(tree: SourceTree, folder: str) -> list[SourceFile]:
    """The pictures in a folder; raises WrongSourceError if a name does not end with a number."""
    files = tree.files(folder).values()
    return _numbered([file for file in files if file.name.lower().endswith(PICTURE_SUFFIXES)])


def _is_drawing_of(name: str, video: str) -> bool:
    """Whether a file among the labels of a split holds the polygons of a video."""
    return name in (f"{video}.json", f"{video}.xml")


def _numbered(files: Sequence[SourceFile]) -> list[SourceFile]:
    """The files; raises WrongSourceError if a name does not end with a number."""
    for file in files:
        if not _stem(file)[-1:].isdecimal():
            raise WrongSourceError(
                f"There is no frame number in the name of {file}: expected a name that ends with "
                "it, such as 000123.png."
            )
    return list(files)


def _stem(file: SourceFile) -> str:
    return Path(file.name).stem


def _by_number(
    files: Sequence[SourceFile], number_of: Mapping[str, int]
) -> Mapping[int, SourceFile]:
    pictures: dict[int, SourceFile] = {}
    for file in files:
        number = number_of[_stem(file)]
        if number in pictures:
            raise WrongSourceError(
                f"{pictures[number]} and {file} are both of frame {number}: expected one file a "
                "frame, and one folder a video."
            )
        pictures[number] = file
    return pictures


def _frames_of_video(
    video: SourceFile, directory: Path, wanted: Collection[int]
) -> Mapping[int, SourceFile]:
    """Some frames of a video, counted from 0, each written as PNG unless it is there already.

    Args:
        video: the file.
        directory: where a folder of the frames is made, of a name that changes with the video.
        wanted: the frames' numbers.

    Returns:
        The files of those that the video has, whole.

    Raises:
        UserError: the video cannot be read, or lies in a zip file; or a frame cannot be written.
    """
    if not isinstance(video, UnpackedFile):
        raise WrongSourceError(f"The video {video} lies in a zip file: unpack it.")
    made_of = hashlib.sha256(f"{video.path.resolve()} {video.fingerprint}".encode()).hexdigest()
    folder = directory / f"{video.path.stem}-{made_of[:8]}"
    files = {number: folder / f"{number:06d}.png" for number in wanted if number >= 0}
    left = {number: path for number, path in files.items() if not path.exists()}
    if left:
        with ProgressBar(f"Reading {video.name}", "frame", stays=False) as bar:
            extract_frames(video.path, left, Watch(on_frame=bar.update))
    return {number: UnpackedFile(path) for number, path in files.items() if path.exists()}


def read_classes(tree: SourceTree, name: str) -> Classes:
    """Reads the table of classes.

    Args:
        tree: where it lies, as classes.csv.
        name: of the data set.

    Raises:
        WrongSourceError: it is missing or wrong; names the line.
    """
    file = tree.files("").get(_CLASSES)
    if file is None:
        raise WrongSourceError(
            f"There is no {tree.root / _CLASSES}: expected a line 'name,red,green,blue', then one "
            "line a class, such as 'road,128,64,128'."
        )
    rows = list(_read_rows(file))
    ignored = [row for row in rows if row.name == _IGNORED]
    if ignored and rows[-1].name != _IGNORED:
        raise WrongSourceError(f"{file}: '{_IGNORED}' is no class and must be the last line.")
    classes = [row for row in rows if row.name != _IGNORED]
    if not 2 <= len(classes) < INVALID:
        raise WrongSourceError(
            f"{file} has {len(classes)} classes: expected 2 to {INVALID - 1}, one a line."
        )
    class_set = ClassSet(name, *zip(*((row.name, row.colour) for row in classes), strict=True))
    indices = [*range(len(classes)), *[IGNORE] * len(ignored)]
    marks = {mark: index for row, index in zip(rows, indices, strict=True) for mark in row.marks}
    return Classes(class_set, ignored[0].colour if ignored else None, marks)


class _Row(NamedTuple):
    """A line of classes.csv."""

    name: str
    colour: Colour
    marks: tuple[Mark, ...]


def _read_rows(file: SourceFile) -> Iterator[_Row]:
    try:
        lines = list(csv.reader(io.StringIO(file.read_bytes().decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise WrongSourceError(f"{file} is no table: {error}.") from error
    if not lines or [cell.strip() for cell in lines[0]] not in (_COLUMNS, [*_COLUMNS, "values"]):
        found = ",".join(lines[0]) if lines else "nothing"
        raise WrongSourceError(
            f"{file} begins with {found!r}: expected the line {','.join(_COLUMNS)!r}."
        )
    seen: dict[Mark, int] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        row = _parse_line(file, number, line)
        for value in (row.name, row.colour, *row.marks):
            if seen.get(value, number) != number:
                raise WrongSourceError(
                    f"{file}, line {number}: {value!r} is in line {seen[value]} already; names, "
                    "colours and values must differ."
                )
            seen[value] = number
        yield row


def _parse_line(file: SourceFile, number: int, line: list[str]) -> _Row:
    try:
        name, *cells = (cell.strip() for cell in line)
        red, green, blue = (int(cell) for cell in cells[:3])
        marks = tuple(_mark(part.strip()) for part in ";".join(cells[3:]).split(";"))
        if not name or len(cells) > 4 or not all(0 <= x <= 255 for x in (red, green, blue)):
            raise ValueError
    except ValueError:
        raise WrongSourceError(
            f"{file}, line {number} is {','.join(line)!r}: expected a name and three numbers from "
            "0 to 255, such as 'road,128,64,128'; and maybe what else stands for it, such as "
            "'road,128,64,128,7;8;#804080;street': values from 0 to 255, colours, names."
        ) from None
    name = _IGNORED if name.lower() == _IGNORED else name
    return _Row(name, (red, green, blue), tuple(mark for mark in marks if mark != ""))


def _mark(text: str) -> Mark:
    if re.fullmatch("#[0-9a-fA-F]{6}", text):
        red, green, blue = bytes.fromhex(text[1:])
        return red, green, blue
    if not re.fullmatch(r"\d+", text):
        return text
    if int(text) > IGNORE:
        raise ValueError
    return int(text)


main = command.main_of(Folder, "data_prep.folder", __doc__)


if __name__ == "__main__":
    sys.exit(main())
