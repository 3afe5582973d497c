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
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tmanet_jax.errors import UserError
from tmanet_jax.inference.windows import Windows, cut_windows, merge_windows, place_windows
from tmanet_jax.models.heads import KeyValue
from tmanet_jax.models.layers import resize_bilinear
from tmanet_jax.models.tmanet import ModelConfig, TMANet, feature_size
from tmanet_jax.normalize import normalize


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """How the frames of a video are segmented.

    Attributes:
        mode: "whole" (the frame at once) or "slide" (windows, each with a memory of its own).
        crop_size: height and width of a window in pixels.
        stride: from window to window, down and to the right, in pixels.
        memory_stride: frames from one memory frame to the next.

    Raises:
        UserError: a value cannot be, or windows would leave gaps between them.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop_size: tuple[int, int] = (769, 769)
    stride: tuple[int, int] = (513, 513)
    memory_stride: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("whole", "slide"):
            raise UserError(f"mode is {self.mode!r}: choose 'whole' or 'slide'.")
        if self.memory_stride < 1:
            raise UserError(f"memory_stride is {self.memory_stride}: it must be at least 1.")
        if any(not 1 <= s <= c for s, c in zip(self.stride, self.crop_size, strict=True)):
            raise UserError(
                f"stride is {self.stride}: windows of {self.crop_size} need a stride from 1 to "
                "their own size each way, or they leave gaps."
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StreamState:
    """What streams remember; N images are B streams, or the W x B windows of their frames.

    The ring of position t holds the `delay` newest encodings: that of a stream's frame `age` lies
    at `age % delay`.

    Attributes:
        keys: for each position of the memory delayxNxhxwxK.
        values: for each position of the memory delayxNxhxwxV.
        age_B: frames that each stream has had since its start, int32.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    age_B: jax.Array


class StreamOutput(NamedTuple):
    """What a step says of the newest frames."""

    labels_BxHxW: jax.Array
    """uint8"""
    logits_NxhxwxC: jax.Array
    """At stride 8, of whole frames or of windows; `FrameStream.probabilities` takes them."""


