"""How a network is used, and where its weights come from: what a file of weights says besides."""

import dataclasses
from typing import Literal

from tmanet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How frames are segmented; weights carry the one that they were scored by.

    Attributes:
        mode: "whole" (the frame at once) or "slide" (windows, each with a memory of its own).
        crop_size: height and width of a window in pixels.
        stride: from window to window, down and to the right, in pixels.
        scale: what a frame is resized to before: a factor, or the (height, width) in pixels that it
            is to fit, its ratio kept; None: by `train_height`.
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
        if self.memory_stride < 1:
            raise UserError(f"memory_stride is {self.memory_stride}: it must be at least 1.")
        if any(not 1 <= s <= c for s, c in zip(self.stride, self.crop_size, strict=True)):
            raise UserError(
                f"stride is {self.stride}: windows of {self.crop_size} need a stride from 1 to "
                "their own size each way, or they leave gaps."
            )


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Attributes:
        step: updates of the training that left them.
        mean_iou: their score on the run's evaluation split, a fraction; None if they have none.
    """

    step: int
    mean_iou: float | None = None
