"""Evaluation of a split: predictions clip by clip, one confusion matrix a group."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from tmanet_jax.data.classes import IGNORE, ClassSet
from tmanet_jax.data.pipeline import eval_clips
from tmanet_jax.data.records import Clip, ClipSource
from tmanet_jax.inference.overlays import comparison
from tmanet_jax.inference.windows import segment_whole, segment_windows
from tmanet_jax.metrics import ConfusionTotal, Scores, confusion_matrix, scores
from tmanet_jax.models.tmanet import TMANet
from tmanet_jax.normalize import normalize
from tmanet_jax.settings import EvalConfig
from tmanet_jax.sharding import batch_sharding, put_batch, replicated


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        classes: names and colours of the classes.
        confusion_of_group: pixels by (label, prediction), int64 CxC, for each group of clips.
        num_clips: clips that were scored.
        overlays: pictures (RGB uint8) by clip id.
    """

    classes: ClassSet
    confusion_of_group: Mapping[str, np.ndarray]
    num_clips: int
    overlays: Mapping[str, np.ndarray]

    @property
    def overall(self) -> Scores:
        """Scores over all clips."""
        return scores(sum(self.confusion_of_group.values(), start=self._no_pixels()))

    @property
    def groups(self) -> dict[str, Scores]:
        """Scores of each group that has a name."""
        return {name: scores(c) for name, c in sorted(self.confusion_of_group.items()) if name}

    def _no_pixels(self) -> np.ndarray:
        return np.zeros((self.classes.num_classes,) * 2, np.int64)


Predictor = Callable[[nnx.State, nnx.State, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""(params, batch_stats, uint8 frames_BxSxHxWx3, labels_BxHxW) -> (labels_BxHxW, confusion_BxCxC)"""


def compile_predictor(graphdef: nnx.GraphDef, config: EvalConfig, mesh: Mesh) -> Predictor:
    """Segments a batch of clips that is spread over the mesh, and counts right and wrong pixels."""

    def predict(
        params: nnx.State,
        batch_stats: nnx.State,
        frames_BxSxHxWx3: jax.Array,
        labels_BxHxW: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        model: TMANet = nnx.merge(graphdef, params, batch_stats)
        logits_BxHxWxC = _segment(model, frames_BxSxHxWx3, config)
        predicted_BxHxW = logits_BxHxWxC.argmax(-1).astype(jnp.uint8)
        num_classes = logits_BxHxWxC.shape[-1]
        confusion_BxCxC = jax.vmap(lambda p, y: confusion_matrix(p, y, num_classes))(
            predicted_BxHxW, labels_BxHxW
        )
        return predicted_BxHxW, confusion_BxCxC

    whole, spread = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        predict, in_shardings=(whole, whole, spread, spread), out_shardings=(spread, spread)
    )


def _segment(model: TMANet, frames_BxSxHxWx3: jax.Array, config: EvalConfig) -> jax.Array:
    b, _, height, width, _ = frames_BxSxHxWx3.shape
    sizes_Bx2 = jnp.broadcast_to(jnp.array([height, width]), (b, 2))
    frames_BxSxHxWx3 = normalize(frames_BxSxHxWx3, sizes_Bx2)
    if config.mode == "whole":
        return segment_whole(model, frames_BxSxHxWx3)
    return segment_windows(
        lambda windows: segment_whole(model, windows),
        frames_BxSxHxWx3,
        crop=config.crop_size,
        stride=config.stride,
        windows_per_call=config.windows_per_call,
    )


def evaluate(
    predict: Predictor,
    params: nnx.State,
    batch_stats: nnx.State,
    source: ClipSource,
    *,
    num_memory: int,
    config: EvalConfig,
    mesh: Mesh,
) -> Evaluation:
    """Scores the network on every clip of a split.

    Args:
        predict: from `compile_predictor`, for the same `config` and `mesh`.
        params: the network's parameters.
        batch_stats: the network's running statistics.
        source: the split; its clips have labels.
        num_memory: memory frames that the network reads.
        config: how frames are segmented.
        mesh: the devices over which a batch is spread.
    """
    classes = source.info.classes
    totals: dict[str, ConfusionTotal] = {}
    overlays: dict[str, np.ndarray] = {}
    shown = _evenly_spread_ids(source, config.num_overlays)
    batch_size = config.batch_size * mesh.size
    clips = tqdm(
        eval_clips(source, num_memory=num_memory),
        total=len(source),
        desc="evaluate",
        unit="clip",
        leave=False,
    )
    for batch in _batches_of_one_size(clips, batch_size):
        frames_BxSxHxWx3, labels_BxHxW = put_batch(_padded_arrays(batch, batch_size), mesh)
        predicted_BxHxW, confusion_BxCxC = predict(
            params, batch_stats, frames_BxSxHxWx3, labels_BxHxW
        )
        for index, clip in enumerate(batch):
            total = totals.setdefault(clip.group, ConfusionTotal(classes.num_classes))
            total.add(confusion_BxCxC[index], clip.labels_HxW.size)
            if clip.id in shown:
                predicted_HxW = np.asarray(predicted_BxHxW[index])
                frame_HxWx3 = clip.frames_SxHxWx3[-1]
                overlays[clip.id] = comparison(frame_HxWx3, clip.labels_HxW, predicted_HxW, classes)
    confusions = {group: total.result() for group, total in totals.items()}
    return Evaluation(classes, confusions, len(source), overlays)


def _evenly_spread_ids(source: ClipSource, count: int) -> set[str]:
    indices = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
    return {source.clip_id(int(index)) for index in indices}


def _batches_of_one_size(clips: Iterable[Clip], batch_size: int) -> Iterator[list[Clip]]:
    """Runs of at most `batch_size` clips whose frames have the same size, in order."""
    for _, run in itertools.groupby(clips, key=lambda clip: clip.labels_HxW.shape):
        while batch := list(itertools.islice(run, batch_size)):
            yield batch


def _padded_arrays(clips: list[Clip], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames and labels, filled up to `batch_size` with clips whose every label is ignored."""
    frames_BxSxHxWx3 = np.stack([clip.frames_SxHxWx3 for clip in clips])
    labels_BxHxW = np.stack([clip.labels_HxW for clip in clips])
    missing = batch_size - len(clips)
    frames_BxSxHxWx3 = np.pad(frames_BxSxHxWx3, [(0, missing)] + [(0, 0)] * 4)
    labels_BxHxW = np.pad(labels_BxHxW, [(0, missing), (0, 0), (0, 0)], constant_values=IGNORE)
    return frames_BxSxHxWx3, labels_BxHxW
