r"""Makes clip records from frames, labels and a list of classes of your own.

    python -m data_prep.folder --source=DIR --out=DIR

reads, below the source (zip files in it are read in place),

    classes.csv                        name,red,green,blue; then one line a class: road,128,64,128
    frames/SPLIT/VIDEO/NUMBER.png      the frames of each video, numbered; or .jpg,
                                       .bmp, .tif, .webp; or frames/SPLIT/VIDEO.mp4, a
                                       video file, whose frames count from 0
    labels/SPLIT/VIDEO/NUMBER.png      the labels of some of them: grey or palette PNGs that hold
                                       indices (0: the first class; 255: ignored), or RGB PNGs in
                                       the classes' colours

Each labelled frame becomes a clip; its memory are the frames before it. A last line of classes.csv
named `ignored` is no class: its colour marks pixels that do not count. Text may stand before the
number in names. Numbers of ten digits and more are times, and so are 20211201_120000_033 and
1638316800_033 (or _033000) unless what they end with counts frames: frames then count in their
order. Frames are turned as their EXIF says, labels never are. For example:

    import cv2, pathlib, numpy as np
    mine = pathlib.Path("mine")
    for folder in ("frames/train/a", "frames/val/b", "labels/train/a", "labels/val/b"):
        (mine / folder).mkdir(parents=True)
    (mine / "classes.csv").write_text("name,red,green,blue\nroad,90,90,90\ncar,200,0,0\n")
    for video in ("train/a", "val/b"):
        for number in range(10):
            frame = np.random.default_rng(number).integers(0, 256, (128, 256, 3), np.uint8)
            cv2.imwrite(f"mine/frames/{video}/{number:06d}.png", frame)
        cv2.imwrite(f"mine/labels/{video}/000009.png", frame[..., 0] // 128)

A run needs to be told the number of classes:

    python -m data_prep.folder --source=mine --out=data/mine
    python run.py --config=configs/default.py --config.data.dir=data/mine \
        --config.model.num_classes=2 --config.data.crop_size=128,256
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from data_prep.clip_files import FilesClip
from data_prep.folder_classes import Classes, FolderLabels, read_classes
from data_prep.folder_videos import extracted_frames
from data_prep.label_shift import SHIFT_ADVICE, NumberedVideo, in_order_of_time, notes_on_numbers
from data_prep.naming import frame_numbers
from data_prep.pictures import is_turned_by_exif
from data_prep.preparation import (
    Options,
    add_arguments,
    check_missing,
    find_memory,
    plan_clip,
    run,
)
from data_prep.records.writer import PlannedClip, SplitPlan, WrongSourceError
from data_prep.source_tree import SourceFile, SourceTree
from tmanet_jax.errors import UserError, ends_with_message
from tmanet_jax.video.frames import PICTURE_SUFFIXES


def find_clips(
    tree: SourceTree,
    classes: Classes,
    frames_dir: Path,
    options: Options,
    splits: Sequence[str],
) -> Mapping[str, SplitPlan]:
    """Finds the clips of some splits, and extracts the frames of videos that they need.

    Args:
        tree: the data set.
        classes: its classes.
        frames_dir: where the frames of videos are written to.
        options: how clips are made.
        splits: their names.

    Raises:
        UserError: there are none, or labels without a frame.
    """
    plans = {}
    for split in splits:
        videos = [
            _find_video(tree, f"{split}/{video}", classes, frames_dir, options)
            for video in tree.folders(f"labels/{split}")
        ]
        clips = [clip for video in videos for clip in _clips_of_video(video, options)]
        if not clips:
            raise WrongSourceError(
                f"There are no labels in {tree.root}: expected labels/{split}/VIDEO/NUMBER.png, "
                f"e.g. labels/{split}/drive/000123.png. --splits=... names other splits."
            )
        notes = [*notes_on_numbers(split, videos), *_notes_on_turned(split, videos)]
        plans[split] = SplitPlan(clips, labelled=True, notes=notes)
    return plans


def _notes_on_turned(split: str, videos: Sequence[NumberedVideo]) -> list[str]:
    turned = [
        frame
        for video in videos
        for number in video.labels
        if (frame := video.frames.get(number)) is not None and is_turned_by_exif(frame)
    ]
    if not turned:
        return []
    return [
        f"Warning: EXIF turns or mirrors {len(turned)} labelled frames of {split}, such as "
        f"{turned[0]}. They are taken as viewers show them: labels that were drawn on the pixels "
        "as they are stored do not lie on them. If so, remove the orientation from the frames."
    ]


def _find_video(
    tree: SourceTree, name: str, classes: Classes, frames_dir: Path, options: Options
) -> NumberedVideo:
    pictures = [_pictures(tree, f"{kind}/{name}") for kind in ("frames", "labels")]
    number_of = frame_numbers({stem for files in pictures for stem in map(_stem, files)})
    frames, labels = (_by_number(files, number_of) for files in pictures)
    split, _, video = name.rpartition("/")
    files = {
        Path(file_name).stem: file for file_name, file in tree.files(f"frames/{split}").items()
    }
    if not frames and video in files:
        wanted = {number - offset for number in labels for offset in (0, *options.memory_offsets)}
        frames = extracted_frames(files[video], frames_dir / split, wanted)
    of_classes = {number: FolderLabels(file, classes) for number, file in labels.items()}
    return in_order_of_time(NumberedVideo(name, frames, of_classes))


def _clips_of_video(video: NumberedVideo, options: Options) -> Iterator[PlannedClip]:
    existing = sorted(video.frames)
    for number, labels in video.labels.items():
        clip_id = f"{video.name.rpartition('/')[2]}_{Path(labels.file.name).stem}"
        find = partial(_find_clip, clip_id, number, video, existing, options)
        yield plan_clip(clip_id, "", options, find)


def _find_clip(
    clip_id: str, number: int, video: NumberedVideo, existing: Sequence[int], options: Options
) -> FilesClip:
    frames, labels = video.frames, video.labels[number]
    if not labels.file.name.lower().endswith(".png"):
        raise UserError(
            f"The labels {labels.file} are no PNG: other formats change values on the way."
        )
    if number not in frames:
        raise UserError(
            f"The labels {labels.file} have no frame: expected frames/{video.name}/"
            f"{Path(labels.file.name).stem}.png or .jpg. Numbers in {video}."
            + (f" {SHIFT_ADVICE}" if [number + 1] == list(existing[:1]) else "")
        )
    memory = find_memory(number, existing, options)
    missing = [f"frame {absent} of {video.name}" for absent in memory.missing]
    check_missing(clip_id, missing, options)
    return FilesClip(
        id=clip_id,
        query=frames[number],
        memory=tuple(frames[taken] for taken in memory.numbers),
        stand_ins=len(missing),
        labels=labels,
    )


def _pictures(tree: SourceTree, folder: str) -> list[SourceFile]:
    """The pictures in a folder; raises WrongSourceError if a name does not end with a number."""
    files = tree.files(folder).values()
    pictures = [file for file in files if file.name.lower().endswith(PICTURE_SUFFIXES)]
    for file in pictures:
        if not _stem(file)[-1:].isdecimal():
            raise WrongSourceError(
                f"There is no frame number in the name of {file}: expected a name that ends with "
                "it, such as 000123.png."
            )
    return pictures


def _stem(file: SourceFile) -> str:
    return Path(file.name).stem


def _by_number(
    files: Sequence[SourceFile], number_of: Mapping[str, int]
) -> Mapping[int, SourceFile]:
    pictures: dict[int, SourceFile] = {}
    for file in files:
        number = number_of[_stem(file)]
        if number in pictures:
            raise WrongSourceError(
                f"{pictures[number]} and {file} are both of frame {number}: expected one file a "
                "frame, and one folder a video."
            )
        pictures[number] = file
    return pictures


@ends_with_message
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.folder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_arguments(parser, splits="train,val")
    add("--name", help="of the data set (the source's)")
    options = parser.parse_args(arguments)
    tree = SourceTree(options.source)
    classes = read_classes(tree, options.name or options.source.resolve().name)
    frames_dir = Path(options.out, "frames")
    return run(options, classes.class_set, partial(find_clips, tree, classes, frames_dir))


if __name__ == "__main__":
    sys.exit(main())
