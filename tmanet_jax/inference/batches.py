"""Videos that go through the network together, whatever their sizes and lengths are."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tmanet_jax.errors import UserError
from tmanet_jax.inference.engine import ExportedNetwork
from tmanet_jax.inference.stream import PIXELS_AT_A_TIME, StreamingNetwork, StreamOutput


class NextFrame(NamedTuple):
    """Of a video: HxWx3 uint8; `is_start`: the memory begins anew with it, as at another size."""

    pixels_HxWx3: np.ndarray
    is_start: bool


class Place(NamedTuple):
    """Where a frame stands in a step's output."""

    output: StreamOutput
    row: int


class Batches:
    """Steps the videos of one size as one batch; a batch that half of them have left is halved.

    Args:
        network: that segments.
    """

    def __init__(self, network: StreamingNetwork | ExportedNetwork):
        self._network = network
        self._batches: list[_Batch] = []

    def step(self, frames: Mapping[int, NextFrame]) -> dict[int, Place | UserError]:
        """Segments the next frame of each video that goes on, by the video's number.

        A frame of a size that cannot be segmented has an error in its place.
        """
        self._batches, failed = self._with_members(frames)
        return failed | {
            member: Place(output, row)
            for batch in self._batches
            for output in [batch.step(frames)]
            for row, member in enumerate(batch.members)
            if batch.has(member, frames)
        }

    def _with_members(
        self, frames: Mapping[int, NextFrame]
    ) -> "tuple[list[_Batch], dict[int, Place | UserError]]":
        batches, homeless = [], dict(frames)
        failed: dict[int, Place | UserError] = {}
        for batch in self._batches:
            active = [member for member in batch.members if batch.has(member, frames)]
            for member in active:
                del homeless[member]
            if active and len(active) <= len(batch.members) // 2:
                batches.append(batch.only(active))
            elif active:
                batches.append(batch)
        for size, members in _by_size(homeless).items():
            try:
                batches += self._of_size(size, members)
            except UserError as error:
                failed |= dict.fromkeys(members, error)
        return batches, failed

    def _of_size(self, size: tuple[int, int], members: Sequence[int]) -> "list[_Batch]":
        pixels = math.prod(self._network.protocol.size_of(size))
        at_once = max(PIXELS_AT_A_TIME // pixels, 1)
        return [
            _Batch(self._network, size, members[first : first + at_once])
            for first in range(0, len(members), at_once)
        ]


def _by_size(frames: Mapping[int, NextFrame]) -> dict[tuple[int, int], list[int]]:
    members: dict[tuple[int, int], list[int]] = {}
    for member, frame in frames.items():
        height, width, _ = frame.pixels_HxWx3.shape
        members.setdefault((height, width), []).append(member)
    return members


class _Batch:
    """Videos of one size, one a row, and what is remembered of them."""

    def __init__(
        self,
        network: StreamingNetwork | ExportedNetwork,
        size: tuple[int, int],
        members: Sequence[int],
    ):
        self.members = members
        self._network, self._size = network, size
        self._state: Any = network.start(len(members), size)
        self._recent = {
            member: collections.deque[NextFrame](maxlen=network.reach) for member in members
        }

    def has(self, member: int, frames: Mapping[int, NextFrame]) -> bool:
        """Whether a member has a next frame, and of this size."""
        return member in frames and frames[member].pixels_HxWx3.shape[:2] == self._size

    def step(self, frames: Mapping[int, NextFrame]) -> StreamOutput:
        """Rows without a frame of this size mean nothing."""
        frames_BxHxWx3 = np.zeros((len(self.members), *self._size, 3), np.uint8)
        reset_B = np.zeros(len(self.members), bool)
        for row, member in enumerate(self.members):
            if self.has(member, frames):
                frames_BxHxWx3[row], reset_B[row] = frames[member]
                if reset_B[row]:
                    self._recent[member].clear()
                self._recent[member].append(frames[member])
        self._state, output = self._network.step(self._state, frames_BxHxWx3, reset_B)
        return output

    def only(self, members: Sequence[int]) -> "_Batch":
        """A smaller batch, which sees again what some of the members remember."""
        smaller = _Batch(self._network, self._size, members)
        recent = [list(self._recent[member]) for member in members]
        longest = max(map(len, recent))
        for back in range(longest, 0, -1):
            smaller.step(
                {
                    member: NextFrame(frames[-back].pixels_HxWx3, back == len(frames))
                    for member, frames in zip(members, recent, strict=True)
                    if back <= len(frames)
                }
            )
        return smaller
