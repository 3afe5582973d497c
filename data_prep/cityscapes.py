"""Makes clip records from Cityscapes, or anything else in its layout.

    python -m data_prep.cityscapes --source=DIR --out=DIR

reads, below the source, unpacked or in the zip files that the site gives,

    leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png             the annotated frames
    leftImg8bit_sequence/SPLIT/CITY/NAME_leftImg8bit.png    the frames around them
    gtFine/SPLIT/CITY/NAME_gtFine_labelTrainIds.png         their labels as train ids, or else
    gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png              as label ids, which are converted, or
    gtFine_19/SPLIT/CITY/NAME_gtFine_labelIds.png           as train ids, in spite of the name
                                                            (--labels: which, if both are there)
    groups.json                                             optional: {"clean": [NAME, ...], ...}

where NAME is e.g. aachen_000000_000019. The test split has no labels. With --every-frame the
annotated frames are all those of leftImg8bit_sequence that have labels in gtFine_sequence. In place
of a missing frame comes the nearest earlier one of its snippet, or else the snippet's first.

The site's labelIds hold label ids 0..33; cityscapesscripts makes labelTrainIds of them, which hold
train ids. Both may lie in one folder, even for different clips: their names tell them apart. The
original TMANet reads a folder gtFine_19 whose files are called labelIds but hold train ids. If both
folders are there, or values are not those that a name promises, that is refused.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, Self

import numpy as np

from data_prep import command
from data_prep.data_set import (
    UNLABELLED_SPLIT,
    DataSet,
    FoundSplit,
    LabelledVideo,
    Options,
    Query,
    Unusable,
)
from data_prep.labels import LabelPicture, LabelTable, read_values
from data_prep.naming import parse_frame_name
from data_prep.source import SourceFile, SourceTree, WrongSourceError
from data_prep.stored_source import open_tree
from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import (
    CITYSCAPES,
    CITYSCAPES_TRAIN_ID_OF_LABEL_ID,
    IGNORE,
    ROWS_OF_A_REPORT,
    CITYSCAPES_LABEL_PALETTE_35x3,
    label_ids_to_train_ids,
)
from tmanet_jax.errors import UserError, abridged

_SUFFIX = "_leftImg8bit.png"
_QUERIES, _SEQUENCE = "leftImg8bit", "leftImg8bit_sequence"
_LABELS, _PRIVATE_LABELS = "gtFine", "gtFine_19"
_LARGEST_GAP = 30
"""A snippet has 30 frames: after a longer gap comes another one of the same city and sequence."""

_TRAIN_IDS, _LABEL_IDS = "labelTrainIds", "labelIds"

_LABEL_ID_TABLE = LabelTable.of(
    range(34), zip(CITYSCAPES_LABEL_PALETTE_35x3, range(34), strict=False)
)
_TRAIN_ID_TABLE = LabelTable.of(
    [*range(CITYSCAPES.num_classes), IGNORE],
    (
        (colour, int(CITYSCAPES_TRAIN_ID_OF_LABEL_ID[label_id]))
        for colour, label_ids in _LABEL_ID_TABLE.colours.items()
        for label_id in label_ids
    ),
)


class CityscapesLabels(NamedTuple):
    """A file of labels.

    Attributes:
        file: the file.
        are_train_ids: what it holds: train ids, or label ids.
    """

    file: SourceFile
    are_train_ids: bool

    @property
    def fingerprint(self) -> str:
        """Changes when the file does, or what it is taken for."""
        return f"{self.file.fingerprint} {'train' if self.are_train_ids else 'label'} ids"

    def train_ids(self, picture: LabelPicture) -> np.ndarray:
        """Train ids: uint8 HxW.

        Raises:
            WrongSourceError: the values are of the other kind, so that all such files are in doubt.
            UserError: the file is torn, or holds something else.
        """
        values_HxW = read_values(
            picture, _TRAIN_ID_TABLE if self.are_train_ids else _LABEL_ID_TABLE
        )
        called_label_ids = f"_{_LABEL_IDS}." in self.file.name
        if self.are_train_ids and called_label_ids:
            _refuse_label_ids(values_HxW, self.file)
        if self.are_train_ids:
            CITYSCAPES.check(values_HxW, str(self.file))
            return values_HxW
        if np.any(values_HxW == IGNORE):
            raise WrongSourceError(
                f"{self.file} is called labelIds but holds the value {IGNORE}, which only train "
                "ids have. If all files there are of the original TMANet's kind, rename their "
                f"folder to {_PRIVATE_LABELS}; if only some are, get gtFine again."
            )
        return label_ids_to_train_ids(values_HxW, str(self.file))


class Cityscapes(DataSet):
    """A tree in Cityscapes' layout.

    Args:
        tree: the tree.
        every_frame: queries are the frames with labels in gtFine_sequence.
        chosen_labels: gtFine or gtFine_19, where both are there.
    """

    classes = CITYSCAPES

    def __init__(
        self, tree: SourceTree, every_frame: bool = False, chosen_labels: str | None = None
    ) -> None:
        super().__init__(tree)
        self._every_frame = every_frame
        self._queries = _SEQUENCE if every_frame else _QUERIES
        self._labels = f"{_LABELS}_sequence" if every_frame else chosen_labels

    @classmethod
    def of_options(cls, options: argparse.Namespace) -> Self:
        """Opens the tree that a command line names."""
        return cls(open_tree(options.source), options.every_frame, options.labels)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Which frames are queries, and which labels are meant."""
        add = parser.add_argument
        add("--every-frame", action="store_true", help="all frames with labels in gtFine_sequence")
        add(
            "--labels",
            choices=(_LABELS, _PRIVATE_LABELS),
            help="which folder of labels is meant, if both are there",
        )

    def find(self, splits: Sequence[str], options: Options) -> Mapping[str, FoundSplit]:
        """The snippets of some splits, in the order of their names.

        Raises:
            WrongSourceError: it cannot be told which labels are meant.
            UserError: a folder is missing.
        """
        group_of = _read_groups(self.tree)
        videos = {split: list(self._videos(split, group_of, options)) for split in splits}
        notes = {split: _places_without_frames(split, videos[split], options) for split in splits}
        if splits:
            ids = {query.id for found in videos.values() for v in found for query in v.queries}
            notes[splits[-1]] += _groups_of_nothing(group_of.keys() - ids)
        return {
            split: FoundSplit(videos[split], split != UNLABELLED_SPLIT, notes[split])
            for split in splits
        }

    def _videos(
        self, split: str, group_of: Mapping[str, str], options: Options
    ) -> Iterator[LabelledVideo]:
        tree, queries_in = self.tree, f"{self._queries}/{split}"
        cities = tree.folders(queries_in)
        self._check_folders(split, cities, options)
        labelled = split != UNLABELLED_SPLIT
        labels_in = f"{self._labels}/{split}" if self._labels else _labels_folder(tree, split)
        for city in sorted({*cities, *(tree.folders(labels_in) if labelled else ())}):
            folder = _CityFolder(
                queries=_frames(tree, f"{queries_in}/{city}"),
                queries_at=f"{tree.root / queries_in / city}",
                labels=_labels_by_name(tree, f"{labels_in}/{city}") if labelled else None,
                labels_at=f"{tree.root / labels_in / city}",
            )
            wanted = {*folder.queries, *(folder.labels or ())}
            if labelled and self._every_frame:
                wanted = {*(folder.labels or ())}
            numbered = _by_number(_frames(tree, f"{_SEQUENCE}/{split}/{city}"))
            for snippet, names in groupby(sorted(wanted), _snippet_of):
                queries = [folder.query(name, group_of.get(name, "")) for name in names]
                name_of = partial(_name_of, queries[0].id)
                frames = numbered.get(snippet, {})
                yield LabelledVideo(snippet.rstrip("_"), frames, queries, name_of, _LARGEST_GAP)

    def _check_folders(self, split: str, cities: Sequence[str], options: Options) -> None:
        """Raises UserError unless there are queries, and frames before them if they are needed."""
        tree, queries_in = self.tree, f"{self._queries}/{split}"
        if not any(_frames(tree, f"{queries_in}/{city}") for city in cities):
            only = tree.other_splits(split, f"{self._queries}/{{}}")
            raise UserError(
                f"No frames found: expected {tree.root / queries_in}/CITY/NAME{_SUFFIX}, or a zip "
                f"file in {tree.root} that holds them. Is {tree.root} the directory that the data "
                f"set is in, and has it a split {split!r}?{only}"
            )
        if options.memory_range and not tree.folders(f"{_SEQUENCE}/{split}"):
            raise UserError(
                f"{tree.root / _SEQUENCE / split} is missing: it holds the frames before each "
                f"query. Put {_SEQUENCE} there, unpacked or as zip files, or ask for "
                "--memory-range=0."
            )


