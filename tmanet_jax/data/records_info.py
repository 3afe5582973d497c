"""What is known of clip records without reading them; lies beside them as JSON."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tmanet_jax.data.classes import ClassSet


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
    """What is known of a split, or of a part of one.

    Attributes:
        labelled: whether its clips have labels.
        ids: the clips' ids, in the order of the records.
        groups: the clips' groups, in the same order.
        stand_ins: how many memory frames of each clip stand in for missing ones, in the same order.
        skipped: the clips that were left out.
        class_pixels: how many pixels each class has.
        ignored_pixels: how many pixels are ignored.
    """

    labelled: bool
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    stand_ins: tuple[int, ...] = ()
    skipped: tuple[SkippedClip, ...] = ()
    class_pixels: tuple[int, ...] = ()
    ignored_pixels: int = 0

    @classmethod
    def joined(cls, parts: Sequence["SplitInfo"]) -> "SplitInfo":
        """What is known of parts, at least one, that follow each other."""
        return cls(
            labelled=parts[0].labelled,
            ids=tuple(itertools.chain.from_iterable(part.ids for part in parts)),
            groups=tuple(itertools.chain.from_iterable(part.groups for part in parts)),
            stand_ins=tuple(itertools.chain.from_iterable(part.stand_ins for part in parts)),
            skipped=tuple(itertools.chain.from_iterable(part.skipped for part in parts)),
            class_pixels=tuple(
                sum(pixels) for pixels in zip(*(part.class_pixels for part in parts), strict=True)
            ),
            ignored_pixels=sum(part.ignored_pixels for part in parts),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SplitInfo":
        """Inverse of `dataclasses.asdict`; raises KeyError or TypeError on anything else."""
        return cls(
            labelled=values["labelled"],
            ids=tuple(values["ids"]),
            groups=tuple(values["groups"]),
            stand_ins=tuple(values["stand_ins"]),
            skipped=tuple(SkippedClip(**clip) for clip in values["skipped"]),
            class_pixels=tuple(values["class_pixels"]),
            ignored_pixels=values["ignored_pixels"],
        )


@dataclass(frozen=True)
class RecordsInfo:
    """What all records of a directory share.

    Attributes:
        classes: the data set's classes; their name is the data set's.
        memory_range: number of frames before the query in each record.
        frame_stride: how many frames of the video lie from each of them to the next.
        splits: the splits by name.
    """

    classes: ClassSet
    memory_range: int
    frame_stride: int
    splits: Mapping[str, SplitInfo]

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return {
            "classes": dataclasses.asdict(self.classes),
            "memory_range": self.memory_range,
            "frame_stride": self.frame_stride,
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RecordsInfo":
        """Inverse of `to_json`; raises KeyError or TypeError on anything else."""
        classes = dict(values["classes"])
        classes.pop("ignore", None)  # older records say that 255 is ignored, which it always is
        classes["names"] = tuple(classes["names"])
        classes["palette_Cx3"] = tuple(tuple(colour) for colour in classes["palette_Cx3"])
        splits = {name: SplitInfo.from_json(split) for name, split in values["splits"].items()}
        return cls(ClassSet(**classes), values["memory_range"], values["frame_stride"], splits)
