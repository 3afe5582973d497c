"""The command of a preparation: its options, the work with its progress bar, and the summary."""

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.clips import find_clips
from data_prep.data_set import DataSet, Options
from data_prep.records.beam import writer_by
from data_prep.records.shards import WritesShards, write_in_threads
from data_prep.records.staging import check_replaceable
from data_prep.records.writer import SplitPlan, Start, write_records
from data_prep.stopping import stops_with
from data_prep.verification import verify
from tmanet_jax.data import stores
from tmanet_jax.data.records import read_info
from tmanet_jax.data.records_info import RecordsInfo, label_doubts
from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.program import advice
from tmanet_jax.progress import ProgressBar


def main_of(data_set: type[DataSet], name: str, doc: str | None) -> Callable[..., int]:
    """The main function of a preparation's command, which returns the exit status.

    Args:
        data_set: which preparation it is.
        name: of its module, such as 'data_prep.folder'.
        doc: the help.
    """

    @ends_with_message
    def main(arguments: Sequence[str] | None = None) -> int:
        parser = _parser(data_set, name, doc)
        asked, of_beam = parser.parse_known_args(arguments)
        if of_beam and (asked.runner is None or _is_mistyped(of_beam, parser)):
            parser.error(f"unrecognized arguments: {' '.join(of_beam)}")
        chosen = data_set
        if asked.runner and chosen.__module__ == "__main__":  # where no worker finds its classes
            chosen = getattr(importlib.import_module(name), chosen.__name__)
        return _run(chosen, asked, of_beam)

    return main


def _is_mistyped(words: Sequence[str], parser: argparse.ArgumentParser) -> bool:
    """Whether one is nearly an option of the preparation, and so hardly one of Beam's."""
    own = [option for action in parser._actions for option in action.option_strings]
    names = [word.partition("=")[0].replace("_", "-") for word in words]
    return any(difflib.get_close_matches(name, own, 1, 0.85) for name in names)


def _run(data_set: type[DataSet], asked: argparse.Namespace, options_of_beam: Sequence[str]) -> int:
    """Prepares or verifies, as a command line asks."""
    if asked.upload:
        stores.open_store(asked.upload)
    write_shards = writer_by(asked.runner, options_of_beam) if asked.runner else write_in_threads
    goes_on = "" if asked.verify else " The same command goes on from here."
    with stops_with(f"Stopped.{goes_on}"):
        opened = data_set.of_options(asked)
        if asked.verify:
            return _verify(opened, asked)
        options = Options(
            data_set.default_memory_range if asked.memory_range is None else asked.memory_range,
            data_set.default_frame_stride if asked.frame_stride is None else asked.frame_stride,
            asked.missing,
            asked.on_error,
        )
        splits = _split_names(asked.splits) if asked.splits else data_set.default_splits
        if not asked.replace:  # finding clips can take long: CamVid's videos are decoded
            kept = options.memory_range, options.frame_stride
            check_replaceable(Path(asked.out), opened.classes, *kept, splits)
        summary = prepare(
            opened,
            asked.out,
            options,
            splits=splits,
            replace=asked.replace,
            write_shards=write_shards,
        )
    print(f"Wrote to {asked.out}: {summary}")
    if asked.upload:
        num_bytes = stores.upload(Path(asked.out), asked.upload)
        print(f"Uploaded {num_bytes / 1e6:.1f} MB to {asked.upload}.")
    return 0


