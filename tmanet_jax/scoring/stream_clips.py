"""Segments whole clips by a stream, which begins anew with each: how other engines are scored."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tmanet_jax.data.clips import Clip
from tmanet_jax.errors import UserError
from tmanet_jax.inference.engine import ExportedNetwork
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.protocol import EvalConfig
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.metrics import confusion_of


class StreamClipSegmenter:
    """Does what a `ClipSegmenter` does, one clip at a time.

    Args:
        network: with memory frames one frame apart.
        config: how frames are segmented, in one view; how many at a time is jax's alone.

    Raises:
        UserError: the settings ask for several views.
    """

    def __init__(self, network: StreamingNetwork | ExportedNetwork, config: EvalConfig):
        if config.ratios != (1.0,) or config.flip:
            raise UserError(
                "Only jax segments clips in several views: leave config.eval.ratios at (1.0,) and "
                "config.eval.flip at False for another engine."
            )
        self.config = config
        self._network = network

    @property
    def num_memory(self) -> int:
        """Memory frames that the network reads."""
        return self._network.model_config.head.num_memory

    def segment(self, clips: Iterable[Clip]) -> Iterator[SegmentedClip]:
        """Segments clips of any sizes, in order."""
        num_classes = self._network.model_config.head.num_classes
        for clip in clips:
            height, width = clip.labels_HxW.shape
            state: Any = self._network.start(1, (height, width))
            for frame_HxWx3 in clip.frames_SxHxWx3:
                state, output = self._network.step(state, frame_HxWx3[None], np.zeros(1, bool))
            predicted_HxW = np.asarray(output.labels_BxHxW[0])
            confusion_CxC = confusion_of(predicted_HxW, clip.labels_HxW, num_classes)
            yield SegmentedClip(clip, predicted_HxW, confusion_CxC)
