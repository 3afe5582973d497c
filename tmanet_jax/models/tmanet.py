"""TMANet: a backbone, and a head that reads a memory of the preceding frames.

The network is cut at its memory seam: `encode` turns frames into features, `remember` features into
what each position of the memory keeps of them, `read` a query's features and its memory into
logits. `__call__` is the same on a clip, where each memory frame has one position: training and the
evaluation of clips call it, streaming calls the three.

Source: Wang et al. 2021 (arXiv 2102.08643).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from tmanet_jax.errors import UserError
from tmanet_jax.fields import PUBLISHED, Checked, field, part
from tmanet_jax.models.backbone import BackboneConfig, Stages
from tmanet_jax.models.backbones import BACKBONES
from tmanet_jax.models.fcn_head import FCNHeadConfig
from tmanet_jax.models.head import HeadConfig
from tmanet_jax.models.heads import HEADS
from tmanet_jax.models.layers import MatmulPrecision
from tmanet_jax.models.memory_kernels import Attention
from tmanet_jax.models.resnet import Frozen, ResNetConfig
from tmanet_jax.models.tma_head import TMAHeadConfig
from tmanet_jax.parallel.sharding import spread_rows

DTYPES = ("float32", "bfloat16", "float64")


AUX_HEAD = FCNHeadConfig(stages=(3,), channels=256, num_convs=1, concat_input=False)
"""The published auxiliary head."""
OF_BOTH_HEADS = ("num_classes", "dropout")
"""Fields in which the auxiliary head is as the head."""


@dataclasses.dataclass(frozen=True)
class ModelConfig(Checked):
    """Everything that decides the network's parameters and what it computes of them.

    The fields of `OF_COMPUTATION` change rounding, time and memory of one and the same network;
    parameters, statistics and logits stay float32. The auxiliary head has the head's
    `OF_BOTH_HEADS`, whatever it was given.
    """

    backbone: BackboneConfig = part(
        ResNetConfig(), "from frames to features", flat=True, kinds=BACKBONES, source=PUBLISHED
    )
    head: HeadConfig = part(
        TMAHeadConfig(), "from features to logits", flat=True, kinds=HEADS, source=PUBLISHED
    )
    aux: HeadConfig = part(
        AUX_HEAD,
        "the auxiliary head, which training alone needs",
        name="aux_head",
        flat=True,
        prefix="aux_",
        but=OF_BOTH_HEADS,
        kinds=HEADS,
        source=PUBLISHED,
    )
    align_corners: bool = field(
        True, "of the logits' up-sampling (CamVid's configuration: no)", source=PUBLISHED
    )
    memory_gradient: bool = field(
        True, "training's gradients flow into the memory frames", source=PUBLISHED
    )
    dtype: str = field("float32", "compute type", choices=DTYPES)
    precision: MatmulPrecision = field(
        "default",
        'of float32 products: "default" is the chip\'s fast way (TF32 on GPUs, one bfloat16 pass '
        'on TPUs), "highest" is float32; on CPUs all are. Query and key are always "highest"',
    )
    attention: Attention = field(
        "auto",
        'what reads the memory: "auto" the chip\'s own kernel where it fits (bfloat16 on TPUs and '
        'GPUs), "chunked" what runs anywhere; "fused" is an older name of "auto"',
    )
    remat: bool = field(
        False,
        "the backward pass computes the inside of backbone blocks again instead of keeping it: a "
        "third more work, a fraction of the memory",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        of_both = {name: getattr(self.head, name) for name in OF_BOTH_HEADS}
        object.__setattr__(self, "aux", dataclasses.replace(self.aux, **of_both))

    def computed_as(self, other: "ModelConfig") -> "ModelConfig":
        """This network, computed as another is."""
        return dataclasses.replace(self, **{name: getattr(other, name) for name in OF_COMPUTATION})

    def fields(self) -> dict[str, Any]:
        """As plain values, with the kinds of backbone and head, for files to carry.

        Raises:
            ValueError: backbone or head is in no list.
        """
        parts = {name: kind_and_fields(getattr(self, name)) for name in ("backbone", "head", "aux")}
        for name in OF_BOTH_HEADS:
            del parts["aux"][name]
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | parts

    def feature_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the features, and the logits, of a frame of this height and width."""
        stride = self.backbone.stride
        return (-(-size[0] // stride), -(-size[1] // stride))


def kind_and_fields(config: BackboneConfig | HeadConfig) -> dict[str, Any]:
    """A backbone's or a head's fields, and as `kind` its name in `BACKBONES` or `HEADS`.

    Raises:
        ValueError: it is in neither list.
    """
    kinds: Mapping[str, type] = {**BACKBONES, **HEADS}
    for kind, listed in kinds.items():
        if type(config) is listed:
            return {"kind": kind, **dataclasses.asdict(config)}
    raise ValueError(
        f"{type(config).__name__} is neither in BACKBONES (tmanet_jax/models/backbones.py) nor in "
        "HEADS (heads.py): give it a name there, by which its weights can be read again"
    )


def with_aux_of_its_own(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Older fields of a network say in the head of how many channels the auxiliary one is."""
    match fields:
        case {"head": {"aux_channels": channels, **head}}:
            usual = dataclasses.asdict(AUX_HEAD)
            return {**fields, "head": head, "aux": {**usual, "channels": channels}}
    return fields


OF_COMPUTATION = ("dtype", "precision", "attention", "remat")


class Logits(NamedTuple):
    """What the network says of the query frame, at the stride of the stages that are read."""

    main: jax.Array
    """BxhxwxC"""
    aux: jax.Array
    """BxhxwxC, from the query alone; trains the backbone, unused in inference."""


class TMANet(nnx.Module):
    """The whole network.

    A clip is `frames_BxSxHxWx3`: S = T + 1 normalised RGB frames in the order of time, the T
    memory frames first (oldest at 0), the query last.

    Args:
        config: its backbone and head, and how they are computed.
        rngs: of the initial weights.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        dtype = jnp.dtype(config.dtype)
        channels = config.backbone.stage_channels
        self.backbone = config.backbone.build(dtype=dtype, remat=config.remat, rngs=rngs)
        self.head = config.head.build(channels, dtype=dtype, rngs=rngs)
        self.aux_head = config.aux.build(channels, dtype=dtype, rngs=rngs)
        self.set_attributes(
            precision=config.precision,
            attention=config.attention,
            align_corners=config.align_corners,
            raise_if_not_found=False,
        )

    def encode(self, frames_NxHxWx3: jax.Array, *, train: bool = False, slots: int = 1) -> Stages:
        """Frames NxHxWx3 -> the backbone's features, those of stage 4 of `config.feature_size`."""
        return self.backbone(spread_rows(frames_NxHxWx3), train=train, slots=slots)

    def remember(self, features: Stages, *, train: bool = False) -> list[Any]:
        """What each position of the memory would keep of frames, the oldest position's first."""
        positions = range(self.config.head.num_memory)
        return [self.head.remember(features, position, train=train) for position in positions]

    def remembered(self, num_frames: int, size: tuple[int, int]) -> list[Any]:
        """Shapes of `remember` for frames of this height and width: `jax.ShapeDtypeStruct` each."""
        frames_NxHxWx3 = jax.ShapeDtypeStruct((num_frames, *size, 3), jnp.float32)
        return nnx.eval_shape(
            lambda model, frames: model.remember(model.encode(frames)), self, frames_NxHxWx3
        )

    def read(
        self,
        query: Stages,
        memory: Sequence[Any],
        *,
        train: bool = False,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Logits BxhxwxC.

        Args:
            query: features of the frames that are segmented.
            memory: what each position remembers, oldest first.
            train: normalise by the batch's statistics and move the running ones.
            dropout_key: without one nothing is dropped.
        """
        return self.head.read(query, memory, train=train, dropout_key=dropout_key)

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
        query, memory_frames = self._encode_clip(frames_BxSxHxWx3, train)
        memory = [
            self.head.remember(features, position, train=train)
            for position, features in enumerate(memory_frames)
        ]
        main_key, aux_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        main = self.read(query, memory, train=train, dropout_key=main_key)
        aux = self.aux_head.read(query, (), train=train, dropout_key=aux_key)
        return Logits(main, aux)

    def _encode_clip(self, frames_BxSxHxWx3: jax.Array, train: bool) -> tuple[Stages, list[Stages]]:
        """All frames through the backbone: features of the query, and of each memory frame.

        The query goes first, then the memory, oldest first: the order in which the original moves
        the running statistics. With gradients into the memory, all go through in one call; without,
        the memory takes a call of its own that has no backward pass.
        """
        query_Bx1xHxWx3, memory_BxTxHxWx3 = frames_BxSxHxWx3[:, -1:], frames_BxSxHxWx3[:, :-1]
        num_memory = memory_BxTxHxWx3.shape[1]
        if not train or self.config.memory_gradient or not num_memory:
            query_first = jnp.concatenate([query_Bx1xHxWx3, memory_BxTxHxWx3], axis=1)
            query, *memory = self._encode_slots(query_first, train)
        else:
            (query,) = self._encode_slots(query_Bx1xHxWx3, train)
            memory = lax.stop_gradient(self._encode_slots(memory_BxTxHxWx3, train))
        return query, memory

    def _encode_slots(self, frames_BxSxHxWx3: jax.Array, train: bool) -> list[Stages]:
        """The features of each of the S frames of the clips, BxhxwxC."""
        b, s, *frame_shape = frames_BxSxHxWx3.shape
        stages = self.encode(frames_BxSxHxWx3.reshape(b * s, *frame_shape), train=train, slots=s)
        of_clips = jax.tree.map(
            lambda x_NxhxwxC: x_NxhxwxC.reshape(b, s, *x_NxhxwxC.shape[1:]), stages
        )
        return [
            jax.tree.map(lambda x_BxSxhxwxC, slot=slot: x_BxSxhxwxC[:, slot], of_clips)
            for slot in range(s)
        ]


def num_parameters(model: TMANet) -> int:
    """How many numbers training may change, or leaves as they are where stages are frozen."""
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Any(nnx.Param, Frozen))))


def reading(model: TMANet, neighbourhood: int | None) -> TMANet:
    """The network on the same arrays, each position reading that much of the memory.

    Args:
        model: stays as it is.
        neighbourhood: see `Protocol.neighbourhood`.

    Raises:
        UserError: its head cannot be told what to read.
    """
    if neighbourhood is None:
        return model
    model = nnx.merge(*nnx.split(model))
    if hasattr(model.head, "neighbourhood"):
        model.head.neighbourhood = neighbourhood
    else:
        raise UserError(
            f"neighbourhood is {neighbourhood}: {type(model.head).__name__} reads its memory in a "
            "way of its own, so leave config.eval.neighbourhood out."
        )
    return model


class Weights(NamedTuple):
    """What a network computes with, as `nnx.merge` takes it after the structure."""

    params: nnx.State
    batch_stats: nnx.State


def split(model: TMANet) -> tuple[nnx.GraphDef, Weights]:
    """A network's structure, and its weights."""
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, Weights(*states)


def abstract_model(config: ModelConfig) -> TMANet:
    """The network with `jax.ShapeDtypeStruct`s for weights, made at once."""
    return nnx.merge(*_abstract(config), copy=True)


@functools.cache
def _abstract(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """Traced once: whoever loads weights asks for shapes, and then for the network."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: TMANet(config, rngs=nnx.Rngs(0))))
    return graphdef, state


def blank_model(config: ModelConfig) -> TMANet:
    """The network with zeros for weights, made at once, for weights to be loaded into."""
    graphdef, state = nnx.split(abstract_model(config))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    return nnx.merge(graphdef, jax.device_put(zeros))
