"""Makes clip records from CamVid as it was downloaded.

    python -m data_prep.camvid --source=DIR --out=DIR

finds, anywhere below the source (zip files in it are read in place, except for videos),

    0005VD.MXF  0006R0.MXF  0016E5.MXF  01TP_extract.avi    the videos: frames before the stills
    701_StillsRaw_full/NAME.png                             the labelled stills
    LabeledApproved_full/NAME_L.png                         their labels in 32 colours, or
    labels/NAME_L.png, trainannot/NAME.png, ...             as indices of 12 or of 11 classes
    images_sequence/NAME.png                                frames that were extracted already

where NAME is e.g. Seq05VD_f00030. The splits are the published ones: train 367, val 101 and test
232 clips. A still is the query of its clip; the memory is decoded from the video, whose frame
numbers are found by comparing it with the stills. The frames needed are kept in OUT/frames.

Label files (--label-format) hold

    colours      the 32 RGB colours, as published; in a palette too
    indices12    0 void, 1 sky, ..., 11 bicyclist: the classes of this project
    indices11    0 sky, ..., 10 bicyclist, and 11 (or 255) void: a common conversion

Index files of both kinds hold 0..11, so one file cannot tell which it is. A palette can, if it is
of CamVid's colours. Without one, the set tells: what lies before the camera is road, by far.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np

from data_prep import command
from data_prep.camvid_frames import VideoFrames, provide_frames
from data_prep.camvid_source import (
    SPLITS,
    CamvidSource,
    RawVideo,
    find_source,
    parse_name,
    split_names,
)
from data_prep.data_set import DataSet, FoundSplit, LabelledVideo, Options, Query, Unusable
from data_prep.labels import (
    LabelPicture,
    LabelTable,
    read_values,
    used_indices,
    values_of_colours,
)
from data_prep.source import SourceFile, SourceTree, WrongSourceError
from data_prep.stored_source import open_tree
from tmanet_jax.data.classes import CAMVID, CAMVID_CLASS_OF_COLOUR, IGNORE, colours_to_train_ids
from tmanet_jax.errors import UserError

LabelFormat = Literal["colours", "indices12", "indices11"]
LABEL_FORMATS: tuple[LabelFormat, ...] = get_args(LabelFormat)

_SAMPLE = 64
"""How many files the set is judged by, evenly spread."""

_ROAD = CAMVID.names.index("road")
_CLASS_OF_COLOUR = [(c, CAMVID.names.index(name)) for c, name in CAMVID_CLASS_OF_COLOUR.items()]
_VOID11 = 11
_COLOURS: frozenset[LabelFormat] = frozenset({"colours"})
_INDICES: frozenset[LabelFormat] = frozenset({"indices12", "indices11"})
_PALETTE12: frozenset[LabelFormat] = frozenset({"colours", "indices12"})
_PALETTE11: frozenset[LabelFormat] = frozenset({"colours", "indices11"})
_TABLES: dict[LabelFormat, LabelTable] = {
    "indices12": LabelTable.of(range(12), _CLASS_OF_COLOUR),
    "indices11": LabelTable.of(
        [*range(12), IGNORE],
        [(colour, index - 1 if index else _VOID11) for colour, index in _CLASS_OF_COLOUR]
        + [((0, 0, 0), IGNORE)],
    ),
}


def find_label_format(files: Sequence[SourceFile]) -> LabelFormat:
    """Tells which form label files have.

    Args:
        files: all label files of a data set, in a fixed order.

    Raises:
        WrongSourceError: they are of different kinds, or the indices can be read either way.
        UserError: a file cannot be read.
    """
    samples = [LabelPicture.read(file) for file in files[:: max(1, len(files) // _SAMPLE)]]
    found = {_possible_forms(sample): sample.file for sample in samples}
    if _PALETTE11 in found and _PALETTE12 in found and _COLOURS not in found:
        raise WrongSourceError(
            f"The palettes of {found[_PALETTE11]} (11 classes) and {found[_PALETTE12]} (12) "
            "differ: expected one form of labels. If all palettes show the right colours, say "
            "--label-format=colours."
        )
    possible = frozenset(LABEL_FORMATS).intersection(*found)
    if not possible:
        raise WrongSourceError(
            f"Labels are colours in {found[_COLOURS]} and indices in {found[_INDICES]}: expected "
            "one kind. Remove the files of the other."
        )
    if possible == _INDICES:
        return _form_by_road(samples)
    return next(iter(possible & _INDICES), "colours")


@dataclass(frozen=True)
class CamvidLabels:
    """A label file.

    Attributes:
        file: the picture.
        form: what it holds.
    """

    file: SourceFile
    form: LabelFormat

    @property
    def fingerprint(self) -> str:
        """Changes when the picture does, or how it is read."""
        return f"{self.file.fingerprint} {self.form}"

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """The 12 classes: uint8 HxW.

        Raises:
            UserError: the file cannot be read, or holds colours or indices that the form lacks.
        """
        if self.form == "colours":
            return colours_to_train_ids(picture.colours(), str(self.file))
        labels_HxW = read_values(picture, _TABLES[self.form])
        if self.form == "indices11":
            _check_indices11(labels_HxW, self.file)
            labels_HxW = np.where(labels_HxW < _VOID11, labels_HxW + 1, 0).astype(np.uint8)
        CAMVID.check(labels_HxW, str(self.file))
        return labels_HxW


def _possible_forms(picture: LabelPicture) -> frozenset[LabelFormat]:
    """The forms that agree with a picture's kind and its palette."""
    if picture.holds_colours:
        return _COLOURS
    used, shown = used_indices(picture.indices()), picture.shown
    values_of = {form: values_of_colours(used, shown, table) for form, table in _TABLES.items()}
    known = {form: values for form, values in values_of.items() if values is not None}
    if not known:
        return _INDICES
    agreeing = (form for form, values in known.items() if all(k == v for k, v in values.items()))
    return _COLOURS.union(agreeing)