class FrameStream:
    """The network as a step from frame to frame, compiled once for each size and batch.

    Args:
        model: its parameters are used as they are now.
        config: how frames are segmented.
    """

    def __init__(self, model: TMANet, config: StreamConfig):
        self.config = config
        self.model_config = model.config
        self._graphdef, self._weights = nnx.split(model)
        self._step = jax.jit(self._step_of_weights, donate_argnums=1)
        self._probabilities = jax.jit(
            lambda logits, size: jax.nn.softmax(self._full_logits(logits, size), axis=-1),
            static_argnums=1,
        )

    @property
    def reach(self) -> int:
        """How many frames before a frame its result depends on."""
        return self.model_config.head.num_memory * self.config.memory_stride

    def start(self, batch_size: int, size: tuple[int, int]) -> StreamState:
        """The state of streams that have had no frame yet.

        Args:
            batch_size: B, streams that go on together.
            size: height and width of their frames in pixels.
        """
        windows = self._windows(size)
        images = batch_size * (len(windows) if windows else 1)
        return _empty_state(
            self.model_config,
            self._delays(),
            images,
            feature_size(windows.crop if windows else size),
            batch_size,
        )

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
        return self._step(self._weights, state, frames_BxHxWx3, reset_B)

    def lower(
        self, batch_size: int, size: tuple[int, int], sharding: jax.sharding.Sharding
    ) -> jax.stages.Lowered:
        """The program of `step` for devices that need not be at hand.

        Args:
            batch_size: B, streams that go on together.
            size: height and width of their frames in pixels.
            sharding: of everything that goes in.
        """
        state = jax.eval_shape(lambda: self.start(batch_size, size))
        frames = jax.ShapeDtypeStruct((batch_size, *size, 3), jnp.uint8)
        reset = jax.ShapeDtypeStruct((batch_size,), jnp.bool_)
        arguments = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            (self._weights, state, frames, reset),
        )
        return self._step.lower(*arguments)

    def probabilities(self, output: StreamOutput) -> jax.Array:
        """Class probabilities of the frames of a step, float32 BxHxWxC."""
        _, height, width = output.labels_BxHxW.shape
        return self._probabilities(output.logits_NxhxwxC, (height, width))

    def _delays(self) -> tuple[int, ...]:
        """How many frames the encoding of each position waits, the oldest position's first."""
        num_memory = self.model_config.head.num_memory
        return tuple((num_memory - t) * self.config.memory_stride for t in range(num_memory))

    def _windows(self, size: tuple[int, int]) -> Windows | None:
        if self.config.mode == "whole":
            return None
        return place_windows(size, self.config.crop_size, self.config.stride)

    def _step_of_weights(
        self,
        weights: nnx.State,
        state: StreamState,
        frames_BxHxWx3: jax.Array,
        reset_B: jax.Array,
    ) -> tuple[StreamState, StreamOutput]:
        model: TMANet = nnx.merge(self._graphdef, weights)
        b, height, width, _ = frames_BxHxWx3.shape
        sizes_Bx2 = jnp.broadcast_to(jnp.array([height, width]), (b, 2))
        images_NxHxWx3 = normalize(frames_BxHxWx3[:, None], sizes_Bx2)[:, 0]
        if windows := self._windows((height, width)):
            origins_Wx2 = jnp.asarray(windows.origins_Wx2)
            images_WxBxhxwx3 = cut_windows(images_NxHxWx3, origins_Wx2, windows.crop)
            images_NxHxWx3 = images_WxBxhxwx3.reshape(len(windows) * b, *windows.crop, 3)

        stage4_NxhxwxC = model.encode(images_NxHxWx3).stage4
        query = model.head.query_encoder(stage4_NxhxwxC, train=False)
        newest = model.head.encode_memory([stage4_NxhxwxC] * len(state.keys), train=False)
        age_B = jnp.where(reset_B, 0, state.age_B)
        age_N = jnp.tile(age_B, len(stage4_NxhxwxC) // b)
        memory = [
            KeyValue(_recall(keys, new.key, age_N), _recall(values, new.value, age_N))
            for keys, values, new in zip(state.keys, state.values, newest, strict=True)
        ]
        logits_NxhxwxC = model.head.classify(model.head.read(query, memory), train=False)
        labels_BxHxW = self._full_logits(logits_NxhxwxC, (height, width)).argmax(-1)

        state = StreamState(
            keys=tuple(
                _remember(ring, new.key, age_N)
                for ring, new in zip(state.keys, newest, strict=True)
            ),
            values=tuple(
                _remember(ring, new.value, age_N)
                for ring, new in zip(state.values, newest, strict=True)
            ),
            age_B=age_B + 1,
        )
        return state, StreamOutput(labels_BxHxW.astype(jnp.uint8), logits_NxhxwxC)

    def _full_logits(self, logits_NxhxwxC: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Logits at stride 8 -> logits of the frames at their own size, BxHxWxC."""
        windows = self._windows(size)
        logits = resize_bilinear(
            logits_NxhxwxC,
            windows.crop if windows else size,
            align_corners=self.model_config.align_corners,
        )
        if windows is None:
            return logits
        logits_WxBxhxwxC = logits.reshape(len(windows), -1, *logits.shape[1:])
        return merge_windows(logits_WxBxhxwxC, windows)


def _empty_state(
    model: ModelConfig,
    delays: tuple[int, ...],
    images: int,
    features: tuple[int, int],
    batch_size: int,
) -> StreamState:
    def rings(channels: int) -> tuple[jax.Array, ...]:
        return tuple(
            jnp.zeros((delay, images, *features, channels), model.dtype) for delay in delays
        )

    return StreamState(
        keys=rings(model.head.key_channels),
        values=rings(model.head.value_channels),
        age_B=jnp.zeros(batch_size, jnp.int32),
    )


def _recall(ring_LxNxhxwxC: jax.Array, newest_NxhxwxC: jax.Array, age_N: jax.Array) -> jax.Array:
    """What came min(age, L) frames ago: NxhxwxC. At a stream's first frame that is the newest."""
    delay, n = ring_LxNxhxwxC.shape[:2]
    slot_N = jnp.where(age_N < delay, 0, age_N % delay)
    recalled_NxhxwxC = ring_LxNxhxwxC[slot_N, jnp.arange(n)]
    return jnp.where((age_N == 0)[:, None, None, None], newest_NxhxwxC, recalled_NxhxwxC)


def _remember(ring_LxNxhxwxC: jax.Array, newest_NxhxwxC: jax.Array, age_N: jax.Array) -> jax.Array:
    delay, n = ring_LxNxhxwxC.shape[:2]
    return ring_LxNxhxwxC.at[age_N % delay, jnp.arange(n)].set(newest_NxhxwxC)
