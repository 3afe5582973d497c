"""How a network is used, and where its weights come from: what a file of weights says besides."""

import dataclasses
import math
from typing import Any, Literal

from tmanet_jax.data.augment import keep_ratio_size, scaled_size
from tmanet_jax.data.codec import Size
from tmanet_jax.errors import UserError

TALLER = 1.5
"""Frames more than so many times as high as those of training are resized to their height."""

_LONGEST_SIDE = 2**14
_LONGEST_MEMORY_STRIDE = 1000


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_size(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_whole, value))


def _is_factor(value: object) -> bool:
    if not isinstance(value, float | int) or isinstance(value, bool):
        return False
    return 0 < value < math.inf


def _spelt(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How frames are segmented; weights carry the one that they were scored by.

    Attributes:
        mode: "whole" (the frame at once) or "slide" (windows, each with a memory of its own).
        crop_size: height and width of a window in pixels.
        stride: from window to window, down and to the right, in pixels.
        scale: what a frame is resized to before: a factor, or the (height, width) in pixels that it
            is to fit, its ratio kept; None: `train_height` rows where it is `TALLER`.
        memory_stride: frames of a video from one memory frame to the next.
        train_height: height in pixels of the frames that the network was trained on, if known.

    Raises:
        UserError: a value cannot be, or windows would leave gaps between them.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop_size: tuple[int, int] = (769, 769)
    stride: tuple[int, int] = (513, 513)
    scale: float | tuple[int, int] | None = None
    memory_stride: int = 1
    train_height: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("whole", "slide"):
            raise UserError(f"mode is {self.mode!r}: choose 'whole' or 'slide'.")
        for name, size in (("crop_size", self.crop_size), ("stride", self.stride)):
            if not _is_size(size):
                raise UserError(f"{name} is {size!r}: it must be (height, width) in whole pixels.")
        if any(s > c for s, c in zip(self.stride, self.crop_size, strict=True)):
            raise UserError(
                f"stride is {self.stride}: windows of {self.crop_size} would leave gaps between "
                "them; choose a smaller stride."
            )
        if not (self.scale is None or _is_size(self.scale) or _is_factor(self.scale)):
            raise UserError(
                f"scale is {self.scale!r}: it must be a factor above 0, or (height, width) in "
                "whole pixels."
            )
        if not (_is_whole(self.memory_stride) and self.memory_stride <= _LONGEST_MEMORY_STRIDE):
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
            resized = scaled_size(Size(*size), (self.scale or 1.0) * ratio)
        if resized != size and not 1 <= min(resized) <= max(resized) <= _LONGEST_SIDE:
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
class EvalConfig:
    """How whole frames are segmented for a score.

    Attributes:
        protocol: of the configuration; what weights say of themselves goes before it.
        told: fields of the protocol that the command line sets; they go before the weights'.
        batch_size: clips at a time on each device.
        windows_per_call: windows of a clip that the network sees at a time.
        ratios: factors that frames are resized by, relative to the protocol's scale;
            probabilities are averaged over them.
        flip: segment each resized frame mirrored too.
        every: training steps between evaluations.
        num_overlays: clips whose pictures are kept, spread evenly over the split.
        num_worst: clips of the lowest mIoU whose pictures are kept besides.
        video_dir: records of videos for the report's player; empty: it shows scored clips.
        vspw_published: compute VC_n as VSPW's script does, with its mistakes.
    """

    protocol: Protocol = Protocol("slide")
    told: frozenset[str] = frozenset()
    batch_size: int = 1
    windows_per_call: int = 1
    ratios: tuple[float, ...] = (1.0,)
    flip: bool = False
    every: int = 8_000
    num_overlays: int = 8
    num_worst: int = 8
    video_dir: str = ""
    vspw_published: bool = False

    def __str__(self) -> str:
        ratios = ", ".join(f"{ratio:g}" for ratio in self.ratios)
        views = "" if self.ratios == (1.0,) else f", at ratios of {ratios}"
        return f"{self.protocol}{views}{', mirrored too' if self.flip else ''}"

    def view_sizes(self, size: tuple[int, int]) -> list[Size]:
        """What a frame of that height and width is resized to, for each ratio."""
        return [self.protocol.size_of(size, ratio) for ratio in self.ratios]

    def told_besides(self, **fields: Any) -> "EvalConfig":
        """With other fields of the protocol, where they are not None, as the command line's.

        Raises:
            UserError: a value cannot be.
        """
        told = {name for name, value in fields.items() if value is not None}
        protocol = self.protocol.but(**fields)
        return dataclasses.replace(self, protocol=protocol, told=self.told | told)

    def told_fields(self) -> dict[str, Any]:
        """The fields of the protocol that the command line sets, with their values."""
        return {name: getattr(self.protocol, name) for name in sorted(self.told)}

    def for_weights(self, protocol: Protocol | None) -> "EvalConfig":
        """With the protocol that weights carry, if they do, save what the command line sets.

        Raises:
            UserError: what the command line sets does not go with it.
        """
        if protocol is None:
            return self
        own = dataclasses.replace(protocol, **self.told_fields())
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