class _CityFolder(NamedTuple):
    """The annotated frames of a city, by the names of clips."""

    queries: Mapping[str, SourceFile]
    queries_at: str
    labels: Mapping[str, CityscapesLabels] | None
    labels_at: str

    def query(self, name: str, group: str) -> Query | Unusable:
        """A clip's query."""
        frame, labels = self.queries.get(name), (self.labels or {}).get(name)
        if frame is None:
            return Unusable(
                name,
                f"Clip {name} has labels but no frame: expected {self.queries_at}/{name}{_SUFFIX}.",
            )
        if self.labels is not None and labels is None:
            return Unusable(
                name,
                f"Clip {name} has no labels: expected {name}_gtFine_labelTrainIds.png or "
                f"{name}_gtFine_labelIds.png in {self.labels_at}.",
            )
        try:
            return Query(name, parse_frame_name(name).number, frame, labels, group)
        except UserError as error:
            return Unusable(name, str(error))


def _snippet_of(name: str) -> str:
    """What the names of all frames of a snippet begin with."""
    try:
        return parse_frame_name(name).before
    except UserError:  # told when it is made a query
        return name


def _name_of(name: str, number: int) -> str:
    """The file of another frame of the snippet."""
    return f"{parse_frame_name(name).at(number)}{_SUFFIX}"


