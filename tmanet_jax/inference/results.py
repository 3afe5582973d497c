"""What a network says of a frame."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.inference.stream import StreamOutput
from tmanet_jax.pictures import blend
from tmanet_jax.video.read import SourceFrame


@dataclasses.dataclass(frozen=True, eq=False)
class FrameResult:
    """A frame of a video and what the network says of it.

    Attributes:
        index: frames before it.
        pts: when it is shown, in units of the source's time base, from the first frame.
        seconds: the same in seconds.
        frame: HxWx3 RGB uint8; of a broken frame the last whole one.
        labels: HxW uint8; of a broken frame those of the last whole one, and before the first whole
            one `IGNORE`, 255.
        problem: what is wrong with the frame; None if nothing is.
        classes: names and colours of the labels.
    """

    index: int
    pts: int
    seconds: float
    frame: np.ndarray
    labels: np.ndarray
    problem: str | None
    classes: ClassSet
    _probabilities: Callable[[], np.ndarray] | None = dataclasses.field(repr=False)

    @functools.cached_property
    def overlay(self) -> np.ndarray:
        """The colours of the labels over the frame in pale grey, HxWx3 RGB uint8."""
        return blend(self.frame, self.labels, self.classes)

    @property
    def probabilities(self) -> np.ndarray:
        """Class probabilities, HxWxC float32; computed when asked for.

        Raises:
            ValueError: the frame is broken.
        """
        if self._probabilities is None:
            raise ValueError(f"frame {self.index} is broken ({self.problem}): no probabilities")
        return self._probabilities()


def result_of(
    frame: SourceFrame,
    pixels_HxWx3: np.ndarray,
    labels_HxW: np.ndarray,
    classes: ClassSet,
    probabilities: Callable[[], np.ndarray] | None = None,
) -> FrameResult:
    """Of a frame that has a time; see `FrameResult`."""
    assert frame.pts is not None and frame.seconds is not None
    return FrameResult(
        frame.index,
        frame.pts,
        frame.seconds,
        pixels_HxWx3,
        labels_HxW,
        frame.problem,
        classes,
        probabilities,
    )


def whole_result(
    frame: SourceFrame,
    output: StreamOutput,
    row: int,
    classes: ClassSet,
    probabilities_of: Callable[[StreamOutput], jax.Array],
) -> FrameResult:
    """Waits for the device.

    Args:
        frame: a whole one.
        output: of the step that it went through.
        row: its place in the batch.
        classes: what the network tells apart.
        probabilities_of: an output's, BxHxWxC.
    """
    assert frame.pixels_HxWx3 is not None
    labels_HxW = np.asarray(output.labels_BxHxW)[row].copy()

    def probabilities() -> np.ndarray:
        return np.asarray(probabilities_of(output))[row]

    return result_of(frame, frame.pixels_HxWx3, labels_HxW, classes, probabilities)
