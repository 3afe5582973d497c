"""Clips of several directories that train together, each with its share of the batches."""

import bisect
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from tmanet_jax.data.classes import ClassSet, name_differences
from tmanet_jax.data.clips import EncodedClip
from tmanet_jax.data.records import ClipRecords, open_clips, read_info
from tmanet_jax.data.records_info import SkippedClip, lacking
from tmanet_jax.data.relabel import relabelling
from tmanet_jax.errors import UserError


class MixedClips(ClipRecords):
    """Clips to train on, those of the first part first; made by `open_mixed`.

    Args:
        parts: of the same classes; what is asked of records as a whole is the first one's.
        shares: of each, relative to each other.
    """

    def __init__(self, parts: Sequence[ClipRecords], shares: Sequence[float]) -> None:
        first = parts[0]
        self.data_dir, self.split, self.info = first.data_dir, first.split, first.info
        self.frame_stride = first.frame_stride
        self._parts, self._shares = tuple(parts), tuple(shares)
        self._firsts = (0, *itertools.accumulate(map(len, parts)))

    def __reduce__(self) -> tuple[Callable[..., ClipRecords], tuple[object, ...]]:
        return MixedClips, (self._parts, self._shares)

    @property
    def shares(self) -> Mapping[range, float]:
        """Of the batches, by the clips that have them."""
        clips = itertools.starmap(range, itertools.pairwise(self._firsts))
        return dict(zip(clips, self._shares, strict=True))

    @property
    def labelled(self) -> bool:
        """Whether the clips of all parts have labels."""
        return all(part.labelled for part in self._parts)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all clips, without reading them."""
        return tuple(itertools.chain.from_iterable(part.ids for part in self._parts))

    @property
    def class_pixels(self) -> tuple[int, ...]:
        """How many pixels each class has in as many clips as there are, mixed by the shares."""
        of_clip_PxC = [
            [share * pixels / len(part) for pixels in part.class_pixels]
            for part, share in zip(self._parts, self._shares, strict=True)
        ]
        scale = len(self) / sum(self._shares)
        return tuple(round(scale * sum(of_class)) for of_class in zip(*of_clip_PxC, strict=True))

    def label_doubts(self, *, trains: bool) -> list[str]:
        """Those of all parts, and classes that none of them has."""
        doubts = [doubt for part in self._parts for doubt in part.label_doubts(trains=False)]
        none_renders = not any(part.info.is_rendered for part in self._parts)
        if trains and none_renders:
            doubts += lacking(f"{self.split} of all", self.class_pixels, self.info.classes)
        return doubts

    def fingerprint(self) -> str:
        """Tells apart what the parts held at different times, and their shares."""
        facts = [part.fingerprint() for part in self._parts], self._shares
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @property
    def skipped(self) -> tuple[SkippedClip, ...]:
        """Those of all parts."""
        return tuple(itertools.chain.from_iterable(part.skipped for part in self._parts))

    def group(self, index: int) -> str:
        """The group of a clip, without reading it."""
        part, place = self._place(index)
        return part.group(place)

    def clip_id(self, index: int) -> str:
        """The id of a clip, without reading it."""
        part, place = self._place(index)
        return part.clip_id(place)

    def read_encoded(self, index: int, memory_offsets: Sequence[int] = ()) -> EncodedClip:
        """Reads a clip without decoding it, as its part does."""
        part, place = self._place(index)
        return part.read_encoded(place, memory_offsets)

    def check_memory(self, num_memory: int, memory_range: int) -> None:
        """Raises UserError unless all parts hold these memory frames."""
        for part in self._parts:
            part.check_memory(num_memory, memory_range)

    def _place(self, index: int) -> tuple[ClipRecords, int]:
        part = bisect.bisect_right(self._firsts, index) - 1
        return self._parts[part], index - self._firsts[part]


def check_classes(data_dirs: Iterable[str], classes: Sequence[str]) -> None:
    """Raises UserError if none of the directories has a class that `config.data.classes` names."""
    names = itertools.chain(*(read_info(data_dir).classes.names for data_dir in data_dirs))
    relabelling(classes, ClassSet.of("all together", dict.fromkeys(names, (0, 0, 0))))


def open_mixed(
    shares: Mapping[str, float],
    split: str,
    frame_stride: int | None = None,
    classes: Sequence[str] = (),
) -> MixedClips:
    """Opens a split in several directories.

    Args:
        shares: of the batches, relative to each other, by the directories of the records.
        split: its name.
        frame_stride: see `open_clips`.
        classes: that labels are read as; of each directory, those that it has.

    Raises:
        UserError: as `open_clips`; or the directories have different classes; or none of them has
            a class that is named.
    """
    if classes:
        check_classes(shares, classes)
    parts = [
        open_clips(data_dir, split, frame_stride, classes, of_several=True) for data_dir in shares
    ]
    first, *others = parts
    for part in others:
        if different := name_differences(first.info.classes, part.info.classes):
            raise UserError(
                f"{first.data_dir} and {part.data_dir} cannot be mixed, for their classes differ: "
                f"{different}. config.data.classes says what labels of all are read as."
            )
        if part.frame_stride != first.frame_stride:
            raise UserError(
                f"{first.data_dir} was made with a frame stride of {first.frame_stride}, "
                f"{part.data_dir} with {part.frame_stride}: say config.data.frame_stride."
            )
        part.check_labelled()
    return MixedClips(parts, list(shares.values()))
