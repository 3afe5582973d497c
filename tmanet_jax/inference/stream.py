"""Streaming: each frame of a video goes through the backbone once, and its memory is kept.

Every position of the memory has an encoder of its own, so that what one position made of a frame
is of no use to another. A frame is therefore encoded for all positions when it arrives, and each
encoding waits until its position needs it: with memory frames `stride` frames apart, position t of
T (0 the oldest) reads the frame that came `(T - t) * stride` frames before the query. The state
holds T * (T + 1) / 2 * stride encoded frames, and its size never changes.

The result is that of the whole clip (`TMANet.__call__`) at every frame. Where a video has no
earlier frame, its first one stands in, as the preparation of clips does it.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from tmanet_jax.compilation_cache import compiling
from tmanet_jax.inference.windows import (
    cut_windows,
    remarks,
    resized_frames,
    windows_of,
)
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tmanet import TMANet, reading
from tmanet_jax.models.upsampling import HalfUpsampled, labels_by_columns, labels_of
from tmanet_jax.protocol import Protocol

PIXELS_AT_A_TIME = 5_000_000
"""Of frames or windows that the network sees in one call: eight of 769x769."""

Rings = tuple[Any, ...]
"""For each position of the memory."""

_LOGGER = logging.getLogger(__name__)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StreamState:
    """What streams remember; N images are B streams, or the W x B windows of their frames.

    W is filled up so that the windows come in equal groups.

    The ring of position t holds the `delay` newest encodings: that of a stream's frame `age` lies
    at `age % delay`.

    Attributes:
        rings: for each position of the memory what it remembers (a pytree), delayxNx...
        age_B: frames that each stream has had since its start, int32.
    """

    rings: Rings
    age_B: jax.Array


class StreamOutput(NamedTuple):
    """What a step says of the newest frames."""

    labels_BxHxW: jax.Array
    """uint8"""
    logits_NxhxwxC: jax.Array
    """At the network's stride, of whole (resized) frames or windows, for
    `StreamingNetwork.probabilities`."""


PureStep = Callable[
    [nnx.State, StreamState, jax.Array, jax.Array], tuple[StreamState, StreamOutput]
]
"""Weights, state, frames_BxHxWx3 and reset_B -> as `StreamingNetwork.step` returns."""


class StreamingNetwork:
    """The network as a step from frame to frame, compiled once for each size and batch.

    Args:
        model: its parameters are used as they are now.
        protocol: how frames are segmented.

    Raises:
        UserError: the network's head cannot read a neighbourhood.
    """

    def __init__(self, model: TMANet, protocol: Protocol):
        self.protocol = protocol
        self.model_config = model.config
        self._remarked: set[tuple[int, int]] = set()
        self._graphdef, self._weights = nnx.split(reading(model, protocol.neighbourhood))
        self._remembered = functools.cache(model.remembered)
        self._step = jax.jit(self._step_of_weights, donate_argnums=1, static_argnums=4)
        self._probabilities = jax.jit(
            lambda logits, *shape: jax.nn.softmax(self._upsampled(logits, *shape).whole(), axis=-1),
            static_argnums=(1, 2),
        )

    @property
    def reach(self) -> int:
        """How many frames before a frame its result depends on."""
        return self.model_config.head.num_memory * self.protocol.memory_stride

    def start(self, batch_size: int, size: tuple[int, int]) -> StreamState:
        """The state of streams that have had no frame yet; tells what is remarkable of the size.

        Args:
            batch_size: B, streams that go on together.
            size: height and width of their frames in pixels.

        Raises:
            UserError: the protocol's scale leaves nothing of such frames.
        """
        self.tell_of(size)
        shapes = self.shapes_of_state(batch_size, size)
        return jax.device_put(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))

    def tell_of(self, size: tuple[int, int]) -> None:
        """Logs, once a size, that it is compiled for and what is remarkable of such frames."""
        if size not in self._remarked:
            self._remarked.add(size)
            for line in remarks(self.protocol, size):
                _LOGGER.warning(line)
            _LOGGER.info(compiling(f"the network for frames of {size[0]}x{size[1]}"))

    def shapes_of_state(self, batch_size: int, size: tuple[int, int]) -> StreamState:
        """`start`, with a `jax.ShapeDtypeStruct` for each array; an export's size may be open."""
        resized = self.protocol.size_of(size)
        num_groups, group, _ = self._in_groups(batch_size, resized).shape
        num_images = num_groups * group * batch_size
        remembered = self._remembered(num_images, windows_of(self.protocol, resized).crop)
        rings = (
            jax.tree.map(
                lambda x, delay=delay: jax.ShapeDtypeStruct((delay, *x.shape), x.dtype), shapes
            )
            for delay, shapes in zip(self._delays(), remembered, strict=True)
        )
        age_B: Any = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        return StreamState(tuple(rings), age_B)

    def step(
        self,
        state: StreamState,
        frames_BxHxWx3: jax.Array | np.ndarray,
        reset_B: jax.Array | np.ndarray,
    ) -> tuple[StreamState, StreamOutput]:
        """Segments the newest frame of each stream, with one pass of the backbone.

        Args:
            state: given away; only the one that is returned can be used afterwards.
            frames_BxHxWx3: uint8 RGB, of the size that the state was started with.
            reset_B: bool; a stream whose value is true forgets its past before this frame, as at a
                scene cut.
        """
        _, height, width, _ = frames_BxHxWx3.shape
        resized = self.protocol.size_of((height, width))
        if resized != (height, width):
            frames_BxHxWx3 = resized_frames(np.asarray(frames_BxHxWx3), resized)
        return self._step(self._weights, state, frames_BxHxWx3, reset_B, (height, width))

    def pure_step(self, size: tuple[int, int]) -> tuple[PureStep, nnx.State]:
        """The step of frames that need no resizing, as a function of weights, and its weights.

        Args:
            size: height and width of the frames in pixels.
        """

        def step(
            weights: nnx.State, state: StreamState, frames_BxHxWx3: jax.Array, reset_B: jax.Array
        ) -> tuple[StreamState, StreamOutput]:
            return self._step_of_weights(
                weights, state, frames_BxHxWx3, reset_B, size, labels_by_columns
            )

        return step, self._weights

    def probabilities(self, output: StreamOutput) -> jax.Array:
        """Class probabilities of the frames of a step, float32 BxHxWxC."""
        batch_size, *size = output.labels_BxHxW.shape
        return self._probabilities(output.logits_NxhxwxC, batch_size, tuple(size))

    def _delays(self) -> tuple[int, ...]:
        """How many frames the encoding of each position waits, the oldest position's first."""
        num_memory = self.model_config.head.num_memory
        return tuple((num_memory - t) * self.protocol.memory_stride for t in range(num_memory))

    def _in_groups(self, batch_size: int, size: tuple[int, int]) -> np.ndarray:
        """Origins of the windows of (resized) frames, so many at a time as memory may hold."""
        windows = windows_of(self.protocol, size)
        if len(windows) == 1:
            return windows.in_groups(1)
        pixels = batch_size * windows.crop[0] * windows.crop[1]
        return windows.in_groups(max(PIXELS_AT_A_TIME // pixels, 1))

    def _step_of_weights(
        self,
        weights: nnx.State,
        state: StreamState,
        frames_BxHxWx3: jax.Array,
        reset_B: jax.Array,
        size: tuple[int, int],
        labelled: Callable[[HalfUpsampled], jax.Array] = labels_of,
    ) -> tuple[StreamState, StreamOutput]:
        """The step of resized frames that have `size` themselves."""
        model: TMANet = nnx.merge(self._graphdef, weights)
        b, height, width, _ = frames_BxHxWx3.shape
        crop = windows_of(self.protocol, (height, width)).crop
        origins_KxGx2 = jnp.asarray(self._in_groups(b, (height, width)))
        num_groups, group, _ = origins_KxGx2.shape
        images_BxHxWx3 = normalize(frames_BxHxWx3[:, None])[:, 0]
        age_B = jnp.where(reset_B, 0, state.age_B)

        def see_group(rings: Rings, some: tuple[jax.Array, jax.Array]) -> tuple[Rings, jax.Array]:
            origins_Gx2, index = some
            images_GxBxhxwx3 = cut_windows(images_BxHxWx3, origins_Gx2, crop)
            images_Mxhxwx3 = images_GxBxhxwx3.reshape(group * b, *crop, 3)
            places_M = index * group * b + jnp.arange(group * b)
            return _see(model, images_Mxhxwx3, rings, jnp.tile(age_B, group), places_M)

        rings, logits_KxMxhxwxC = lax.scan(
            see_group, state.rings, (origins_KxGx2, jnp.arange(num_groups))
        )
        state = StreamState(rings, age_B + 1)
        logits_NxhxwxC = logits_KxMxhxwxC.reshape(-1, *logits_KxMxhxwxC.shape[2:])
        labels_BxHxW = labelled(self._upsampled(logits_NxhxwxC, b, size))
        return state, StreamOutput(labels_BxHxW, logits_NxhxwxC)

    def _upsampled(
        self, logits_NxhxwxC: jax.Array, batch_size: int, size: tuple[int, int]
    ) -> HalfUpsampled:
        """Logits at the network's stride, on their way to the frames' own size."""
        windows = windows_of(self.protocol, self.protocol.size_of(size))
        return windows.half_upsampled(
            logits_NxhxwxC.reshape(-1, batch_size, *logits_NxhxwxC.shape[1:]),
            size,
            align_corners=self.model_config.align_corners,
        )


def _see(
    model: TMANet,
    images_MxHxWx3: jax.Array,
    rings: Rings,
    age_M: jax.Array,
    places_M: jax.Array,
) -> tuple[Rings, jax.Array]:
    """Segments some of the images of a step.

    Args:
        model: the network.
        images_MxHxWx3: normalised.
        rings: of all images.
        age_M: frames that the stream of each has had before.
        places_M: of each in the rings.

    Returns:
        the rings, which these images have entered, and MxhxwxC logits at the network's stride.
    """
    query = model.encode(images_MxHxWx3)
    newest = model.remember(query)
    memory = [
        jax.tree.map(lambda all_, new: _recall(all_, new, age_M, places_M), ring, encoded)
        for ring, encoded in zip(rings, newest, strict=True)
    ]
    logits_MxhxwxC = model.read(query, memory)
    rings = tuple(
        jax.tree.map(lambda all_, new: _remember(all_, new, age_M, places_M), ring, encoded)
        for ring, encoded in zip(rings, newest, strict=True)
    )
    return rings, logits_MxhxwxC


def _recall(
    ring_LxNx: jax.Array, newest_Mx: jax.Array, age_M: jax.Array, places_M: jax.Array
) -> jax.Array:
    """What came min(age, L) frames ago: Mx... At a stream's first frame that is the newest."""
    delay = len(ring_LxNx)
    slot_M = jnp.where(age_M < delay, 0, age_M % delay)
    is_first_Mx = (age_M == 0).reshape(-1, *[1] * (newest_Mx.ndim - 1))
    return jnp.where(is_first_Mx, newest_Mx, ring_LxNx[slot_M, places_M])


def _remember(
    ring_LxNx: jax.Array, newest_Mx: jax.Array, age_M: jax.Array, places_M: jax.Array
) -> jax.Array:
    slot_M = age_M % len(ring_LxNx)
    return ring_LxNx.at[slot_M, places_M].set(newest_Mx)
