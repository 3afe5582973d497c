"""What all preparations share: their options, the work with its progress bar, and the summary."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from data_prep.naming import memory_numbers
from data_prep.records.replacement import check_replaceable
from data_prep.records.writer import (
    PlannedClip,
    SplitPlan,
    Start,
    WrongSourceError,
    write_records,
)
from data_prep.stopping import stops_with
from data_prep.verification import verify
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.records import Clip, read_info
from tmanet_jax.data.records_info import RecordsInfo, label_doubts
from tmanet_jax.errors import UserError

_MOST_FRAMES = 1000
"""Of a memory range, and of a frame stride."""

FindClips = Callable[["Options", Sequence[str]], Mapping[str, SplitPlan]]
"""Finds the clips of some splits in a source."""


@dataclass(frozen=True)
class Options:
    """How clips are made.

    Attributes:
        memory_range: number of frames kept before each query.
        frame_stride: they lie so many frames, twice as many, ... before the query.
        missing: whether another frame stands in for a missing one, or that is an error.
        on_error: whether a clip that cannot be read ends the preparation or is left out.
    """

    memory_range: int = 2
    frame_stride: int = 1
    missing: Literal["stand-in", "error"] = "stand-in"
    on_error: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        if not 0 <= self.memory_range <= _MOST_FRAMES:
            raise UserError(f"The memory range is {self.memory_range}: use 0 to {_MOST_FRAMES}.")
        if not 1 <= self.frame_stride <= _MOST_FRAMES:
            raise UserError(f"The frame stride is {self.frame_stride}: use 1 to {_MOST_FRAMES}.")

    @property
    def memory_offsets(self) -> range:
        """How many frames before the query each memory frame lies, oldest first."""
        return range(self.memory_range * self.frame_stride, 0, -self.frame_stride)


@dataclass(frozen=True)
class MemoryFrames:
    """Which frames a clip takes as memory.

    Attributes:
        numbers: of the frames, oldest first; stand-ins where one is missing.
        missing: numbers of the frames that are missing; negative before the video begins.
    """

    numbers: tuple[int, ...]
    missing: tuple[int, ...]


def find_memory(
    query: int, existing: Sequence[int], options: Options, largest_gap: int | None = None
) -> MemoryFrames:
    """Which frames of a video a clip takes as memory; see `memory_numbers`."""
    wanted = [query - offset for offset in options.memory_offsets]
    numbers = memory_numbers(query, options.memory_offsets, existing, largest_gap)
    missing = (number for number, taken in zip(wanted, numbers, strict=True) if number != taken)
    return MemoryFrames(tuple(numbers), tuple(missing))


@dataclass(frozen=True)
class UnreadableClip:
    """A clip of which it is known beforehand that it cannot be loaded.

    Attributes:
        id: the clip's id.
        group: its group.
        reason: the message for the user.
    """

    id: str
    group: str
    reason: str
    stand_ins: int = 0

    @property
    def fingerprint(self) -> str:
        """The reason."""
        return self.reason

    def load(self) -> Clip:
        """Raises UserError."""
        raise UserError(self.reason)


def plan_clip(
    clip_id: str, group: str, options: Options, make: Callable[[], PlannedClip]
) -> PlannedClip:
    """Calls `make`; if it raises UserError and errors are skipped, the clip raises it at its turn.

    Raises:
        WrongSourceError: something is wrong with more than this clip.
        UserError: errors are not skipped.
    """
    try:
        return make()
    except WrongSourceError:
        raise
    except UserError as error:
        if options.on_error == "stop":
            raise
        return UnreadableClip(clip_id, group, str(error))


def check_missing(clip_id: str, names: Sequence[str], options: Options) -> None:
    """Raises UserError that names the clip and its missing frames, if that is an error."""
    if names and options.missing == "error":
        raise UserError(
            f"Clip {clip_id} has no {', '.join(names)}. Get the files, or let other frames stand "
            "in for them: --missing=stand-in."
        )


@dataclass(frozen=True)
class Summary:
    """What a preparation did.

    Attributes:
        info: the description of the records.
        num_bytes: their size.
    """

    info: RecordsInfo
    num_bytes: int

    @property
    def clips(self) -> int:
        """Number of clips written."""
        return sum(len(split.ids) for split in self.info.splits.values())

    @property
    def frames(self) -> int:
        """Number of frames in them."""
        return self.clips * (self.info.memory_range + 1)

    @property
    def stand_ins(self) -> int:
        """How many of the frames stand in for frames that are missing."""
        return sum(sum(split.stand_ins) for split in self.info.splits.values())

    @property
    def clips_with_stand_ins(self) -> int:
        """How many clips have such frames."""
        return sum(1 for split in self.info.splits.values() for count in split.stand_ins if count)

    def __str__(self) -> str:
        parts = [
            f"{self.clips} clips, {self.frames} frames ({self.stand_ins} of them standing in for "
            f"missing ones, in {self.clips_with_stand_ins} clips), {self.num_bytes / 1e6:.1f} MB"
        ]
        parts += self._frequencies()
        for name, split in self.info.splits.items():
            parts += label_doubts(name, split, self.info.classes, trains=name.startswith("train"))
        for name, split in self.info.splits.items():
            if split.skipped:
                parts.append(f"\nSkipped {len(split.skipped)} clips of {name}:")
                parts += [f"  {clip.id}: {clip.reason}" for clip in split.skipped]
        return "\n".join(parts)

    def _frequencies(self) -> list[str]:
        """How much of each split's pixels each class has: the lines of a table."""
        splits = {name: split for name, split in self.info.splits.items() if split.labelled}
        if not splits:
            return []
        names = [*self.info.classes.names, "(ignored)"]
        width = max(map(len, names))
        lines = [f"\n{'share of pixels':{width}}" + "".join(f"{name:>10}" for name in splits)]
        pixels = [np.array([*s.class_pixels, s.ignored_pixels]) for s in splits.values()]
        for index, name in enumerate(names):
            shares = (f"{pixels_C[index] / pixels_C.sum():10.3%}" for pixels_C in pixels)
            lines.append(f"{name:{width}}" + "".join(shares))
        return lines


