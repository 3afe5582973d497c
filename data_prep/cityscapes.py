"""Makes clip records from Cityscapes, or anything else in its layout.

    python -m data_prep.cityscapes --source=DIR --out=DIR

reads, below the source,

    leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png             the annotated frames
    leftImg8bit_sequence/SPLIT/CITY/NAME_leftImg8bit.png    the frames around them
    gtFine/SPLIT/CITY/NAME_gtFine_labelTrainIds.png         their labels as train ids, or else
    gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png              as label ids, which are converted, or
    gtFine_19/SPLIT/CITY/NAME_gtFine_labelIds.png           as train ids, in spite of the name
    groups.json                                             optional: {"clean": [NAME, ...], ...}

where NAME is e.g. aachen_000000_000019. The test split has no labels.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.naming import memory_names
from data_prep.pictures import read_frame, read_indices
from tmanet_jax.data.classes import CITYSCAPES, label_ids_to_train_ids
from tmanet_jax.data.record_writer import SplitPlan, write_records
from tmanet_jax.data.records import Clip
from tmanet_jax.errors import UserError, ends_with_message

_FRAME_SUFFIX = "_leftImg8bit.png"
_UNLABELLED_SPLIT = "test"


@dataclass(frozen=True)
class Summary:
    """What a preparation did.

    Attributes:
        clips: number of clips written.
        frames: number of frames in them.
        stand_ins: how many of those stand in for frames that are missing.
        num_bytes: size of the records.
    """

    clips: int
    frames: int
    stand_ins: int
    num_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.clips} clips, {self.frames} frames ({self.stand_ins} of them standing in for "
            f"missing ones), {self.num_bytes / 1e6:.1f} MB"
        )


@dataclass(frozen=True)
class CityscapesClip:
    """The files of a clip.

    Attributes:
        id: e.g. 'aachen_000000_000019'.
        group: '' or its group of groups.json.
        query: the annotated frame.
        memory: the frames before it, oldest first; stand-ins where one is missing.
        stand_ins: how many of the memory frames are stand-ins.
        labels: file of its labels; None in a split without.
        labels_are_train_ids: what the labels file holds: train ids, or label ids.
    """

    id: str
    group: str
    query: Path
    memory: tuple[Path, ...]
    stand_ins: int
    labels: Path | None
    labels_are_train_ids: bool

    def load(self) -> Clip:
        """Reads the files; raises UserError if they are torn or do not go together."""
        frames = [read_frame(path) for path in (*self.memory, self.query)]
        size = frames[-1].shape[:2]
        for path, frame_HxWx3 in zip(self.memory, frames, strict=False):
            _check_size(frame_HxWx3, path, size, self.query)
        labels_HxW = self._load_labels(size)
        return Clip(self.id, self.group, np.stack(frames), labels_HxW)

    def _load_labels(self, size: tuple[int, int]) -> np.ndarray:
        if self.labels is None:
            return np.full(size, CITYSCAPES.ignore, np.uint8)
        labels_HxW = read_indices(self.labels)
        _check_size(labels_HxW, self.labels, size, self.query)
        if self.labels_are_train_ids:
            CITYSCAPES.check(labels_HxW, str(self.labels))
            return labels_HxW
        return label_ids_to_train_ids(labels_HxW, str(self.labels))


def prepare(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    memory_range: int = 2,
    splits: Sequence[str] = ("train", "val"),
) -> Summary:
    """Writes the records of a tree in Cityscapes' layout, with a progress bar.

    Args:
        source: the tree.
        out: the data directory; records that it holds are replaced, unless something is wrong.
        memory_range: number of frames kept before each query.
        splits: directories of leftImg8bit to read.

    Raises:
        UserError: something is missing, torn, of another size or out of range; nothing is written.
    """
    if memory_range < 0:
        raise UserError(f"The memory range is {memory_range}; it must be 0 or more.")
    source = Path(source)
    group_of = _read_groups(source / "groups.json")
    found = {split: _find_clips(source, split, memory_range, group_of) for split in splits}
    plans = {
        split: SplitPlan(clips, labelled=split != _UNLABELLED_SPLIT)
        for split, clips in found.items()
    }
    clips = [clip for clips in found.values() for clip in clips]
    with tqdm(total=len(clips), unit="clip", desc="Preparing") as progress:
        num_bytes = write_records(out, CITYSCAPES, memory_range, plans, progress.update)
    return Summary(
        clips=len(clips),
        frames=len(clips) * (memory_range + 1),
        stand_ins=sum(clip.stand_ins for clip in clips),
        num_bytes=num_bytes,
    )


def _find_clips(
    source: Path, split: str, memory_range: int, group_of: Mapping[str, str]
) -> list[CityscapesClip]:
    directory = source / "leftImg8bit" / split
    queries = sorted(directory.glob(f"*/*{_FRAME_SUFFIX}"))
    if not queries:
        raise UserError(
            f"No frames found: expected {directory}/CITY/NAME{_FRAME_SUFFIX}. Is {source} the "
            f"directory that the data set was unpacked to, and has it a split {split!r}?"
        )
    sequences = source / "leftImg8bit_sequence" / split
    if memory_range and not sequences.is_dir():
        raise UserError(
            f"{sequences} is missing: it holds the frames before each query. Unpack "
            "leftImg8bit_sequence there, or ask for --memory-range=0."
        )
    clips = []
    for query in queries:
        name = query.name.removesuffix(_FRAME_SUFFIX)
        memory, stand_ins = _find_memory(sequences / query.parent.name, query, memory_range)
        if split == _UNLABELLED_SPLIT:
            labels, are_train_ids = None, False
        else:
            labels, are_train_ids = _find_labels(source, split, query.parent.name, name)
        clips.append(
            CityscapesClip(
                id=name,
                group=group_of.get(name, ""),
                query=query,
                memory=memory,
                stand_ins=stand_ins,
                labels=labels,
                labels_are_train_ids=are_train_ids,
            )
        )
    return clips


def _find_memory(sequence: Path, query: Path, memory_range: int) -> tuple[tuple[Path, ...], int]:
    """The frames before the query, oldest first, and how many of them are stand-ins.

    The nearest earlier frame within the range stands in for one that is missing; the query does
    if there is none.
    """
    memory: list[Path] = []
    stand_ins = 0
    nearest = query
    for name in memory_names(query.name, range(memory_range, 0, -1)):
        if (sequence / name).exists():
            nearest = sequence / name
        else:
            stand_ins += 1
        memory.append(nearest)
    return tuple(memory), stand_ins


def _find_labels(source: Path, split: str, city: str, name: str) -> tuple[Path, bool]:
    """The labels file of a clip, and whether it holds train ids."""
    candidates = (
        ("gtFine", "labelTrainIds", True),
        ("gtFine", "labelIds", False),
        ("gtFine_19", "labelIds", True),
    )
    for directory, kind, are_train_ids in candidates:
        path = source / directory / split / city / f"{name}_gtFine_{kind}.png"
        if path.exists():
            return path, are_train_ids
    raise UserError(
        f"Clip {name} has no labels: expected {name}_gtFine_labelTrainIds.png or "
        f"{name}_gtFine_labelIds.png in {source / 'gtFine' / split / city}."
    )


def _read_groups(path: Path) -> Mapping[str, str]:
    """The group of each clip that has one."""
    if not path.exists():
        return {}
    try:
        groups = json.loads(path.read_text())
        return {name: group for group, names in groups.items() for name in names}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f'{path} cannot be read ({error}): expected {{"GROUP": ["NAME", ...], ...}}.'
        ) from error


def _check_size(picture_HxW: np.ndarray, path: Path, size: tuple[int, int], query: Path) -> None:
    height, width = picture_HxW.shape[:2]
    if (height, width) != size:
        raise UserError(
            f"{path} is {height}x{width} pixels (height x width), but its query {query} is "
            f"{size[0]}x{size[1]}: all pictures of a clip must have the same size."
        )


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.cityscapes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", required=True, help="directory that holds leftImg8bit and the others")
    add("--out", required=True, help="data directory to write the records to")
    add("--memory-range", type=int, default=2, help="number of frames kept before each query (2)")
    add("--splits", default="train,val", help="which of train, val and test (train,val)")
    options = parser.parse_args(arguments)
    summary = prepare(
        options.source,
        options.out,
        memory_range=options.memory_range,
        splits=options.splits.split(","),
    )
    print(f"Wrote to {options.out}: {summary}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
