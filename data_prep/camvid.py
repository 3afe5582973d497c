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
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.camvid_frames import VideoFrames, provide_frames
from data_prep.camvid_labels import LABEL_FORMATS, LabelFormat, find_label_format, read_labels
from data_prep.camvid_source import CamvidSource, find_source
from data_prep.camvid_splits import SPLITS, Video, parse_name, split_names
from data_prep.pictures import check_size, read_frame
from data_prep.preparation import (
    Options,
    add_arguments,
    check_missing,
    find_memory,
    plan_clip,
    run,
)
from data_prep.source_tree import SourceFile
from tmanet_jax.data.classes import CAMVID
from tmanet_jax.data.record_writer import SplitPlan
from tmanet_jax.data.records import Clip
from tmanet_jax.errors import UserError, ends_with_message

MEMORY_RANGE = 4
"""As many memory frames as the published network has."""


@dataclass(frozen=True)
class CamvidClip:
    """The files of a clip.

    Attributes:
        id: e.g. 'Seq05VD_f00030'.
        query: the published still.
        memory: the frames before it, oldest first; stand-ins where one is missing.
        stand_ins: how many of the memory frames are stand-ins.
        labels: file of its labels.
        label_format: what that holds.
        group: of no meaning here.
    """

    id: str
    query: SourceFile
    memory: tuple[SourceFile, ...]
    stand_ins: int
    labels: SourceFile
    label_format: LabelFormat
    group: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes when a file does, or how labels are read."""
        files = (*self.memory, self.query, self.labels)
        return "\n".join([*(file.fingerprint for file in files), self.label_format])

    def load(self) -> Clip:
        """Reads the files; raises UserError if they are torn or do not go together."""
        frames = [read_frame(file) for file in (*self.memory, self.query)]
        for file, frame_HxWx3 in zip(self.memory, frames, strict=False):
            check_size(frame_HxWx3, file, frames[-1], self.query)
        labels_HxW = read_labels(self.labels, self.label_format)
        check_size(labels_HxW, self.labels, frames[-1], self.query)
        return Clip(self.id, self.group, np.stack(frames), labels_HxW)


@dataclass(frozen=True)
class Camvid:
    """CamVid, somewhere on disk.

    Attributes:
        source: what is there of it.
        frames_dir: where extracted frames are looked for and written to.
        label_format: what the label files hold.
        reports: lines for the user are added here.
    """

    source: CamvidSource
    frames_dir: Path
    label_format: LabelFormat
    reports: list[str] = field(default_factory=list)

    def find_clips(self, options: Options, splits: Sequence[str]) -> Mapping[str, SplitPlan]:
        """Finds the clips of some splits, and extracts the frames that they need.

        Raises:
            UserError: something is missing, torn or foreign.
        """
        names = {split: split_names(split) for split in splits}
        wanted: dict[Video, set[int]] = {}
        for name in (name for of_split in names.values() for name in of_split):
            video, number = parse_name(name)
            numbers = (number - offset for offset in options.memory_offsets)
            wanted.setdefault(video, set()).update(n for n in numbers if n >= 0)
        frames = self._frames(wanted) if options.memory_range else {}
        return {
            split: SplitPlan(
                [plan_clip(n, "", options, partial(self._clip, n, frames, options)) for n in of],
                labelled=True,
            )
            for split, of in names.items()
        }

    def _frames(self, wanted: Mapping[Video, Collection[int]]) -> Mapping[Video, VideoFrames]:
        frames = provide_frames(self.source, self.frames_dir, wanted)
        self.reports.extend(sorted(of_video.report for of_video in frames.values()))
        return frames

    def _clip(
        self, name: str, frames: Mapping[Video, VideoFrames], options: Options
    ) -> CamvidClip:
        video, number = parse_name(name)
        query, labels = self.source.stills.get(name), self.source.labels.get(name)
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
        missing = [str(absent) for absent in memory.missing]
        check_missing(name, [f"frame {absent} of {video.file}" for absent in missing], options)
        return CamvidClip(
            id=name,
            query=query,
            memory=tuple(of_video.files.get(taken, query) for taken in memory.numbers),
            stand_ins=len(memory.missing),
            labels=labels,
            label_format=self.label_format,
        )


def open_camvid(source: Path, frames_dir: Path, label_format: LabelFormat | None = None) -> Camvid:
    """Finds CamVid below a directory.

    Args:
        source: the directory.
        frames_dir: where extracted frames are looked for and written to.
        label_format: what the label files hold; None: find out.

    Raises:
        UserError: it is not there, or cannot be read, or the label files can be read in two ways.
    """
    found = find_source(source, ignored=frames_dir)
    files = [file for _, file in sorted(found.labels.items())]
    return Camvid(found, frames_dir, label_format or find_label_format(files))


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.camvid",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="directory that holds all of the above")
    add_arguments(parser, splits=",".join(SPLITS), memory_range=MEMORY_RANGE)
    add("--frames", type=Path, help="directory of extracted frames (OUT/frames)")
    add("--label-format", choices=LABEL_FORMATS, help="what label files hold (found out)")
    options = parser.parse_args(arguments)
    camvid = open_camvid(
        options.source, options.frames or Path(options.out, "frames"), options.label_format
    )
    try:
        return run(options, CAMVID, camvid.find_clips)
    finally:
        for report in camvid.reports:
            print(report)


if __name__ == "__main__":
    sys.exit(main())