def prepare(
    out: str | os.PathLike[str],
    classes: ClassSet,
    plans: Mapping[str, SplitPlan],
    options: Options,
    *,
    replace: bool = False,
) -> Summary:
    """Writes records on all cores, with a progress bar; goes on where an earlier call stopped.

    Args:
        out: the data directory; records that it holds are replaced, unless something is wrong.
        classes: the data set's classes.
        plans: the splits by name; empty splits are left out.
        options: those that the clips were planned with.
        replace: whether records of another data set, or of other options, may be replaced.

    Raises:
        UserError: something is missing, torn, of another size or out of range. Whole shards stay,
            for the next call; records that were there stay.
    """
    for name, plan in plans.items():
        print(*plan.notes, sep="\n", end="\n" if plan.notes else "")
        _check_memory(name, plan, options)
    num_clips = sum(len(plan.clips) for plan in plans.values())
    with tqdm(total=num_clips, unit="clip", desc="Preparing", disable=None) as progress:

        def begin(start: Start) -> None:
            if start.outdated:
                progress.write(
                    f"{start.outdated} shards of an unfinished preparation are of other files or "
                    "options: they are removed.",
                    file=sys.stderr,
                )
            if start.clips:
                progress.write(
                    f"{start.clips} clips ({start.shards} shards) are there already.",
                    file=sys.stderr,
                )
            progress.initial = progress.n = start.clips
            progress.refresh()

        written = write_records(
            out,
            classes,
            options.memory_range,
            plans,
            progress.update,
            frame_stride=options.frame_stride,
            skip_unreadable=options.on_error == "skip",
            replace=replace,
            on_start=begin,
        )
    return Summary(written.info, written.num_bytes)


def _check_memory(split: str, plan: SplitPlan, options: Options) -> None:
    """Raises UserError if all memory of a split stands in for other frames."""
    readable = [clip for clip in plan.clips if not isinstance(clip, UnreadableClip)]
    lacking = sum(clip.stand_ins == options.memory_range for clip in readable)
    if options.memory_range and readable and lacking == len(readable):
        raise UserError(
            f"Split {split!r}: not one of its {lacking} clips has a frame of its memory, so that "
            "the query itself or some other frame would stand in for all. Put the frames before "
            "the labelled ones there; if they lie further apart, say --frame-stride=N; if there "
            "are none, --memory-range=0."
        )


