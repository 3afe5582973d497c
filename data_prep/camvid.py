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
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_prep.camvid_frames import VideoFrames, provide_frames
from data_prep.camvid_labels import LABEL_FORMATS, CamvidLabels, LabelFormat, find_label_format
from data_prep.camvid_source import CamvidSource, find_source
from data_prep.camvid_splits import SPLITS, RawVideo, parse_name, split_names
from data_prep.clip_files import FilesClip
from data_prep.preparation import (
    Options,
    add_arguments,
    check_missing,
    find_memory,
    plan_clip,
    run,
)
from data_prep.records.writer import SplitPlan
from tmanet_jax.data.classes import CAMVID
from tmanet_jax.errors import UserError, ends_with_message

MEMORY_RANGE = 4
"""As many memory frames as the published network has."""


@dataclass(frozen=True)
class Camvid:
    """CamVid, somewhere on disk.

    Attributes:
        root: the directory that it is searched in.
        frames_dir: where extracted frames are looked for and written to.
        label_format: what the label files hold; None: find out.
        report: called with lines for the user.
    """

    root: Path
    frames_dir: Path
    label_format: LabelFormat | None = None
    report: Callable[[str], object] = print

    def find_clips(self, options: Options, splits: Sequence[str]) -> Mapping[str, SplitPlan]:
        """Finds the clips of some splits, and extracts the frames that they need.

        Raises:
            UserError: something is missing, torn or foreign, or labels can be read in two ways.
        """
        names = {split: split_names(split) for split in splits}
        source = find_source(self.root, ignored=self.frames_dir)
        label_files = [file for _, file in sorted(source.labels.items())]
        label_format = self.label_format or find_label_format(label_files)
        frames: Mapping[RawVideo, VideoFrames] = {}
        if options.memory_range:
            every_name = itertools.chain.from_iterable(names.values())
            frames = provide_frames(source, self.frames_dir, _wanted_frames(every_name, options))
        for of_video in frames.values():
            self.report(of_video.report)
        find = partial(
            _find_clip, source=source, frames=frames, label_format=label_format, options=options
        )
        return {
            split: SplitPlan(
                [plan_clip(name, "", options, partial(find, name)) for name in of_split],
                labelled=True,
            )
            for split, of_split in names.items()
        }


def _wanted_frames(names: Iterable[str], options: Options) -> Mapping[RawVideo, set[int]]:
    """Numbers of the memory frames of all clips; none before the first a video can have."""
    wanted: dict[RawVideo, set[int]] = {}
    for video, number in map(parse_name, names):
        numbers = (number - offset for offset in options.memory_offsets)
        wanted.setdefault(video, set()).update(wanted_n for wanted_n in numbers if wanted_n >= 0)
    return wanted


def _find_clip(
    name: str,
    source: CamvidSource,
    frames: Mapping[RawVideo, VideoFrames],
    label_format: LabelFormat,
    options: Options,
) -> FilesClip:
    video, number = parse_name(name)
    query, labels = source.stills.get(name), source.labels.get(name)
    if query is None:
        raise UserError(f"Clip {name} has no still: expected {name}.png below the source.")
    if labels is None:
        raise UserError(f"Clip {name} has no labels: expected {name}_L.png below the source.")
    of_video = frames.get(video, VideoFrames({}, {}, ""))
    if (fault := of_video.faults.get(number)) is not None:
        raise UserError(f"The still {query} does not belong to {video.file}: {fault}.")
    memory = find_memory(
        number,
        sorted(of_video.files),
        options,
        largest_gap=max(options.memory_offsets, default=1),
    )
    check_missing(name, [f"frame {absent} of {video.file}" for absent in memory.missing], options)
    return FilesClip(
        id=name,
        query=query,
        memory=tuple(
            query if taken == number else of_video.files[taken] for taken in memory.numbers
        ),
        stand_ins=len(memory.missing),
        labels=CamvidLabels(labels, label_format),
    )


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.camvid",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_arguments(parser, splits=",".join(SPLITS), memory_range=MEMORY_RANGE)
    add("--frames", type=Path, help="directory of extracted frames (OUT/frames)")
    add("--label-format", choices=LABEL_FORMATS, help="what label files hold (found out)")
    parsed = parser.parse_args(arguments)
    camvid = Camvid(
        root=parsed.source,
        frames_dir=parsed.frames or Path(parsed.out, "frames"),
        label_format=parsed.label_format,
    )
    return run(parsed, CAMVID, camvid.find_clips)


if __name__ == "__main__":
    sys.exit(main())
