"""How a network is used, and where its weights come from: what a file of weights says besides."""

import dataclasses
from typing import Any, Literal

from tmanet_jax.data.codec import Size
from tmanet_jax.data.resize import (
    LEAST_RATIO,
    LONGEST_SIDE,
    MOST_RATIO,
    keep_ratio_size,
    scaled_size,
)
from tmanet_jax.errors import UserError
from tmanet_jax.fields import MOST_AT_ONCE, PUBLISHED, Checked, field, part

TALLER = 1.5
"""Frames more than so many times as high as those of training are resized to their height."""

_LONGEST_MEMORY_STRIDE = 1000


def _is_whole(value: object, most: int = 2**31 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _spelt(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@dataclasses.dataclass(frozen=True)
class Protocol(Checked):
    """How frames are segmented; weights carry the one that they were scored by.

    Attributes:
        memory_stride: frames of a video from one memory frame to the next.
        train_height: height in pixels of the frames that the network was trained on, if known.

    Raises:
        UserError: a value cannot be, or windows would leave gaps between them.
    """

    mode: Literal["whole", "slide"] = field(
        "whole",
        '"whole" (the frame at once) or "slide" (windows, each with a memory of its own)',
        source=PUBLISHED,
    )
    crop_size: tuple[int, int] = field(
        (769, 769),
        "of a window",
        unit="height, width in pixels",
        low=1,
        high=LONGEST_SIDE,
        source=PUBLISHED,
    )
    stride: tuple[int, int] = field(
        (513, 513),
        "from window to window",
        unit="down, right in pixels",
        low=1,
        high=LONGEST_SIDE,
        source=PUBLISHED,
    )
    scale: float | tuple[int, int] | None = field(
        None,
        "what a frame is resized to before: a factor, or what it is to fit with its ratio kept; "
        f"None: where it is more than {TALLER} times as high as the frames of training, to their "
        "height. Results have the frame's own size",
        unit="factor, or height, width in pixels",
        above=0,
        high=LONGEST_SIDE,
    )
    neighbourhood: int | None = field(
        None,
        "rows and columns of features, each way from its own, that a position reads of each memory "
        "frame; None: as the network was trained",
        low=0,
        high=4,
    )
    memory_stride: int = 1
    train_height: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(s > c for s, c in zip(self.stride, self.crop_size, strict=True)):
            raise UserError(
                f"stride is {self.stride}: windows of {self.crop_size} would leave gaps between "
                "them; choose a smaller stride."
            )
        if not _is_whole(self.memory_stride, _LONGEST_MEMORY_STRIDE):
            raise UserError(
                f"memory_stride is {self.memory_stride!r}: it must be a whole number from 1 to "
                f"{_LONGEST_MEMORY_STRIDE}."
            )
        if not (self.train_height is None or _is_whole(self.train_height)):
            raise UserError(f"train_height is {self.train_height!r}: it must be a whole number.")

    def __str__(self) -> str:
        windows = f" {_spelt(self.crop_size)} at {_spelt(self.stride)}"
        words = [
            f"{self.mode}{windows if self.mode == 'slide' else ''}",
            f"memory stride {self.memory_stride}",
        ]
        if self.neighbourhood is not None:
            words.append(f"memory read within {self.neighbourhood}")
        if isinstance(self.scale, tuple):
            words.append(f"resized to fit {_spelt(self.scale)}")
        elif self.scale is not None:
            words.append(f"resized by {self.scale:g}")
        elif self.train_height is not None:
            words.append(
                f"frames above {TALLER * self.train_height:g} rows resized to {self.train_height}"
            )
        return ", ".join(words)

    def but(self, **fields: Any) -> "Protocol":
        """With other fields, where they are not None; raises UserError if a value cannot be."""
        given = {name: value for name, value in fields.items() if value is not None}
        return dataclasses.replace(self, **given)

    def size_of(self, size: tuple[int, int], ratio: float = 1.0) -> Size:
        """Height and width that a frame is resized to before it is segmented.

        Source: `MultiScaleFlipAug`, whose `img_scale` the scale is.

        Args:
            size: the frame's height and width in pixels.
            ratio: of one view in multi-scale testing, relative to the scale.

        Raises:
            UserError: nothing would be left of the frame, or it would be huge.
        """
        height, width = size
        if isinstance(self.scale, tuple):
            fit = int(self.scale[0] * ratio), int(self.scale[1] * ratio)
            resized = keep_ratio_size(Size(*size), fit)
        elif self.train_height is not None and self.is_resized_by_default(size):
            rows = self.train_height * ratio
            resized = Size(int(rows + 0.5), max(int(width * rows / height + 0.5), 1))
        else:
            factor = (self.scale or 1.0) * ratio
            resized = Size(*size) if factor == 1 else scaled_size(Size(*size), factor)
        if resized != size and not 1 <= min(resized) <= max(resized) <= LONGEST_SIDE:
            raise UserError(
                f"A frame of {_spelt(size)} pixels would be resized to {_spelt(resized)}: choose "
                "another scale (config.eval.scale, --scale) or other config.eval.ratios."
            )
        return resized

    def is_resized_by_default(self, size: tuple[int, int]) -> bool:
        """Whether a frame of that height and width is resized though nobody asked for a scale."""
        if self.scale is not None or self.train_height is None:
            return False
        return size[0] > TALLER * self.train_height


@dataclasses.dataclass(frozen=True)
class EvalConfig(Checked):
    """How whole frames are segmented for a score.

    Attributes:
        protocol: of the configuration; what weights say of themselves goes before it.
        overridden: fields of the protocol that the command line sets; they go before those that
            weights carry.
    """

    protocol: Protocol = part(Protocol("slide"), flat=True)
    overridden: frozenset[str] = frozenset()
    batch_size: int = field(1, "clips at a time on each device", low=1, high=MOST_AT_ONCE)
    windows_per_call: int = field(
        1, "windows of a clip that the network sees at a time", low=1, high=MOST_AT_ONCE
    )
    ratios: tuple[float, ...] = field(
        (1.0,),
        "times the scale, one view each, over which probabilities are averaged (the original's "
        "--aug-test: 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, with flip)",
        low=LEAST_RATIO,
        high=MOST_RATIO,
        source=PUBLISHED,
    )
    flip: bool = field(False, "segment each resized frame mirrored too", source=PUBLISHED)
    every: int = field(
        8_000,
        "between evaluations; also after the last",
        unit="steps",
        low=1,
        source=PUBLISHED,
    )
    patience: int = field(
        0, "after the best evaluation, then training ends; 0: never", unit="steps", low=0
    )
    num_overlays: int = field(
        8, "pictures of frame, label and prediction that are kept, spread over the split", low=0
    )
    num_worst: int = field(
        8, "pictures of the clips with the lowest mIoU, at most a third of all; by mode eval", low=0
    )
    video_dir: str = field(
        "",
        "records of videos (every frame a query) for the report's player; empty: it shows scored "
        "clips",
    )
    vspw_published: bool = field(
        False, "VC8, VC16 and mTC as VSPW's scripts compute them, mistakes kept"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ratios:
            raise UserError("ratios must be one or more numbers, not ().")

    def __str__(self) -> str:
        ratios = ", ".join(f"{ratio:g}" for ratio in self.ratios)
        views = "" if self.ratios == (1.0,) else f", at ratios of {ratios}"
        return f"{self.protocol}{views}{', mirrored too' if self.flip else ''}"

    def view_sizes(self, size: tuple[int, int]) -> list[Size]:
        """What a frame of that height and width is resized to, for each ratio."""
        return [self.protocol.size_of(size, ratio) for ratio in self.ratios]

    def override(self, **fields: Any) -> "EvalConfig":
        """With other fields of the protocol, where they are not None, as the command line's.

        Raises:
            UserError: a value cannot be.
        """
        names = {name for name, value in fields.items() if value is not None}
        protocol = self.protocol.but(**fields)
        return dataclasses.replace(self, protocol=protocol, overridden=self.overridden | names)

    def overrides(self) -> dict[str, Any]:
        """The fields of the protocol that the command line sets, with their values."""
        return {name: getattr(self.protocol, name) for name in sorted(self.overridden)}

    def for_weights(self, protocol: Protocol | None) -> "EvalConfig":
        """With the protocol that weights carry, if they do, save what the command line sets.

        Raises:
            UserError: what the command line sets does not go with it.
        """
        if protocol is None:
            return self
        own = dataclasses.replace(protocol, **self.overrides())
        return dataclasses.replace(self, protocol=own)

    def compared_with(self, protocol: Protocol) -> str:
        """The protocol that is used, in words, and what the configuration says otherwise."""
        configured = dataclasses.replace(
            self.protocol,
            memory_stride=protocol.memory_stride,
            train_height=protocol.train_height,
        )
        words = f"Frames are segmented so: {protocol}."
        if configured == protocol:
            return words
        return (
            f"{words} The weights were scored so; the configuration has {configured}: "
            "--config.eval.FIELD=... takes its values."
        )


def parse_scale(text: str) -> float | tuple[int, int]:
    """A scale from a command line: "0.5", or "512x1024" (height x width).

    Raises:
        UserError: it is neither.
    """
    height, by, width = text.partition("x")
    try:
        return (int(height), int(width)) if by else float(text)
    except ValueError as error:
        raise UserError(f"The scale {text!r} is neither a factor nor HEIGHTxWIDTH.") from error


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Attributes:
        step: updates of the training that left them.
        mean_iou: their score on the run's evaluation split, a fraction; None if they have none.
    """

    step: int
    mean_iou: float | None = None

    def __str__(self) -> str:
        score = "" if self.mean_iou is None else f", mIoU {100 * self.mean_iou:.2f}"
        return f"step {self.step}{score}"
