"""CamVid's videos, stills and labels: how they are named and split, and where they were unpacked.

Files are known by their names; folders count only where a name occurs twice, or to tell frames that
were extracted (`images_sequence`, `image_sequence`) and label pictures of the same name (`labels`,
`trainannot`, ...) from the published stills.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from data_prep.source import SourceFile, SourceTree, UnpackedFile, WrongSourceError
from tmanet_jax.data.frame_records import BUILDER_NAME
from tmanet_jax.errors import UserError

_SEQUENCES = {"images_sequence", "image_sequence"}
_STILLS = "701_stillsraw_full"
_LABELS = "labeledapproved_full"
_PICTURES = (".png", ".jpg", ".jpeg")
_EXAMPLE = "0001TP_006690"


@dataclass(frozen=True)
class RawVideo:
    """One of the raw videos.

    Attributes:
        file: its name as downloaded.
        prefix: of its frames' names, before the number.
        digits: of the number.
    """

    file: str
    prefix: str
    digits: int

    def frame_name(self, number: int) -> str:
        """Name of a frame, without extension; raises ValueError for numbers before 0."""
        if number < 0:
            raise ValueError(f"frame {number} of {self.file}")
        return f"{self.prefix}{number:0{self.digits}d}"


SEQ05 = RawVideo("0005VD.MXF", "Seq05VD_f", 5)
SEQ06 = RawVideo("0006R0.MXF", "0006R0_f", 5)
SEQ16 = RawVideo("0016E5.MXF", "0016E5_", 5)
SEQ01 = RawVideo("01TP_extract.avi", "0001TP_", 6)
VIDEOS = (SEQ05, SEQ06, SEQ16, SEQ01)

_SPLITS: Mapping[str, tuple[tuple[RawVideo, range], ...]] = {
    "train": (
        (SEQ01, range(6690, 8521, 30)),
        (SEQ06, range(930, 3931, 30)),
        (SEQ16, range(390, 900, 30)),
        (SEQ16, range(901, 902)),  # 900 is not labelled
        (SEQ16, range(930, 2401, 30)),
        (SEQ16, range(4350, 7921, 30)),
        (SEQ16, range(8190, 8641, 30)),
    ),
    "val": ((SEQ16, range(7959, 8160, 2)),),
    "test": (
        (SEQ01, range(8550, 10381, 30)),
        (SEQ05, range(30, 5101, 30)),
    ),
}

SPLITS = tuple(_SPLITS)
"""Names of the published splits: 367, 101 and 232 clips."""


def split_names(split: str) -> list[str]:
    """Names of a split's labelled frames, in order; raises UserError if there is no such split."""
    if split not in _SPLITS:
        raise UserError(f"CamVid has no split {split!r}: expected one of {', '.join(SPLITS)}.")
    return sorted(
        video.frame_name(number) for video, numbers in _SPLITS[split] for number in numbers
    )


def parse_name(name: str) -> tuple[RawVideo, int]:
    """The video and the number of a frame's name; raises UserError on any other name."""
    for video in VIDEOS:
        if match := re.fullmatch(rf"{video.prefix}(\d{{{video.digits}}})", name):
            return video, int(match[1])
    raise UserError(f"{name!r} is no frame of CamVid: expected a name such as 'Seq05VD_f00030'.")


@dataclass(frozen=True)
class CamvidSource:
    """What was found.

    Attributes:
        root: the directory that was searched.
        videos: the raw videos.
        stills: the published stills by name.
        labels: their labels by the still's name.
        frames: frames that were extracted already, by name.
    """

    root: Path
    videos: Mapping[RawVideo, Path]
    stills: Mapping[str, SourceFile]
    labels: Mapping[str, SourceFile]
    frames: Mapping[str, SourceFile]


def find_source(tree: SourceTree, ignored: Path) -> CamvidSource:
    """Searches a directory, and the zip files in it.

    Args:
        tree: the directory.
        ignored: a directory that does not count, if it lies below.

    Raises:
        WrongSourceError: there are no stills or labels, or a name occurs twice.
        UserError: something cannot be read.
    """
    found: dict[str, dict[str, list[tuple[str, SourceFile]]]] = {
        kind: defaultdict(list) for kind in ("video", "still", "label", "frame")
    }
    for folder in _folders(tree, "", {ignored.resolve()}):
        for file in tree.files(folder).values():
            if (known := _recognise(folder, file.name)) is not None:
                kind, name = known
                found[kind][name].append((folder, file))
    for kind, wanted in (
        ("still", f"701_StillsRaw_full/{_EXAMPLE}.png"),
        ("label", f"LabeledApproved_full/{_EXAMPLE}_L.png"),
    ):
        if not found[kind]:
            raise WrongSourceError(
                f"No {kind} of CamVid lies below {tree.root}: expected files such as {wanted}, in "
                "any folder. Is it the directory that the data set was unpacked to?"
            )
    return CamvidSource(
        root=tree.root,
        videos={
            video: _unpacked(_only(video.file, found["video"][video.file], ""))
            for video in VIDEOS
            if video.file in found["video"]
        },
        stills={name: _only(name, files, _STILLS) for name, files in found["still"].items()},
        labels={name: _only(name, files, _LABELS) for name, files in found["label"].items()},
        frames={name: files[0][1] for name, files in found["frame"].items()},
    )


def _folders(tree: SourceTree, folder: str, left_out: Set[Path]) -> Iterator[str]:
    """A folder and all below it, in sorted order; a link back to a folder above is not followed."""
    path = Path(tree.root / folder).resolve()
    if path in left_out:
        return
    yield folder
    for name in tree.folders(folder):
        if name != BUILDER_NAME:
            below = f"{folder}/{name}" if folder else name
            yield from _folders(tree, below, {*left_out, path})


def _recognise(folder: str, file_name: str) -> tuple[str, str] | None:
    """What a file is (video, still, label, frame), and its video's or still's name."""
    for video in VIDEOS:
        if file_name.lower() == video.file.lower():
            return "video", video.file
    stem, dot, extension = file_name.rpartition(".")
    if f"{dot}{extension}".lower() not in _PICTURES:
        return None
    is_label = stem.endswith("_L")
    name = stem.removesuffix("_L")
    try:
        parse_name(name)
    except UserError:
        return None
    parts = folder.lower().split("/")
    if is_label or parts[-1] == "labels" or parts[-1].endswith("annot"):
        return "label", name
    return ("frame" if _SEQUENCES.intersection(parts) else "still"), name


def _only(name: str, files: list[tuple[str, SourceFile]], published: str) -> SourceFile:
    """The one file of a name; of several, the one in the folder that it was published in."""
    if len(files) > 1:
        files = [item for item in files if published in item[0].lower().split("/")] or files
    if len(files) > 1:
        raise WrongSourceError(
            f"{name} is both {files[0][1]} and {files[1][1]}: which is meant? Move one of them out "
            "of the source."
        )
    return files[0][1]


def _unpacked(file: SourceFile) -> Path:
    if isinstance(file, UnpackedFile):
        return file.path
    raise WrongSourceError(f"The video {file} lies in a zip file: unpack it.")