def _form_by_road(pictures: Sequence[LabelPicture]) -> LabelFormat:
    counts_256 = np.zeros(256, np.int64)
    for picture in pictures:
        labels_HxW = picture.indices()
        lowest_third = labels_HxW[-(len(labels_HxW) // 3 or 1) :]
        if strange := [index for index in used_indices(labels_HxW) if 11 < index < IGNORE]:
            raise WrongSourceError(
                f"{picture.file} holds the index {strange[0]}, so that it is neither of CamVid's "
                "12 classes nor of 11. If its palette shows CamVid's 32 colours, say "
                "--label-format=colours; other indices have to be converted first."
            )
        counts_256 += np.bincount(lowest_third.ravel(), minlength=256)
    shares_256 = counts_256 / counts_256.sum()
    if_12, if_11 = shares_256[_ROAD], shares_256[_ROAD - 1]
    if max(if_12, if_11) < 0.2 or max(if_12, if_11) < 2 * min(if_12, if_11):
        raise WrongSourceError(
            f"It cannot be told whether the label indices, such as those in {pictures[0].file}, "
            "are of 12 classes (void first) or of 11 (sky first): of the lowest third of the "
            f"pictures, {if_12:.0%} would be road or {if_11:.0%}. Say --label-format=indices12 or "
            "--label-format=indices11."
        )
    return "indices12" if if_12 > if_11 else "indices11"


def _check_indices11(labels_HxW: np.ndarray, file: SourceFile) -> None:
    is_unknown_HxW = (labels_HxW > 11) & (labels_HxW < 255)
    if is_unknown_HxW.any():
        row, column = np.argwhere(is_unknown_HxW)[0]
        raise UserError(
            f"Label value {labels_HxW[row, column]} in {file} at row {row}, column {column} is "
            "out of range: expected 0..10, and 11 or 255 for void."
        )


class Camvid(DataSet):
    """CamVid as it was downloaded.

    Args:
        tree: where everything lies.
        frames_dir: where extracted frames are looked for and written to.
        label_format: what the label files hold; None: find out.
        report: called with lines for the user.
    """

    classes = CAMVID
    default_splits = SPLITS
    default_memory_range = 4  # as the published network has

    def __init__(
        self,
        tree: SourceTree,
        frames_dir: Path,
        label_format: LabelFormat | None = None,
        report: Callable[[str], object] = print,
    ) -> None:
        super().__init__(tree)
        self._frames_dir, self._label_format, self._report = frames_dir, label_format, report

    @classmethod
    def of_options(cls, options: argparse.Namespace) -> Self:
        """Opens the download that a command line names."""
        frames_dir = options.frames or Path(options.out, "frames")
        return cls(open_tree(options.source), frames_dir, options.label_format)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Where frames are, and what label files hold."""
        add = parser.add_argument
        add("--frames", type=Path, help="directory of extracted frames (OUT/frames)")
        add("--label-format", choices=LABEL_FORMATS, help="what label files hold (found out)")

    def find(self, splits: Sequence[str], options: Options) -> Mapping[str, FoundSplit]:
        """Finds the published clips of some splits, and extracts the frames that they need.

        Raises:
            WrongSourceError: something is missing or foreign, or labels can be read in two ways.
            UserError: a file is torn, or there is no such split.
        """
        names = {split: split_names(split) for split in splits}
        source = find_source(self.tree, ignored=self._frames_dir)
        label_files = [file for _, file in sorted(source.labels.items())]
        label_format = self._label_format or find_label_format(label_files)
        frames: Mapping[RawVideo, VideoFrames] = {}
        if options.memory_range:
            every_name = itertools.chain.from_iterable(names.values())
            wanted = _wanted_frames(every_name, options)
            frames = provide_frames(source, self._frames_dir, wanted)
        for of_video in frames.values():
            self._report(of_video.report)
        return {
            split: FoundSplit(
                [
                    LabelledVideo(
                        name=video.file,
                        frames=frames[video].files if video in frames else {},
                        queries=[_query(name, source, frames, label_format) for name in of_video],
                        largest_gap=max(options.reach, 1),
                    )
                    for video, of_video in itertools.groupby(of_split, lambda n: parse_name(n)[0])
                ]
            )
            for split, of_split in names.items()
        }


def _wanted_frames(names: Iterable[str], options: Options) -> Mapping[RawVideo, set[int]]:
    """Numbers of the frames that memory can reach; none before the first a video can have."""
    wanted: dict[RawVideo, set[int]] = {}
    for video, number in map(parse_name, names):
        wanted.setdefault(video, set()).update(range(max(number - options.reach, 0), number))
    return wanted


def _query(
    name: str,
    source: CamvidSource,
    frames: Mapping[RawVideo, VideoFrames],
    label_format: LabelFormat,
) -> Query | Unusable:
    video, number = parse_name(name)
    still, labels = source.stills.get(name), source.labels.get(name)
    if still is None:
        reason = f"Clip {name} has no still: expected {name}.png below the source."
        return Unusable(name, reason)
    if labels is None:
        reason = f"Clip {name} has no labels: expected {name}_L.png below the source."
        return Unusable(name, reason)
    if video in frames and (fault := frames[video].faults.get(number)) is not None:
        reason = f"The still {still} does not belong to {video.file}: {fault}."
        return Unusable(name, reason)
    return Query(name, number, still, CamvidLabels(labels, label_format))


main = command.main_of(Camvid, "data_prep.camvid", __doc__)


if __name__ == "__main__":
    sys.exit(main())
