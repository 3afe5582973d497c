"""Segments whole clips, batch by batch, as a run's evaluation settings say."""

import collections
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from tmanet_jax.compilation_cache import compiling
from tmanet_jax.data.classes import IGNORE, ClassSet
from tmanet_jax.data.clips import Clip
from tmanet_jax.inference.windows import (
    each_view,
    mean_probabilities,
    remarks,
    resized_frames,
)
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tmanet import TMANet, reading
from tmanet_jax.models.upsampling import map_columns
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.sharding import (
    DATA_AXIS,
    batch_sharding,
    local_mesh,
    on_mesh,
    put_batch,
    put_locally,
    replicated,
)
from tmanet_jax.pictures import comparison
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.scoring.metrics import confusion_matrix

_LOGGER = logging.getLogger(__name__)


class SegmentedClip(NamedTuple):
    """A clip and what the network made of it.

    Attributes:
        clip: as it was read.
        predicted_HxW: uint8 train ids of its last frame.
        confusion_CxC: its pixels by (label, prediction), int32; ignored ones left out.
    """

    clip: Clip
    predicted_HxW: np.ndarray
    confusion_CxC: np.ndarray

    def picture(self, classes: ClassSet) -> np.ndarray:
        """Memory frames, query frame, labels, prediction and errors, RGB uint8."""
        clip = self.clip
        return comparison(clip.frames_SxHxWx3, clip.labels_HxW, self.predicted_HxW, classes)


class SegmentsClips(Protocol):
    """What is scored: a network that segments whole clips."""

    @property
    def config(self) -> EvalConfig:
        """How frames are segmented."""

    @property
    def num_memory(self) -> int:
        """Memory frames that the network reads."""

    def segment(self, clips: Iterable[Clip]) -> Iterator[SegmentedClip]:
        """Segments clips of any sizes, in order."""


Predictor = Callable[
    [nnx.State, nnx.State, tuple[jax.Array, ...], jax.Array], tuple[jax.Array, jax.Array]
]
"""(params, batch_stats, uint8 frames_BxSxhxwx3 for each ratio, labels_BxHxW) ->
(labels_BxHxW, confusion_BxCxC)"""


@dataclass(frozen=True)
class SegmenterProgram:
    """A compiled network without weights, on the devices of this process.

    Attributes:
        predict: what runs on the devices.
        num_memory: memory frames that the network reads.
        config: how frames are segmented.
        mesh: the devices over which a batch is spread.
    """

    predict: Predictor
    num_memory: int
    config: EvalConfig
    mesh: Mesh

    def with_weights(self, params: nnx.State, batch_stats: nnx.State) -> "ClipSegmenter":
        """The network with these weights, which may lie on the devices of all processes."""
        return ClipSegmenter(self, *put_locally((params, batch_stats), self.mesh))


@dataclass(frozen=True)
class ClipSegmenter:
    """A network with its weights, on the devices of this process.

    Each process segments clips of its own, so that no batch waits for another process. The T + 1
    frames of a window go through the backbone once, in one call: a clip has one query.

    Attributes:
        program: the compiled network.
        params: its parameters.
        batch_stats: its running statistics.
    """

    program: SegmenterProgram
    params: nnx.State
    batch_stats: nnx.State

    @property
    def config(self) -> EvalConfig:
        """How frames are segmented."""
        return self.program.config

    @property
    def num_memory(self) -> int:
        """Memory frames that the network reads."""
        return self.program.num_memory

    def segment(self, clips: Iterable[Clip]) -> Iterator[SegmentedClip]:
        """Segments clips of any sizes, in order; the next batch runs while one is handed out.

        Tells what is remarkable of their sizes.

        Raises:
            UserError: the protocol's scale leaves nothing of a clip's frames.
        """
        remarked: set[tuple[int, ...]] = set()
        running: collections.deque[tuple[list[Clip], tuple[jax.Array, jax.Array]]]
        running = collections.deque()
        batch_size = self.config.batch_size * self.program.mesh.shape[DATA_AXIS]
        for batch in _batches_of_one_size(clips, batch_size):
            if (size := batch[0].labels_HxW.shape) not in remarked:
                remarked.add(size)
                for line in remarks(self.config.protocol, (size[0], size[1])):
                    distributed.tell(line)
            running.append((batch, self._start(batch, batch_size)))
            if len(running) > 1:
                yield from _results(*running.popleft())
        while running:
            yield from _results(*running.popleft())

    def _start(self, batch: list[Clip], batch_size: int) -> tuple[jax.Array, jax.Array]:
        size = batch[0].labels_HxW.shape
        resized_R = tuple(
            _filled_up([resized_frames(clip.frames_SxHxWx3, new) for clip in batch], batch_size, 0)
            for new in self.config.view_sizes((size[0], size[1]))
        )
        labels_BxHxW = _filled_up([clip.labels_HxW for clip in batch], batch_size, IGNORE)
        inputs = put_batch((resized_R, labels_BxHxW), self.program.mesh)
        return self.program.predict(self.params, self.batch_stats, *inputs)


