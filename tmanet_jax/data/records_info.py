"""What is known of clip records without reading them, and what is doubtful about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmanet_jax.data.classes import CAMVID, CITYSCAPES, IGNORE, ClassSet
from tmanet_jax.data.clip_index import ClipIndex, check_clip_id

RENDERED_CITIES = {"train": "renderstadt", "val": "rasterburg", "test": "pixelheim"}
"""Where the streets of `data_prep.synthetic` lie, by split: their clips are named after them."""


@dataclass(frozen=True)
class SkippedClip:
    """A clip that was left out of the records.

    Attributes:
        id: the clip's id.
        reason: why it could not be read.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class SplitInfo:
    """What is known of a split.

    Attributes:
        labelled: whether its clips have labels.
        reach: how many frames before a query memory may lie: those up to there are in the records.
        index: its frames and clips.
        skipped: the clips that were left out.
        class_pixels: how many pixels each class has.
        ignored_pixels: how many pixels are ignored.
    """

    labelled: bool
    reach: int
    index: ClipIndex
    skipped: tuple[SkippedClip, ...] = ()
    class_pixels: tuple[int, ...] = ()
    ignored_pixels: int = 0

    def __post_init__(self) -> None:
        if min(*self.class_pixels, self.reach, self.ignored_pixels, 0) < 0:
            raise ValueError("a count is negative")
        if len(set(self.ids)) < len(self.ids):
            raise ValueError("two clips have one name")
        for clip_id in self.ids:
            check_clip_id(clip_id)

    @property
    def ids(self) -> tuple[str, ...]:
        """The clips' ids."""
        return self.index.ids


@dataclass(frozen=True)
class RecordsInfo:
    """What all records of a directory share.

    Attributes:
        classes: the data set's classes; their name is the data set's.
        memory_range: number of memory frames that they were made for.
        frame_stride: how many frames of the video lie from each of those to the next.
        splits: the splits by name.
    """

    classes: ClassSet
    memory_range: int
    frame_stride: int
    splits: Mapping[str, SplitInfo]

    def __post_init__(self) -> None:
        if self.memory_range < 0 or self.frame_stride < 1:
            raise ValueError(
                "the memory range is 0 or more and the frame stride 1 or more, not "
                f"{self.memory_range} and {self.frame_stride}"
            )
        for name, split in self.splits.items():
            if len(split.class_pixels) != self.classes.num_classes:
                raise ValueError(
                    f"split {name!r} counts pixels of {len(split.class_pixels)} classes, of "
                    f"{self.classes.num_classes}"
                )

    @property
    def is_rendered(self) -> bool:
        """Whether `data_prep.synthetic` made what they were made of."""
        cities = tuple(f"{city}_" for city in RENDERED_CITIES.values())
        return all(
            clip_id.startswith(cities) for split in self.splits.values() for clip_id in split.ids
        )


_SUSPICIOUS_SHARE = 0.5
"""Of ignored pixels. Cityscapes has 12 %."""


def label_doubts(name: str, split: SplitInfo, classes: ClassSet, *, trains: bool) -> list[str]:
    """One warning a doubt, each saying what is likely wrong; none of a split without labels.

    Args:
        name: of the split.
        split: what is known of it.
        classes: the data set's.
        trains: whether a network is trained on the split, so that it should have every class.
    """
    num_pixels = sum(split.class_pixels) + split.ignored_pixels
    if not split.labelled or not num_pixels:
        return []
    ignored = split.ignored_pixels / num_pixels
    absent = [name for name, n in zip(classes.names, split.class_pixels, strict=True) if not n]
    if ignored == 1:
        return [
            f"Warning: every pixel of the labels of {name} is ignored ({IGNORE}): nothing trains "
            "or counts. Are these the labels' values, and the right classes?"
        ]
    if split.ignored_pixels and absent == list(classes.names[1:]):
        return [
            f"Warning: the labels of {name} hold nothing but 0 ({classes.names[0]}) and {IGNORE} "
            f"(ignored, {ignored:.1%}). If they are masks whose white is a class, save its pixels "
            f"as that class's number, such as 1 ({classes.names[1]})."
        ]
    doubts = []
    if ignored > _SUSPICIOUS_SHARE:
        doubts.append(
            f"Warning: {ignored:.1%} of the label pixels of {name} are ignored ({IGNORE}); only "
            "the rest trains and counts. Is one of the classes saved as that value?"
        )
    if trains:
        doubts += lacking(name, split.class_pixels, classes)
    return doubts


def lacking(name: str, class_pixels: Sequence[int], classes: ClassSet) -> list[str]:
    """A warning of the classes that no pixel of a split has, if there are such."""
    absent = [name for name, n in zip(classes.names, class_pixels, strict=True) if not n]
    if not absent:
        return []
    return [
        f"Warning: no pixel of {name} is {', '.join(absent)}: a network cannot learn what it is "
        "never shown. Are the list of classes and the labels' values the right ones?"
    ]


def making_command(data_dir: Path, info: RecordsInfo | None = None) -> str:
    """The commands that make such records; the most likely if nothing is known of them."""
    if info is None:
        return (
            f"python -m data_prep.cityscapes --source=DIR --out={data_dir}\n"
            "or data_prep.camvid, or data_prep.folder for data of your own."
        )
    if info.is_rendered:
        counts = " ".join(f"--{name}={len(split.ids)}" for name, split in info.splits.items())
        return (
            f"python -m data_prep.synthetic --out=STREET --size=HEIGHTxWIDTH {counts}\n"
            f"  python -m data_prep.cityscapes --source=STREET --out={data_dir}"
        )
    known = {CITYSCAPES.name: "cityscapes", CAMVID.name: "camvid", "vspw": "vspw"}
    program = known.get(info.classes.name, "folder")
    return f"python -m data_prep.{program} --source=DIR --out={data_dir}"
