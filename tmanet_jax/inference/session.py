"""Frames segmented as they come, of one camera or of several at once."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError, counted
from tmanet_jax.inference.engine import ExportedNetwork
from tmanet_jax.inference.results import FrameResult, whole_result
from tmanet_jax.inference.stream import StreamingNetwork
from tmanet_jax.video.frames import checked, numbered


class Session:
    """Streams of frames that go through the network together; made by `Segmenter.session`.

        with segmenter.session(streams=2) as session:
            left, right = session.add([left_frame, right_frame])

    Threads may share a session: their calls wait for one another.

    Args:
        network: that segments.
        classes: what it tells apart.
        num_streams: B, how many go on together.

    Raises:
        UserError: there are no streams.
    """

    def __init__(
        self, network: StreamingNetwork | ExportedNetwork, classes: ClassSet, num_streams: int
    ):
        if num_streams < 1:
            raise UserError(f"streams is {num_streams}: a session has 1 or more.")
        self._network, self._classes = network, classes
        self._ages_B = np.zeros(num_streams, int)
        self._size: tuple[int, int] | None = None
        self._state: Any = None
        self._is_closed = False
        self._lock = threading.Lock()

    def add(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[FrameResult]:
        """Segments the newest frame of each stream, with the memory of those before it.

        Args:
            frames: one of each stream, HxWx3 RGB uint8, or all of them as BxHxWx3; of the size of
                the session's first ones. They are copied.

        Returns:
            one result a stream: its `index` counts from the stream's start or last reset; its
            times are those of 25 frames a second, as of arrays in `Segmenter.stream`.

        Raises:
            UserError: the frames are as many or as large as they cannot be, or the session is
                closed.
        """
        with self._lock:
            frames_BxHxWx3 = self._checked(frames)
            if self._size is None:
                size = frames_BxHxWx3.shape[1:3]
                self._state = self._network.start(len(frames_BxHxWx3), size)
                self._size = size
            starts_B = self._ages_B == 0
            self._state, output = self._network.step(self._state, frames_BxHxWx3, starts_B)
            ages_B = self._ages_B.tolist()
            self._ages_B += 1
        probabilities = self._network.probabilities
        return [
            whole_result(numbered(age, pixels), output, row, self._classes, probabilities)
            for row, (age, pixels) in enumerate(zip(ages_B, frames_BxHxWx3, strict=True))
        ]

    def reset(self, stream: int) -> None:
        """A stream forgets its past before its next frame, as at a scene cut; the others do not.

        Args:
            stream: its place, from 0.

        Raises:
            UserError: there is none at this place, or the session is closed.
        """
        with self._lock:
            self._check_open()
            if not 0 <= stream < len(self._ages_B):
                raise UserError(
                    f"There is no stream {stream}: this session has "
                    f"{counted(len(self._ages_B), 'stream')}, counted from 0."
                )
            self._ages_B[stream] = 0

    def close(self) -> None:
        """Gives its memory back; results stay as they are."""
        with self._lock:
            self._is_closed, self._state = True, None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise UserError("This session is closed: open another with segmenter.session().")

    def _checked(self, frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """BxHxWx3."""
        self._check_open()
        if len(frames) != len(self._ages_B):
            raise UserError(
                f"This session has {counted(len(self._ages_B), 'stream')} and gets as many frames "
                f"at a time, in a list or as one array BxHxWx3; found {len(frames)}."
            )
        checked_frames = [checked(frame) for frame in frames]
        expected = self._size or checked_frames[0].shape[:2]
        for row, frame in enumerate(checked_frames):
            if frame.shape[:2] != expected:
                raise UserError(
                    f"All frames of a session have one size, here {expected[0]}x{expected[1]} "
                    f"(height x width); that of stream {row} has {frame.shape[0]}x{frame.shape[1]}:"
                    " open a session for each size."
                )
        return np.stack(checked_frames)
