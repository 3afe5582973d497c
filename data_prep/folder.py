"""Makes clip records from frames, labels and a list of classes of your own.

    python -m data_prep.folder --source=DIR --out=DIR

reads, below the source (zip files in it are read in place),

    classes.csv                        name,red,green,blue; then one line a class: road,128,64,128
    frames/SPLIT/VIDEO/NUMBER.png      the frames of each video, numbered; or .jpg
    labels/SPLIT/VIDEO/NUMBER.png      the labels of some of them: grey or palette PNGs that hold
                                       indices (0: the first class; 255: ignored), or RGB PNGs in
                                       the classes' colours

Each labelled frame becomes a clip; its memory are the frames before it. A last line of classes.csv
named `ignored` is no class: its colour marks pixels that do not count. Text may stand before the
number in names. For example:

    import cv2, numpy as np, pathlib
    for folder in ("frames/train/drive", "frames/val/drive", "labels/train/drive", "labels/val/drive"):
        pathlib.Path("mine", folder).mkdir(parents=True)
    pathlib.Path("mine/classes.csv").write_text("name,red,green,blue\\nroad,90,90,90\\ncar,200,0,0\\n")
    for split in ("train", "val"):
        for number in range(10):
            frame = np.random.default_rng(number).integers(0, 256, (128, 256, 3), np.uint8)
            cv2.imwrite(f"mine/frames/{split}/drive/{number:06d}.png", frame)
        cv2.imwrite(f"mine/labels/{split}/drive/000009.png", frame[..., 0] // 128)
    # then: python -m data_prep.folder --source=mine --out=data/mine

A run needs the number of classes: `python run.py --config=configs/default.py
--config.data.dir=data/mine --config.model.num_classes=2`.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.folder_classes import Classes, read_classes
from data_prep.pictures import check_size, read_frame
from data_prep.preparation import (
    Options,
    add_arguments,
    check_missing,
    find_memory,
    plan_clip,
    run,
)
from data_prep.source_tree import SourceFile, SourceTree
from tmanet_jax.data.record_writer import SplitPlan, WrongSourceError
from tmanet_jax.data.records import Clip
from tmanet_jax.errors import UserError, ends_with_message

_FRAME_TYPES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class FolderClip:
    """The files of a clip.

    Attributes:
        id: VIDEO_NAME.
        query: the labelled frame.
        memory: the frames before it, oldest first; stand-ins where one is missing.
        stand_ins: how many of the memory frames are stand-ins.
        labels: file of its labels.
        classes: what those hold.
        group: of no meaning here.
    """

    id: str
    query: SourceFile
    memory: tuple[SourceFile, ...]
    stand_ins: int
    labels: SourceFile
    classes: Classes
    group: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes when a file does, or the classes."""
        files = (*self.memory, self.query, self.labels)
        return "\n".join([*(file.fingerprint for file in files), repr(self.classes)])

    def load(self) -> Clip:
        """Reads the files; raises UserError if they are torn or do not go together."""
        frames = [read_frame(file) for file in (*self.memory, self.query)]
        for file, frame_HxWx3 in zip(self.memory, frames, strict=False):
            check_size(frame_HxWx3, file, frames[-1], self.query)
        labels_HxW = self.classes.read_labels(self.labels)
        check_size(labels_HxW, self.labels, frames[-1], self.query)
        return Clip(self.id, self.group, np.stack(frames), labels_HxW)


def find_clips(
    tree: SourceTree, classes: Classes, options: Options, splits: Sequence[str]
) -> Mapping[str, SplitPlan]:
    """Finds the clips of some splits.

    Raises:
        UserError: there are none, or labels without a frame.
    """
    plans = {}
    for split in splits:
        clips = [
            plan_clip(
                f"{video}_{Path(labels.name).stem}",
                "",
                options,
                partial(_find_clip, tree, f"{split}/{video}", labels, classes, options),
            )
            for video in tree.folders(f"labels/{split}")
            for labels in tree.files(f"labels/{split}/{video}").values()
            if labels.name.lower().endswith(".png")
        ]
        if not clips:
            raise WrongSourceError(
                f"There are no labels in {tree.root}: expected labels/{split}/VIDEO/NUMBER.png, "
                f"e.g. labels/{split}/drive/000123.png. --splits=... names other splits."
            )
        plans[split] = SplitPlan(clips, labelled=True)
    return plans


def _find_clip(
    tree: SourceTree, video: str, labels: SourceFile, classes: Classes, options: Options
) -> FolderClip:
    frames = _numbered_frames(tree, f"frames/{video}")
    number = _number(labels)
    if number not in frames:
        raise UserError(
            f"The labels {labels} have no frame: expected frames/{video}/{Path(labels.name).stem}"
            ".png or .jpg."
        )
    memory = find_memory(number, sorted(frames), options)
    clip_id = f"{video.rpartition('/')[2]}_{Path(labels.name).stem}"
    check_missing(clip_id, [f"frame {absent} of {video}" for absent in memory.missing], options)
    return FolderClip(
        id=clip_id,
        query=frames[number],
        memory=tuple(frames[taken] for taken in memory.numbers),
        stand_ins=len(memory.missing),
        labels=labels,
        classes=classes,
    )


def _numbered_frames(tree: SourceTree, folder: str) -> Mapping[int, SourceFile]:
    frames: dict[int, SourceFile] = {}
    for file in tree.files(folder).values():
        if not file.name.lower().endswith(_FRAME_TYPES):
            continue
        number = _number(file)
        if number in frames:
            raise WrongSourceError(
                f"{frames[number]} and {file} are both frame {number}: expected one file a frame, "
                "and one folder a video."
            )
        frames[number] = file
    return frames


def _number(file: SourceFile) -> int:
    digits = re.search(r"(\d+)$", Path(file.name).stem)
    if digits is None:
        raise WrongSourceError(
            f"There is no frame number in the name of {file}: expected a name that ends with it, "
            "such as 000123.png."
        )
    return int(digits[1])


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.folder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="directory that holds all of the above")
    add_arguments(parser, splits="train,val")
    add("--name", help="of the data set (the source's)")
    options = parser.parse_args(arguments)
    tree = SourceTree(options.source)
    classes = read_classes(tree, options.name or options.source.resolve().name)
    return run(options, classes.class_set, partial(find_clips, tree, classes))


if __name__ == "__main__":
    sys.exit(main())
