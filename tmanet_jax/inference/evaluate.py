"""Evaluation of a split: one confusion matrix a clip, and the scores of their sums."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from tmanet_jax import distributed
from tmanet_jax.data.categories import categories_of, void_class
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.pipeline import eval_clips
from tmanet_jax.data.records import ClipSource
from tmanet_jax.inference.overlays import comparison_of
from tmanet_jax.inference.segment import ClipSegmenter, SegmentedClip
from tmanet_jax.metrics import Scores, merged, scores, scores_without


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        classes: names and colours of the classes.
        clip_ids: the N clips that were scored.
        clip_groups: the group of each, or ''.
        confusion_NxCxC: pixels of each clip by (label, prediction), int32.
        shown: some of the clips with their predictions, for pictures.
    """

    classes: ClassSet
    clip_ids: tuple[str, ...]
    clip_groups: tuple[str, ...]
    confusion_NxCxC: np.ndarray
    shown: tuple[SegmentedClip, ...]

    @property
    def num_clips(self) -> int:
        """Clips that were scored."""
        return len(self.clip_ids)

    @property
    def confusion_CxC(self) -> np.ndarray:  # noqa: N802  # the suffix is its shape
        """Pixels of all clips by (label, prediction), int64."""
        return self.confusion_NxCxC.sum(0, dtype=np.int64)

    @property
    def overall(self) -> Scores:
        """Scores over all clips."""
        return scores(self.confusion_CxC)

    @property
    def groups(self) -> dict[str, Scores]:
        """Scores of each group that has a name."""
        group_N = np.array(self.clip_groups)
        return {
            name: scores(self.confusion_NxCxC[group_N == name].sum(0, dtype=np.int64))
            for name in sorted(set(self.clip_groups))
            if name
        }

    @property
    def overlays(self) -> dict[str, np.ndarray]:
        """Pictures (RGB uint8) of the clips to show, by id."""
        return {shown.clip.id: comparison_of(shown, self.classes) for shown in self.shown}

    @property
    def categories(self) -> Scores | None:
        """Scores of the data set's categories, if it has some."""
        categories = categories_of(self.classes)
        if categories is None:
            return None
        return scores(merged(self.confusion_CxC, categories.category_of_class_C))

    @property
    def without_void(self) -> Scores | None:
        """Scores of all classes but void (CamVid's 11), if the data set has one."""
        void = void_class(self.classes)
        return None if void is None else scores_without(self.confusion_CxC, void)

    @property
    def mean_iou_N(self) -> np.ndarray:  # noqa: N802
        """MIoU of each clip; nan for one without a labelled pixel."""
        return np.array([scores(confusion).mean_iou for confusion in self.confusion_NxCxC])

    def worst(self, count: int) -> list[int]:
        """Indices of the clips with the lowest mIoU, the lowest first."""
        mean_iou_N = self.mean_iou_N
        order = np.argsort(mean_iou_N, kind="stable")
        return [int(index) for index in order[:count] if not np.isnan(mean_iou_N[index])]


def evaluate(
    segmenter: ClipSegmenter,
    source: ClipSource,
    on_clip: Callable[[SegmentedClip], None] = lambda segmented: None,
) -> Evaluation:
    """Scores the network on every clip of a split.

    Each process of a run scores the clips i, i + n, ... on its own devices; their confusion
    matrices are exchanged once, at the end. Clips to show are the process's own.

    Args:
        segmenter: the network.
        source: the split; its clips have labels.
        on_clip: called with each clip of this process.
    """
    classes = source.info.classes
    confusion_NxCxC = np.zeros((len(source), *(classes.num_classes,) * 2), np.int32)
    shown: list[SegmentedClip] = []
    mine = range(jax.process_index(), len(source), jax.process_count())
    wanted = evenly_spread(mine, segmenter.config.num_overlays)
    for index, segmented in zip(mine, segment_split(segmenter, source), strict=True):
        confusion_NxCxC[index] = segmented.confusion_CxC
        if index in wanted:
            shown.append(segmented)
        on_clip(segmented)
    return Evaluation(
        classes=classes,
        clip_ids=tuple(source.clip_id(index) for index in range(len(source))),
        clip_groups=tuple(source.group(index) for index in range(len(source))),
        confusion_NxCxC=_sum_over_processes(confusion_NxCxC),
        shown=tuple(shown),
    )


def segment_split(
    segmenter: ClipSegmenter, source: ClipSource, title: str = "evaluate"
) -> "tqdm[SegmentedClip]":
    """Segments this process's clips of a split, with a progress bar."""
    index, count = jax.process_index(), jax.process_count()
    clips = eval_clips(
        source, num_memory=segmenter.num_memory, process_index=index, process_count=count
    )
    return tqdm(
        segmenter.segment(clips),
        total=len(range(index, len(source), count)),
        desc=title,
        unit="clip",
        leave=False,
        disable=None if distributed.is_first() else True,
    )


def evenly_spread(indices: Sequence[int], count: int) -> list[int]:
    """At most `count` of some indices, from the first to the last."""
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return [indices[place] for place in places]


def _sum_over_processes(counts: np.ndarray) -> np.ndarray:
    """Sums int32 counts that are 0 in all processes but one, when all have theirs."""
    if jax.process_count() == 1:
        return counts
    distributed.wait_for_all("scored")
    return np.asarray(multihost_utils.process_allgather(counts)).sum(0, dtype=np.int32)