def compile_segmenter(
    graphdef: nnx.GraphDef, num_memory: int, config: EvalConfig, mesh: Mesh | None = None
) -> SegmenterProgram:
    """Compiles a network, at the first call, for whole clips.

    Args:
        graphdef: the network's.
        num_memory: memory frames that it reads.
        config: how frames are segmented.
        mesh: devices of this process; by default all of them.
    """
    mesh = local_mesh() if mesh is None else mesh
    return SegmenterProgram(_compile_predictor(graphdef, config, mesh), num_memory, config, mesh)


def _compile_predictor(graphdef: nnx.GraphDef, config: EvalConfig, mesh: Mesh) -> Predictor:
    """Segments a batch of clips that is spread over the mesh, and counts right and wrong pixels."""

    def predict(
        params: nnx.State,
        batch_stats: nnx.State,
        resized: tuple[jax.Array, ...],
        labels_BxHxW: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        model: TMANet = nnx.merge(graphdef, params, batch_stats)
        model = reading(model, config.protocol.neighbourhood)
        _, height, width = labels_BxHxW.shape
        _LOGGER.info(compiling(f"the network for clips of {height}x{width}"))  # once a size

        views = each_view(
            lambda frames_BxSxhxwx3: model(frames_BxSxhxwx3).main,
            [normalize(frames_BxSxhxwx3) for frames_BxSxhxwx3 in resized],
            config,
            size=(height, width),
            align_corners=model.config.align_corners,
        )
        predicted_BxHxW = map_columns(
            lambda logits: mean_probabilities(logits).argmax(-1).astype(jnp.uint8), views
        )
        num_classes = model.config.head.num_classes
        confusion_BxCxC = jax.vmap(lambda p, y: confusion_matrix(p, y, num_classes))(
            predicted_BxHxW, labels_BxHxW
        )
        return predicted_BxHxW, confusion_BxCxC

    whole, spread = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        on_mesh(predict, mesh),
        in_shardings=(whole, whole, spread, spread),
        out_shardings=(spread, spread),
    )


def _batches_of_one_size(clips: Iterable[Clip], batch_size: int) -> Iterator[list[Clip]]:
    """Runs of at most `batch_size` clips whose frames have the same size, in order."""
    for _, run in itertools.groupby(clips, key=lambda clip: clip.labels_HxW.shape):
        while batch := list(itertools.islice(run, batch_size)):
            yield batch


def _filled_up(arrays: Iterable[np.ndarray], batch_size: int, value: int) -> np.ndarray:
    """The arrays as one batch, filled up to `batch_size` with arrays of `value`."""
    batch = np.stack(list(arrays))
    missing = [(0, batch_size - len(batch))] + [(0, 0)] * (batch.ndim - 1)
    return np.pad(batch, missing, constant_values=value)


def _results(batch: list[Clip], outputs: tuple[jax.Array, jax.Array]) -> Iterator[SegmentedClip]:
    predicted_BxHxW, confusion_BxCxC = (np.asarray(output) for output in outputs)
    for index, clip in enumerate(batch):
        yield SegmentedClip(clip, predicted_BxHxW[index], confusion_BxCxC[index])