def named(names: Sequence[str], largest: int = 8) -> str:
    """The first few of many names."""
    more = f" and {len(names) - largest} more" if len(names) > largest else ""
    return ", ".join(names[:largest]) + more


def add_arguments(parser: argparse.ArgumentParser, *, splits: str, memory_range: int = 2) -> None:
    """Adds the arguments that all preparations have.

    Args:
        parser: where to add them.
        splits: the splits that are prepared if none are named, e.g. 'train,val'.
        memory_range: number of frames kept before each query if none is given.
    """
    add = parser.add_argument
    add("--source", type=Path, required=True, help="directory that holds all of the above")
    add("--out", required=True, help="data directory to write the records to")
    add("--splits", help=f"which splits, separated by commas ({splits})")
    add(
        "--memory-range",
        type=int,
        help=f"number of frames kept before each query ({memory_range})",
    )
    add("--frame-stride", type=int, help="frames of the video from one of them to the next (1)")
    add(
        "--missing",
        choices=("stand-in", "error"),
        default="stand-in",
        help="what to do where a frame before the query is missing: take the nearest earlier one, "
        "or the video's first (stand-in), or stop",
    )
    add(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what to do about a clip that cannot be read: stop, or skip it and say so at the end",
    )
    add("--replace", action="store_true", help="also records of another data set or other options")
    add("--verify", action="store_true", help="compare the records with their source; writes none")
    parser.set_defaults(default_splits=splits, default_memory_range=memory_range)


def run(arguments: argparse.Namespace, classes: ClassSet, find_clips: FindClips) -> int:
    """Prepares or verifies, as the arguments ask; returns the exit status.

    Args:
        arguments: of a parser that `add_arguments` was called with.
        classes: the data set's classes.
        find_clips: finds the clips of splits.

    Raises:
        UserError: see `prepare` and `verify`.
        Stopped: it was interrupted.
    """
    goes_on = "" if arguments.verify else " The same command goes on from here."
    with stops_with(f"Stopped.{goes_on}"):
        if arguments.verify:
            return _run_verification(arguments, find_clips)
        asked = arguments.memory_range
        options = Options(
            memory_range=arguments.default_memory_range if asked is None else asked,
            frame_stride=1 if arguments.frame_stride is None else arguments.frame_stride,
            missing=arguments.missing,
            on_error=arguments.on_error,
        )
        splits = _split_names(arguments.splits or arguments.default_splits)
        if not arguments.replace:  # finding clips can take long: CamVid's videos are decoded
            kept = options.memory_range, options.frame_stride
            check_replaceable(Path(arguments.out), classes, *kept, splits)
        plans = find_clips(options, splits)
        summary = prepare(arguments.out, classes, plans, options, replace=arguments.replace)
    print(f"Wrote to {arguments.out}: {summary}")
    return 0


def _split_names(text: str) -> list[str]:
    """The names in e.g. 'train, val'."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"\w[\w-]{0,63}", name):
            raise UserError(
                f"--splits={text!r} has a split {name!r}: expected names of letters, digits, _ and "
                "-, such as train,val."
            )
    return names


def _run_verification(arguments: argparse.Namespace, find_clips: FindClips) -> int:
    """Compares records with their source, with the options that they were made with."""
    info = read_info(arguments.out)
    for name in ("memory_range", "frame_stride"):
        asked, found = getattr(arguments, name), getattr(info, name)
        if asked not in (None, found):
            raise UserError(
                f"The records at {arguments.out} have {name.replace('_', ' ')} {found}, "
                f"not {asked}."
            )
    splits = _split_names(arguments.splits) if arguments.splits else list(info.splits)
    options = Options(info.memory_range, info.frame_stride, on_error="skip")
    compared = verify(arguments.out, find_clips(options, splits))
    for difference in compared.differences:
        print(difference)
    print(f"Compared {arguments.out} with its source: {compared}")
    return 2 if compared.differences else 0