def _place(text: str) -> str | Path:
    return text if stores.is_address(text) else Path(text)


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
        """Number of frames written."""
        return sum(split.index.num_frames for split in self.info.splits.values())

    @property
    def stand_ins(self) -> int:
        """How many memory frames of all clips stand in for frames that are missing."""
        return sum(self._stand_ins_of_clips())

    def _stand_ins_of_clips(self) -> Iterator[int]:
        stride = self.info.frame_stride
        offsets = range(self.info.memory_range * stride, 0, -stride)
        for split in self.info.splits.values():
            yield from (split.index.stand_ins(clip, offsets) for clip in range(len(split.ids)))

    def __str__(self) -> str:
        counts = list(self._stand_ins_of_clips())
        parts = [
            f"{self.clips} clips, {self.frames} frames ({sum(counts)} times one stands in for a "
            f"missing one, in {sum(map(bool, counts))} clips), {self.num_bytes / 1e6:.1f} MB"
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
    data_set: DataSet,
    out: str | os.PathLike[str],
    options: Options = Options(),  # noqa: B008 (it is frozen)
    *,
    splits: Sequence[str] | None = None,
    replace: bool = False,
    write_shards: WritesShards = write_in_threads,
) -> Summary:
    """Writes records, with a progress bar; goes on where an earlier call stopped.

    Args:
        data_set: what they are made of.
        out: the data directory; records that it holds are replaced, unless something is wrong.
        options: how clips are made.
        splits: their names; the data set's default ones if none are given. Empty ones are left out.
        replace: whether records of another data set, or of other options, may be replaced.
        write_shards: what writes them: by default threads on all cores of this machine.

    Raises:
        UserError: something is missing, torn, of another size or out of range. Whole shards stay,
            for the next call; records that were there stay.
    """
    plans = find_clips(data_set, data_set.default_splits if splits is None else splits, options)
    for name, plan in plans.items():
        print(*plan.notes, sep="\n", end="\n" if plan.notes else "")
        _check_memory(name, plan, options)
    num_frames = sum(len(plan.frames) for plan in plans.values())
    tqdm.write(f"Preparing {num_frames} frames.", file=sys.stderr)
    with ProgressBar("Preparing", "frame", num_frames) as progress:

        def begin(start: Start) -> None:
            if start.outdated:
                tqdm.write(
                    f"{start.outdated} shards of an unfinished preparation are of other files or "
                    "options: they are removed.",
                    file=sys.stderr,
                )
            if start.frames:
                tqdm.write(
                    f"{start.frames} frames ({start.shards} shards) are there already.",
                    file=sys.stderr,
                )
            progress.skip(start.frames)

        written = write_records(
            out,
            data_set.classes,
            options.memory_range,
            plans,
            progress.update,
            frame_stride=options.frame_stride,
            skip_unreadable=options.on_error == "skip",
            replace=replace,
            on_start=begin,
            write_shards=write_shards,
        )
    return Summary(written.info, written.num_bytes)


def _check_memory(split: str, plan: SplitPlan, options: Options) -> None:
    """Raises UserError if all memory of a split stands in for other frames."""
    num_clips, offsets = len(plan.index.ids), options.memory_offsets
    lacking = (plan.index.stand_ins(c, offsets) == len(offsets) for c in range(num_clips))
    if offsets and num_clips and not plan.of_pictures and all(lacking):
        raise UserError(
            f"Split {split!r}: not one of its {num_clips} clips has a frame of its memory, so that "
            "the query itself or some other frame would stand in for all. Put the frames before "
            "the labelled ones there; if they lie further apart, say --frame-stride=N; if there "
            "are none, --memory-range=0."
        )


def _parser(data_set: type[DataSet], name: str, doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=advice(f"python -m {name}"),
        description=advice(doc or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data_set.add_options(parser)
    add = parser.add_argument
    add(
        "--source",
        type=_place,
        required=True,
        help="directory that holds all of the above, or its address in a store (s3://...)",
    )
    add("--out", required=True, help="data directory to write the records to")
    add("--upload", metavar="ADDRESS", help="copy them into a store when they are whole (gs://...)")
    splits = ",".join(data_set.default_splits)
    add("--splits", help=f"which splits, separated by commas ({splits})")
    add(
        "--memory-range",
        type=int,
        help=f"number of memory frames that a clip can have ({data_set.default_memory_range})",
    )
    add(
        "--frame-stride",
        type=int,
        help=f"frames of the video from one of them to the next ({data_set.default_frame_stride})",
    )
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
    add(
        "--runner",
        help="prepare by Apache Beam, with this runner, such as DirectRunner; further options are "
        "Beam's, such as --direct_num_workers=2",
    )
    return parser


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


def _verify(data_set: DataSet, asked: argparse.Namespace) -> int:
    """Compares records with their source, with the options that they were made for."""
    info = read_info(asked.out)
    for name in ("memory_range", "frame_stride"):
        wanted, found = getattr(asked, name), getattr(info, name)
        if wanted not in (None, found):
            raise UserError(
                f"The records at {asked.out} have {name.replace('_', ' ')} {found}, not {wanted}."
            )
    splits = _split_names(asked.splits) if asked.splits else list(info.splits)
    options = Options(info.memory_range, info.frame_stride, on_error="skip")
    compared = verify(asked.out, find_clips(data_set, splits, options))
    for difference in compared.differences:
        print(difference)
    print(f"Compared {asked.out} with its source: {compared}")
    return 2 if compared.differences else 0