def _places_without_frames(
    split: str, videos: Sequence[LabelledVideo], options: Options
) -> list[str]:
    """A note that names the cities, and the snippets of other cities, that have no frames at all.

    Their queries stand in for the whole memory.
    """
    if not options.memory_range or options.missing == "error":
        return []
    clips_of = Counter(_city(query.id) for video in videos for query in video.queries)
    lacking = [
        query.id
        for video in videos
        for query in video.queries
        if isinstance(query, Query) and not _has_memory(query, video)
    ]
    lacking_of = Counter(map(_city, lacking))
    places = {
        city if lacking_of[city] == clips_of[city] else clip_id.rpartition("_")[0]
        for clip_id in lacking
        for city in [_city(clip_id)]
    }
    if not places:
        return []
    return [
        f"Warning: {_SEQUENCE}/{split} has no frame of {abridged(sorted(places), 8)}: "
        f"expected files NAME{_SUFFIX}."
    ]


def _city(clip_id: str) -> str:
    return clip_id.partition("_")[0]


def _has_memory(query: Query, video: LabelledVideo) -> bool:
    """Whether the query itself or a frame before it is among the video's frames."""
    return any(0 <= query.number - number <= _LARGEST_GAP for number in video.frames)


def _frames(tree: SourceTree, folder: str) -> dict[str, SourceFile]:
    """The frames in a folder by name, e.g. 'aachen_000000_000019'."""
    return {
        name[: -len(_SUFFIX)]: file
        for name, file in tree.files(folder).items()
        if name.lower().endswith(_SUFFIX.lower())
    }


def _by_number(frames: Mapping[str, SourceFile]) -> Mapping[str, Mapping[int, SourceFile]]:
    """Frames by what stands before the number in their names, and by the number."""
    videos: defaultdict[str, dict[int, SourceFile]] = defaultdict(dict)
    for name, file in frames.items():
        parsed = parse_frame_name(name)
        videos[parsed.before][parsed.number] = file
    return videos


def _labels_folder(tree: SourceTree, split: str) -> str:
    """The folder of a split's labels; raises WrongSourceError if there are two."""
    if not tree.folders(f"{_PRIVATE_LABELS}/{split}"):
        return f"{_LABELS}/{split}"
    if tree.folders(f"{_LABELS}/{split}"):
        raise WrongSourceError(
            f"{tree.root} has labels in gtFine and in {_PRIVATE_LABELS}, and files of the same "
            f"name mean different classes there. Say which: --labels=gtFine or {_PRIVATE_LABELS}."
        )
    return f"{_PRIVATE_LABELS}/{split}"


def _labels_by_name(tree: SourceTree, folder: str) -> Mapping[str, CityscapesLabels]:
    """The labels in a folder by clip, e.g. 'aachen_000000_000019'; files of train ids go first."""
    are_train_ids = folder.startswith(f"{_PRIVATE_LABELS}/")
    labels: dict[str, CityscapesLabels] = {}
    for name, file in tree.files(folder).items():
        stem, dot, extension = name.rpartition(".")
        clip, _, kind = stem.rpartition("_gtFine_")
        if f"{dot}{extension}".lower() != ".png":
            continue
        if kind == _TRAIN_IDS:
            labels[clip] = CityscapesLabels(file, True)
        elif kind == _LABEL_IDS:
            labels.setdefault(clip, CityscapesLabels(file, are_train_ids))
    return labels


def _refuse_label_ids(values_HxW: np.ndarray, file: SourceFile) -> None:
    is_label_id_HxW = (values_HxW >= CITYSCAPES.num_classes) & (values_HxW < 34)
    if is_label_id_HxW.any():
        raise WrongSourceError(
            f"{file} holds the value {values_HxW[is_label_id_HxW][0]}, which is a label id, but "
            f"files in {_PRIVATE_LABELS} hold train ids, 0..18 and {IGNORE}. If all files there "
            "hold label ids, rename the folder to gtFine."
        )


def _read_groups(tree: SourceTree) -> Mapping[str, str]:
    """The group of each clip that has one."""
    file = tree.files("").get("groups.json")
    if file is None:
        return {}
    try:
        groups = strict_json.decode(
            dict[str, tuple[str, ...]], strict_json.parse(file.read_bytes(), "it"), "it"
        )
    except UserError as error:
        raise UserError(
            f'{file} cannot be read ({error}): expected {{"GROUP": ["NAME", ...], ...}}.'
        ) from error
    for name in ("", *ROWS_OF_A_REPORT):
        if name in groups:
            raise UserError(
                f"{file} has a group called {name!r}, which a report's other rows are called: "
                "give it another name."
            )
    return {name: group for group, names in groups.items() for name in names}


def _groups_of_nothing(unknown: Iterable[str]) -> list[str]:
    """A note that names what groups.json says of clips that are not there."""
    names = sorted(unknown)
    if not names:
        return []
    return [
        f"Warning: groups.json names {abridged(names, 8)}: no such clip is prepared, so that this "
        "says nothing."
    ]


main = command.main_of(Cityscapes, "data_prep.cityscapes", __doc__)


if __name__ == "__main__":
    sys.exit(main())
