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
"""

import argparse
import dataclasses
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from data_prep import preparation
from data_prep.cityscapes_labels import PRIVATE_FOLDER, LabelsFile, labels_by_name, labels_folder
from data_prep.clip_files import FilesClip
from data_prep.naming import parse_frame_name
from data_prep.preparation import Options, Summary
from data_prep.records.writer import PlannedClip, SplitPlan
from data_prep.source_tree import SourceFile, SourceTree
from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import CITYSCAPES, ROWS_OF_A_REPORT
from tmanet_jax.errors import UserError, ends_with_message

_SUFFIX = "_leftImg8bit.png"
_SEQUENCE = "leftImg8bit_sequence"
_UNLABELLED_SPLIT = "test"
_LARGEST_GAP = 30
"""A snippet has 30 frames: after a longer gap comes another one of the same city and sequence."""


class _Layout(NamedTuple):
    """Folders of the annotated frames and of their labels."""

    queries: str
    labels: str


_ANNOTATED = _Layout("leftImg8bit", "gtFine")
_EVERY_FRAME = _Layout(_SEQUENCE, "gtFine_sequence")


def prepare(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: Options = Options(),  # noqa: B008 (it is frozen)
    *,
    splits: Sequence[str] = ("train", "val"),
    every_frame: bool = False,
) -> Summary:
    """Writes the records of a tree in Cityscapes' layout, with a progress bar.

    Args:
        source: the tree.
        out: the data directory; records that it holds are replaced, unless something is wrong.
        options: how clips are made.
        splits: which of train, val and test.
        every_frame: annotated frames are those with labels in gtFine_sequence.

    Raises:
        UserError: something is missing, torn, of another size or out of range.
    """
    plans = find_clips(source, options, splits, every_frame)
    return preparation.prepare(out, CITYSCAPES, plans, options)


def find_clips(
    source: str | os.PathLike[str],
    options: Options,
    splits: Sequence[str],
    every_frame: bool,
    chosen_labels: str | None = None,
) -> dict[str, SplitPlan]:
    """The clips of some splits of a tree in Cityscapes' layout, in sorted order.

    Args:
        source: the tree.
        options: how clips are made.
        splits: which of train, val and test.
        every_frame: annotated frames are those with labels in gtFine_sequence.
        chosen_labels: gtFine or gtFine_19, where both are there.

    Raises:
        WrongSourceError: it cannot be told which labels are meant.
        UserError: a folder is missing, or a file of a clip, if such clips are not skipped.
    """
    tree = SourceTree(source)
    layout = _EVERY_FRAME if every_frame else _ANNOTATED
    chosen = None if every_frame else chosen_labels
    group_of = _read_groups(tree)
    plans = {}
    for split in splits:
        clips = list(_find_clips(tree, layout, split, group_of, options, chosen))
        notes = _places_without_frames(split, clips)
        plans[split] = SplitPlan(clips, split != _UNLABELLED_SPLIT, notes)
    if plans:
        every_clip = (clip for plan in plans.values() for clip in plan.clips)
        plan = plans[split]
        notes = [*plan.notes, *_groups_of_nothing(group_of, every_clip)]
        plans[split] = dataclasses.replace(plan, notes=notes)
    return plans


def _places_without_frames(split: str, clips: Sequence[PlannedClip]) -> list[str]:
    """A note that names the cities, and the snippets of other cities, that have no frames at all.

    Their queries stand in for the whole memory.
    """
    lacking = [
        clip.id
        for clip in clips
        if isinstance(clip, FilesClip) and clip.memory and {*clip.memory} == {clip.query}
    ]
    clips_of, lacking_of = (
        Counter(clip_id.partition("_")[0] for clip_id in ids)
        for ids in ([clip.id for clip in clips], lacking)
    )
    places = {
        city if lacking_of[city] == clips_of[city] else clip_id.rpartition("_")[0]
        for clip_id in lacking
        for city in [clip_id.partition("_")[0]]
    }
    if not places:
        return []
    return [
        f"Warning: {_SEQUENCE}/{split} has no frame of {preparation.named(sorted(places))}: "
        f"expected files NAME{_SUFFIX}."
    ]


def _find_clips(
    tree: SourceTree,
    layout: _Layout,
    split: str,
    group_of: Mapping[str, str],
    options: Options,
    chosen_labels: str | None,
) -> Iterator[PlannedClip]:
    cities = tree.folders(f"{layout.queries}/{split}")
    if not any(_frames(tree, f"{layout.queries}/{split}/{city}") for city in cities):
        raise UserError(
            f"No frames found: expected {tree.root / layout.queries / split}/CITY/NAME{_SUFFIX}, "
            f"or a zip file in {tree.root} that holds them. Is {tree.root} the directory that the "
            f"data set is in, and has it a split {split!r}?"
        )
    if options.memory_range and not tree.folders(f"{_SEQUENCE}/{split}"):
        raise UserError(
            f"{tree.root / _SEQUENCE / split} is missing: it holds the frames before each query. "
            f"Put {_SEQUENCE} there, unpacked or as zip files, or ask for --memory-range=0."
        )
    labelled = split != _UNLABELLED_SPLIT
    labels_in = labels_folder(tree, layout.labels, split, chosen_labels)
    for city in sorted({*cities, *(tree.folders(labels_in) if labelled else ())}):
        queries = _frames(tree, f"{layout.queries}/{split}/{city}")
        labels = labels_by_name(tree, f"{labels_in}/{city}") if labelled else None
        folder = _CityFolder(
            queries=queries,
            queries_at=f"{tree.root / layout.queries / split / city}",
            videos=_videos(_frames(tree, f"{_SEQUENCE}/{split}/{city}")),
            labels=labels,
            labels_at=f"{tree.root / labels_in / city}",
        )
        wanted = {*queries, *(labels or ())}
        if labels is not None and layout is _EVERY_FRAME:
            wanted = {*labels}
        for name in sorted(wanted):
            group = group_of.get(name, "")
            make = partial(_make_clip, name, group, folder, options)
            yield preparation.plan_clip(name, group, options, make)


_Video = dict[int, SourceFile]
"""The frames of a video by number, in ascending order."""


class _CityFolder(NamedTuple):
    """The files of a city, by the names of clips or videos."""

    queries: Mapping[str, SourceFile]
    queries_at: str
    videos: Mapping[str, _Video]
    labels: Mapping[str, LabelsFile] | None
    labels_at: str


def _make_clip(name: str, group: str, city: _CityFolder, options: Options) -> FilesClip:
    query = city.queries.get(name)
    if query is None:
        raise UserError(
            f"Clip {name} has labels but no frame: expected {city.queries_at}/{name}{_SUFFIX}."
        )
    labels = None
    if city.labels is not None:
        labels = city.labels.get(name)
        if labels is None:
            raise UserError(
                f"Clip {name} has no labels: expected {name}_gtFine_labelTrainIds.png or "
                f"{name}_gtFine_labelIds.png in {city.labels_at}."
            )
    parsed = parse_frame_name(name)
    video = city.videos.get(parsed.before, {})
    memory = preparation.find_memory(parsed.number, list(video), options, _LARGEST_GAP)
    missing = [f"{parsed.at(number)}{_SUFFIX}" for number in memory.missing]
    preparation.check_missing(name, missing, options)
    return FilesClip(
        id=name,
        group=group,
        query=query,
        memory=tuple(video.get(number, query) for number in memory.numbers),
        stand_ins=len(missing),
        labels=labels,
    )


def _frames(tree: SourceTree, folder: str) -> dict[str, SourceFile]:
    """The frames in a folder by name, e.g. 'aachen_000000_000019'."""
    return {
        name[: -len(_SUFFIX)]: file
        for name, file in tree.files(folder).items()
        if name.lower().endswith(_SUFFIX.lower())
    }


def _videos(frames: Mapping[str, SourceFile]) -> dict[str, _Video]:
    """Frames by what stands before the number in their names, and by the number."""
    videos: defaultdict[str, _Video] = defaultdict(dict)
    for name, file in frames.items():
        parsed = parse_frame_name(name)
        videos[parsed.before][parsed.number] = file
    return {before: dict(sorted(video.items())) for before, video in videos.items()}


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


def _groups_of_nothing(group_of: Mapping[str, str], clips: Iterable[PlannedClip]) -> list[str]:
    """A note that names what groups.json says of clips that are not there."""
    unknown = sorted(group_of.keys() - {clip.id for clip in clips})
    if not unknown:
        return []
    return [
        f"Warning: groups.json names {preparation.named(unknown)}: no such clip is prepared, so "
        "that this says nothing."
    ]


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.cityscapes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--every-frame", action="store_true", help="all frames with labels in gtFine_sequence")
    add(
        "--labels",
        choices=(_ANNOTATED.labels, PRIVATE_FOLDER),
        help="which folder of labels is meant, if both are there",
    )
    preparation.add_arguments(parser, splits="train,val")
    parsed = parser.parse_args(arguments)
    return preparation.run(
        parsed,
        CITYSCAPES,
        partial(
            find_clips,
            parsed.source,
            every_frame=parsed.every_frame,
            chosen_labels=parsed.labels,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
