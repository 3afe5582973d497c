"""What a frame reads from its memory: exactly the weights with which the network reads.

    read = read_of_memory(loaded.model, frames_SxHxWx3, loaded.protocol)
    maps_PxTxhxw = read.attention([read.position_of((64, 128))])

Positions are those of the features: pixel (y, x) lies at (y * h // H, x * w // W).
"""

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike

from tmanet_jax.errors import UserError
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.tma_head import TMAHead
from tmanet_jax.models.tmanet import TMANet, reading
from tmanet_jax.models.upsampling import half_upsampled, labels_of
from tmanet_jax.protocol import Protocol

_SCORES_AT_A_TIME = 2**24


@dataclasses.dataclass(frozen=True)
class MemoryRead:
    """A frame's read of T memory frames whose features have h x w positions.

    Attributes:
        labels_HxW: what the network makes of the frame, uint8.
        labels_alone_HxW: the same with the frame itself in every place of its memory.
        memory_share_hxw: how much of the bottleneck's sum the memory's half makes up, by the norms
            of both halves: 0 nothing, 1 all.
        query_key_NxK: float32, N = h * w.
        memory_key_MxK: float32, M = T * h * w, the oldest frame first.
        shape: T, h and w.
        scale: of the scores.
        neighbourhood: see `TMAHeadConfig.neighbourhood`.
    """

    labels_HxW: np.ndarray
    labels_alone_HxW: np.ndarray
    memory_share_hxw: np.ndarray
    query_key_NxK: np.ndarray
    memory_key_MxK: np.ndarray
    shape: tuple[int, int, int]
    scale: float
    neighbourhood: int | None

    def position_of(self, pixel: tuple[int, int]) -> tuple[int, int]:
        """Row and column of the features that a pixel, its row and column, lies in."""
        (height, width), (_, h, w) = self.labels_HxW.shape, self.shape
        return pixel[0] * h // height, pixel[1] * w // width

    def attention(self, positions_Px2: ArrayLike) -> np.ndarray:
        """The weights of every memory position for some of the query's, PxTxhxw; of each sum 1.

        Args:
            positions_Px2: row and column of each.

        Raises:
            ValueError: one lies outside.
        """
        at_P = np.ravel_multi_index(tuple(np.asarray(positions_Px2).T), self.shape[1:])
        weights_PxM = self._weights(at_P)
        return weights_PxM.reshape(-1, *self.shape)

    def entropy(self) -> np.ndarray:
        """Of the read of each position, float32 hxw: 0 one memory position, 1 all alike."""
        entropy_N = np.concatenate([*self._entropies()])
        return (entropy_N / math.log(len(self.memory_key_MxK))).reshape(self.shape[1:])

    def _entropies(self) -> Iterator[np.ndarray]:
        """In blocks of bounded memory."""
        blocks = math.ceil(len(self.query_key_NxK) * len(self.memory_key_MxK) / _SCORES_AT_A_TIME)
        for at_P in np.array_split(np.arange(len(self.query_key_NxK)), blocks):
            weights_PxM = self._weights(at_P)
            surprise_PxM = -np.log(np.maximum(weights_PxM, np.finfo(np.float32).tiny))
            yield (weights_PxM * surprise_PxM).sum(1)

    def _weights(self, at_P: np.ndarray) -> np.ndarray:
        """PxM, for some of the query's N positions."""
        scores_PxM = self.scale * (self.query_key_NxK[at_P] @ self.memory_key_MxK.T)
        if self.neighbourhood is not None:
            scores_PxM = np.where(self.is_near(at_P, self.neighbourhood), scores_PxM, -np.inf)
        weights_PxM = np.exp(scores_PxM - scores_PxM.max(1, keepdims=True))
        return weights_PxM / weights_PxM.sum(1, keepdims=True)

    def is_near(self, at_P: np.ndarray, distance: int) -> np.ndarray:
        """PxM: whether a memory position lies so near some of the query's N, each way."""
        places_2xN = np.indices(self.shape[1:]).reshape(2, -1)
        apart_PxN = np.abs(places_2xN[:, at_P, None] - places_2xN[:, None]).max(0)
        return np.tile(apart_PxN <= distance, self.shape[0])


