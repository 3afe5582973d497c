"""TMANet: a dilated ResNet and a head that reads a memory of the preceding frames.

The network is cut at its memory seam: `encode` turns frames into features, `read` turns features
of a query and its memory into logits, and `__call__` is built of the two. Training, evaluation of
clips and streaming are three callers of the same parts.

Source: Wang et al. 2021 (arXiv 2102.08643).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from tmanet_jax.models.backbones import OUTPUT_STRIDE, ResNet, ResNetConfig, Stages
from tmanet_jax.models.heads import FCNHead, HeadConfig, TMAHead
from tmanet_jax.models.layers import Precision
from tmanet_jax.models.memory_kernels import Attention
from tmanet_jax.parallel.sharding import spread_rows

DTYPES = ("float32", "bfloat16", "float64")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the network's parameters and what it computes of them.

    The fields of `OF_COMPUTATION` change rounding, time and memory of one and the same network.

    Attributes:
        backbone: shape of the ResNet.
        head: shape of the memory head and of the auxiliary head.
        align_corners: how logits are up-sampled (Cityscapes' config: yes, CamVid's: no).
        memory_gradient: whether training's gradients flow into the memory frames.
        dtype: compute type, "float32" or "bfloat16"; parameters, statistics and logits stay
            float32.
        precision: of float32 products; those of query and key are "highest" in any case.
        attention: which way reads the memory: "auto" the chip's own kernel where it fits,
            "chunked" the one that runs anywhere; "fused" is an older name of "auto".
        remat: the backward pass computes the inside of each backbone block again, instead of
            keeping it: a third more work, a fraction of the memory.
    """

    backbone: ResNetConfig = dataclasses.field(default_factory=ResNetConfig)
    head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
    align_corners: bool = True
    memory_gradient: bool = True
    dtype: str = "float32"
    precision: Precision = "default"
    attention: Attention = "auto"
    remat: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {self.dtype!r}")

    def computed_as(self, other: "ModelConfig") -> "ModelConfig":
        """This network, computed as another is."""
        return dataclasses.replace(self, **{name: getattr(other, name) for name in OF_COMPUTATION})


OF_COMPUTATION = ("dtype", "precision", "attention", "remat")


class Logits(NamedTuple):
    """What the network says of the query frame, at stride 8."""

    main: jax.Array
    """BxhxwxC"""
    aux: jax.Array
    """BxhxwxC, from stage 3 of the query alone; trains the backbone, unused in inference."""


class TMANet(nnx.Module):
    """The whole network.

    A clip is `frames_BxSxHxWx3`: S = T + 1 normalised RGB frames in the order of time, the T
    memory frames first (oldest at 0), the query last.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        dtype = jnp.dtype(config.dtype)
        channels = config.backbone.stage_channels
        self.backbone = ResNet(config.backbone, dtype=dtype, remat=config.remat, rngs=rngs)
        self.head = TMAHead(channels[3], config.head, dtype=dtype, rngs=rngs)
        self.aux_head = FCNHead(channels[2], config.head, dtype=dtype, rngs=rngs)
        self.set_attributes(precision=config.precision, attention=config.attention)

    def encode(self, frames_NxHxWx3: jax.Array, *, train: bool = False, slots: int = 1) -> Stages:
        """Frames NxHxWx3 -> backbone features, hxw = ceil(H / 8) x ceil(W / 8) at stages 2 to 4."""
        return self.backbone(spread_rows(frames_NxHxWx3), train=train, slots=slots)

    def read(
        self,
        query_BxhxwxC: jax.Array,
        memory_TxBxhxwxC: list[jax.Array],
        *,
        train: bool = False,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Stage-4 features of the query and of T memory frames, oldest first -> logits BxhxwxC."""
        query = self.head.query_encoder(query_BxhxwxC, train=train)
        memory = self.head.encode_memory(memory_TxBxhxwxC, train=train)
        return self.head.classify(
            self.head.read(query, memory), train=train, dropout_key=dropout_key
        )

    def __call__(
        self,
        frames_BxSxHxWx3: jax.Array,
        *,
        train: bool = False,
        dropout_key: jax.Array | None = None,
    ) -> Logits:
        """Segments the last frame of each clip.

        Args:
            frames_BxSxHxWx3: normalised RGB, S = num_memory + 1.
            train: normalise by the batch's statistics and move the running ones.
            dropout_key: without one nothing is dropped.

        Raises:
            ValueError: the clip's length is not the one that the network was built for.
        """
        expected = self.config.head.num_memory + 1
        if frames_BxSxHxWx3.shape[1] != expected:
            raise ValueError(
                f"a clip of {expected} frames was expected ({expected - 1} memory frames and the "
                f"query), found {frames_BxSxHxWx3.shape[1]}"
            )
        query, memory_TxBxhxwxC = self._encode_clip(frames_BxSxHxWx3, train)
        main_key, aux_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        main = self.read(query.stage4, memory_TxBxhxwxC, train=train, dropout_key=main_key)
        aux = self.aux_head(query.stage3, train=train, dropout_key=aux_key)
        return Logits(main, aux)

    def _encode_clip(
        self, frames_BxSxHxWx3: jax.Array, train: bool
    ) -> tuple[Stages, list[jax.Array]]:
        """All frames through the backbone: the query's features, and stage 4 of each memory frame.

        The query goes first, then the memory, oldest first: the order in which the original moves
        the running statistics. With gradients into the memory, all go through in one call; without,
        the memory takes a call of its own that has no backward pass.
        """
        query_Bx1xHxWx3, memory_BxTxHxWx3 = frames_BxSxHxWx3[:, -1:], frames_BxSxHxWx3[:, :-1]
        num_memory = memory_BxTxHxWx3.shape[1]
        if not train or self.config.memory_gradient or not num_memory:
            query_first = jnp.concatenate([query_Bx1xHxWx3, memory_BxTxHxWx3], axis=1)
            stages = self._encode_slots(query_first, train)
            memory_BxTxhxwxC = stages.stage4[:, 1:]
        else:
            stages = self._encode_slots(query_Bx1xHxWx3, train)
            memory_BxTxhxwxC = lax.stop_gradient(self._encode_slots(memory_BxTxHxWx3, train).stage4)
        query = jax.tree.map(lambda x_BxSxhxwxC: x_BxSxhxwxC[:, 0], stages)
        return query, [memory_BxTxhxwxC[:, t] for t in range(num_memory)]

    def _encode_slots(self, frames_BxSxHxWx3: jax.Array, train: bool) -> Stages:
        b, s, *frame_shape = frames_BxSxHxWx3.shape
        stages = self.encode(frames_BxSxHxWx3.reshape(b * s, *frame_shape), train=train, slots=s)
        return jax.tree.map(lambda x_NxhxwxC: x_NxhxwxC.reshape(b, s, *x_NxhxwxC.shape[1:]), stages)


def feature_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the features of a frame of this height and width."""
    return (-(-size[0] // OUTPUT_STRIDE), -(-size[1] // OUTPUT_STRIDE))
