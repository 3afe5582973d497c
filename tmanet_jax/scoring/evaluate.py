"""Evaluation of a split: sums of confusion matrices, their scores, and one mIoU a clip."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from tmanet_jax.data.classes import ClassSet, categories_of, void_class
from tmanet_jax.data.pipeline import eval_clips
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.errors import counted
from tmanet_jax.parallel import distributed
from tmanet_jax.progress import with_progress
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.scoring.clips import SegmentedClip, SegmentsClips
from tmanet_jax.scoring.metrics import Scores, merged, scores, scores_without
from tmanet_jax.scoring.temporal import TemporalScores


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        classes: names and colours of the classes.
        clip_ids: the N clips that were scored.
        confusion_of_group: pixels by (label, prediction), CxC int64, of the clips of each group;
            of those without one under ''.
        mean_iou_N: mIoU of each clip, float64; nan for one without a labelled pixel.
        shown: some of the clips with their predictions, for pictures.
    """

    classes: ClassSet
    clip_ids: tuple[str, ...]
    confusion_of_group: Mapping[str, np.ndarray]
    mean_iou_N: np.ndarray  # the suffix is its shape
    shown: tuple[SegmentedClip, ...]

    @property
    def num_clips(self) -> int:
        """Clips that were scored."""
        return len(self.clip_ids)

    @property
    def confusion_CxC(self) -> np.ndarray:  # noqa: N802  # the suffix is its shape
        """Pixels of all clips by (label, prediction), int64."""
        return np.sum(list(self.confusion_of_group.values()), axis=0)

    @property
    def overall(self) -> Scores:
        """Scores over all clips."""
        return scores(self.confusion_CxC)

    @property
    def groups(self) -> dict[str, Scores]:
        """Scores of each group that has a name."""
        return {
            name: scores(confusion_CxC)
            for name, confusion_CxC in self.confusion_of_group.items()
            if name
        }

    @property
    def overlays(self) -> dict[str, np.ndarray]:
        """Pictures (RGB uint8) of the clips to show, by id."""
        return {shown.clip.id: shown.picture(self.classes) for shown in self.shown}

    @property
    def other_scores(self) -> dict[str, tuple[Scores, tuple[str, ...]]]:
        """What a data set scores besides its classes, each with the names of what is scored."""
        found: dict[str, tuple[Scores, tuple[str, ...]]] = {}
        categories, void = categories_of(self.classes), void_class(self.classes)
        if categories is not None:
            merged_KxK = merged(self.confusion_CxC, categories.category_of_class_C)
            found["categories"] = scores(merged_KxK), categories.names
        if void is not None:  # the other classes are CamVid's 11
            names = self.classes.names[:void] + self.classes.names[void + 1 :]
            found["without_void"] = scores_without(self.confusion_CxC, void), names
        return found

    def worst(self, count: int) -> list[int]:
        """Indices of clips with the lowest mIoU, the lowest first; at most a third of all."""
        order = np.argsort(self.mean_iou_N, kind="stable")[
            : min(count, -(-len(self.mean_iou_N) // 3))
        ]
        return [int(index) for index in order if not np.isnan(self.mean_iou_N[index])]


class Tally:
    """Adds up the confusion matrices of clips, in any order, and scores each clip.

    Args:
        classes: of the matrices.
        clip_ids: of all clips.
        clip_groups: the group of each, or ''.
    """

    def __init__(self, classes: ClassSet, clip_ids: Sequence[str], clip_groups: Sequence[str]):
        self._classes, self._clip_ids, self._clip_groups = classes, clip_ids, clip_groups
        self._groups = sorted(set(clip_groups))
        shape = (len(self._groups), classes.num_classes, classes.num_classes)
        self._confusion_GxCxC = np.zeros(shape, np.int64)
        self._mean_iou_N = np.zeros(len(clip_ids))

    @classmethod
    def of_split(cls, records: ClipRecords) -> "Tally":
        """For the clips of a split."""
        indices = range(len(records))
        return cls(
            records.info.classes,
            [records.clip_id(index) for index in indices],
            [records.group(index) for index in indices],
        )

    def add(self, index: int, confusion_CxC: np.ndarray) -> None:
        """Adds a clip, once in all processes together."""
        group = self._groups.index(self._clip_groups[index])
        self._confusion_GxCxC[group] += confusion_CxC
        self._mean_iou_N[index] = scores(confusion_CxC).mean_iou

    def evaluation(self, shown: Sequence[SegmentedClip] = ()) -> Evaluation:
        """What all processes added; each has to call it."""
        confusion_GxCxC = sum_over_processes(self._confusion_GxCxC)
        return Evaluation(
            classes=self._classes,
            clip_ids=tuple(self._clip_ids),
            confusion_of_group=dict(zip(self._groups, confusion_GxCxC, strict=True)),
            mean_iou_N=sum_over_processes(self._mean_iou_N),
            shown=tuple(shown),
        )


def evaluate(
    segmenter: SegmentsClips,
    records: ClipRecords,
    on_clip: Callable[[SegmentedClip], None] = lambda segmented: None,
) -> Evaluation:
    """Scores the network on every clip of a split.

    Each process of a run scores the clips i, i + n, ... on its own devices; their sums are
    exchanged once, at the end. Clips to show are the process's own.

    Args:
        segmenter: the network.
        records: the split; its clips have labels.
        on_clip: called with each clip of this process.

    Returns:
        Pixels by (label, prediction), scores of them (fractions), and clips to show.

    Raises:
        UserError: the protocol's scale leaves nothing of a clip's frames.
    """
    tally = Tally.of_split(records)
    shown: list[SegmentedClip] = []
    mine = range(jax.process_index(), len(records), jax.process_count())
    wanted = evenly_spread(mine, segmenter.config.num_overlays)
    for index, segmented in zip(mine, segment_split(segmenter, records), strict=True):
        tally.add(index, segmented.confusion_CxC)
        if index in wanted:
            shown.append(segmented)
        on_clip(segmented)
    return tally.evaluation(shown)


@dataclasses.dataclass(frozen=True)
class Assessment:
    """An evaluation and what is told of it.

    Attributes:
        evaluation: the scores.
        how: the clips were segmented.
        step: of the weights.
        split: that was scored.
        computation: what computed the network, in words.
        weights: the file of them; empty: a checkpoint of the workdir.
        worst: the clips with the lowest mIoU, the lowest first.
        player: neighbouring frames for the page's player; empty: the evaluation's clips to show.
        temporal: consistency over time, of an evaluation of videos.
    """

    evaluation: Evaluation
    how: EvalConfig
    step: int
    split: str
    computation: str
    weights: str = ""
    worst: Sequence[SegmentedClip] = ()
    player: Sequence[SegmentedClip] = ()
    temporal: TemporalScores | None = None

    @property
    def title(self) -> str:
        """What was scored, in words."""
        clips = counted(self.evaluation.num_clips, "clip")
        return f"step {self.step}, {clips} of {self.split}, {self.computation}"


def assess(
    evaluation: Evaluation,
    segmenter: SegmentsClips,
    records: ClipRecords,
    step: int,
    computation: str,
) -> Assessment:
    """With the worst clips, which are segmented once more.

    Args:
        evaluation: of the split.
        segmenter: the network.
        records: the split.
        step: of the weights.
        computation: what computes the network, in words.
    """
    worst = evaluation.worst(segmenter.config.num_worst)
    offsets = range(segmenter.num_memory, 0, -1)
    return Assessment(
        evaluation=evaluation,
        how=segmenter.config,
        step=step,
        split=records.split,
        computation=computation,
        worst=list(segmenter.segment(records.read(index, offsets) for index in worst)),
    )


def segment_split(
    segmenter: SegmentsClips, records: ClipRecords, title: str = "evaluate"
) -> Iterator[SegmentedClip]:
    """Segments this process's clips of a split, with a progress bar."""
    index, count = jax.process_index(), jax.process_count()
    clips = eval_clips(
        records, num_memory=segmenter.num_memory, process_index=index, process_count=count
    )
    return with_progress(
        segmenter.segment(clips),
        title,
        "clip",
        len(range(index, len(records), count)),
        is_shown=distributed.is_first(),
        stays=False,
    )


def evenly_spread(indices: Sequence[int], count: int) -> list[int]:
    """At most `count` of some indices, from the first to the last."""
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return [indices[place] for place in places]


def sum_over_processes(array: np.ndarray) -> np.ndarray:
    """The sum of all processes' arrays of 64 bits, exact, when all have theirs.

    They travel as bytes: jax would make 32 bits of them.
    """
    if jax.process_count() == 1:
        return array
    distributed.wait_for_all("scored")
    bytes_L = np.frombuffer(array.tobytes(), np.uint8)
    bytes_PxL = np.asarray(multihost_utils.process_allgather(bytes_L))
    return np.frombuffer(bytes_PxL.tobytes(), array.dtype).reshape(-1, *array.shape).sum(0)