def read_of_memory(
    model: TMANet, frames_SxHxWx3: np.ndarray, protocol: Protocol | None = None
) -> MemoryRead:
    """What the last frame of a clip reads of those before it.

    Args:
        model: with a TMA head and a memory.
        frames_SxHxWx3: uint8 RGB, the T memory frames first, oldest at 0.
        protocol: how frames are segmented, as weights carry it (`LoadedModel.protocol`): within its
            neighbourhood is read; None: as the network was trained.

    Raises:
        UserError: the network has no such memory, or the clip another length.
    """
    model = reading(model, protocol.neighbourhood if protocol else None)
    head = model.head
    if not isinstance(head, TMAHead) or not head.config.num_memory:
        raise UserError("The network has no memory that a TMA head reads: nothing can be shown.")
    num_memory = head.config.num_memory
    if len(frames_SxHxWx3) != num_memory + 1:
        raise UserError(
            f"The network reads {num_memory} memory frames and a query: {num_memory + 1} frames "
            f"are needed, found {len(frames_SxHxWx3)}."
        )
    query_key, memory_keys, share_hxw, labels = jax.tree.map(
        np.asarray, _look(model, jnp.asarray(frames_SxHxWx3))
    )
    key_channels = query_key.shape[-1]
    return MemoryRead(
        labels_HxW=labels[0],
        labels_alone_HxW=labels[1],
        memory_share_hxw=share_hxw,
        query_key_NxK=query_key.reshape(-1, key_channels),
        memory_key_MxK=memory_keys.reshape(-1, key_channels),
        shape=(num_memory, *share_hxw.shape),
        scale=head.config.score_scale,
        neighbourhood=head.neighbourhood,
    )


@nnx.jit
def _look(
    model: TMANet, frames_SxHxWx3: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Keys hxwxK and TxhxwxK, the memory's share hxw, labels 2xHxW: with the memory, and alone."""
    head = model.head
    assert isinstance(head, TMAHead)
    stages = model.encode(normalize(frames_SxHxWx3[None])[0])
    *memory_frames, query = (
        jax.tree.map(lambda x_SxhxwxC, s=s: x_SxhxwxC[s : s + 1], stages)
        for s in range(len(frames_SxHxWx3))
    )
    memory = [head.remember(one, t, train=False) for t, one in enumerate(memory_frames)]
    encoded = head.query_encoder(query.stage4, train=False)
    joined_1xhxwx2V = head.attend(encoded, memory)
    own, read = (
        jnp.linalg.norm(head.bottleneck.conv(half)[0], axis=-1)
        for half in _halves(joined_1xhxwx2V, encoded.value.shape[-1])
    )
    logits_2xhxwxC = jnp.concatenate(
        [
            head.classify(joined_1xhxwx2V, train=False),
            model.read(query, model.remember(query)),
        ]
    )
    _, height, width, _ = frames_SxHxWx3.shape
    upsampled = half_upsampled(
        logits_2xhxwxC, (height, width), align_corners=model.config.align_corners
    )
    labels_2xHxW = labels_of(upsampled)
    keys_TxhxwxK = jnp.concatenate([one.key for one in memory]).astype(jnp.float32)
    share_hxw = (read / (own + read)).astype(jnp.float32)
    return encoded.key[0].astype(jnp.float32), keys_TxhxwxK, share_hxw, labels_2xHxW


def _halves(joined_1xhxwx2V: jax.Array, channels: int) -> Iterator[jax.Array]:
    """The query's own values, then what was read; zeros in place of the other half."""
    is_own_2V = jnp.arange(joined_1xhxwx2V.shape[-1]) < channels
    zero = jnp.zeros((), joined_1xhxwx2V.dtype)
    yield jnp.where(is_own_2V, joined_1xhxwx2V, zero)
    yield jnp.where(is_own_2V, zero, joined_1xhxwx2V)
