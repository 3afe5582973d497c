"""What is missing from a video, told in its place: packets without a frame, and their consequences.

A frame belongs to the packet that it was decoded from (`SentPacket`), not to a time: where files
were joined, times come again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import av
from av.video.frame import PictureType

_NO_FRAME = "its data gave no frame"
_CUT_OFF = "its data is cut off"
_CORRUPT = "the decoder marks it as corrupt"


class Place(NamedTuple):
    """When a frame is shown: in which of the pieces that were joined, and its time there."""

    piece: int
    pts: int


@dataclass(frozen=True)
class SentPacket:
    """The packet that a frame was decoded from; it travels through the decoder."""

    piece: int
    is_cut_off: bool


@dataclass(frozen=True)
class Event:
    """A decoded frame, or what stands in its way.

    Attributes:
        pts: when it is shown, in units of the stream's time base; None if nobody says.
        frame: None if there is none.
        problem: what is wrong; None if nothing is.
        is_doubtful: whether a frame that it refers to may be missing.
        is_referred_to: whether others may refer to it.
    """

    pts: int | None
    frame: av.VideoFrame | None
    problem: str | None = None
    is_doubtful: bool = False
    is_referred_to: bool = True


class MissingFrames:
    """Packets without a frame, each told at the time that its frame should have been shown.

    Args:
        every_packet_is_a_frame: a packet without a frame is a loss.
        every_pts_is_a_frame: frames are numbered one by one, and one that is left out is a loss.
        b_frames_are_leaves: no frame refers to a B-frame, as in MPEG-2.
    """

    def __init__(
        self,
        *,
        every_packet_is_a_frame: bool,
        every_pts_is_a_frame: bool,
        b_frames_are_leaves: bool,
    ) -> None:
        self._expects_packets = every_packet_is_a_frame
        self._expects_pts = every_pts_is_a_frame
        self._has_leaves = b_frames_are_leaves
        self._is_reordered = False
        self._leaves: set[Place] = set()
        self._piece = 0
        self._last_dts: int | None = None
        self._last = Place(-1, 0)
        self._comes_one_by_one = False
        self._waiting: dict[Place, str] = {}

    def sent(self, packet: av.Packet, *, is_cut_off: bool) -> None:
        """A packet goes to the decoder, whole or cut off."""
        if packet.dts is not None and packet.size:
            if self._last_dts is not None:
                self._piece += packet.dts < self._last_dts
                self._comes_one_by_one |= packet.dts == self._last_dts + 1
            self._note_leaves(packet.pts, packet.dts)
            self._last_dts = packet.dts
        packet.opaque = SentPacket(self._piece, is_cut_off)
        is_shown = packet.pts is not None and packet.size and not packet.is_discard
        if self._expects_packets and is_shown:
            assert packet.pts is not None
            self._waiting[Place(self._piece, packet.pts)] = _NO_FRAME

    def _note_leaves(self, pts: int | None, dts: int) -> None:
        """B-frames are decoded when they are shown, what others refer to is decoded before."""
        self._is_reordered |= pts is not None and pts > dts
        if not self._has_leaves or not self._is_reordered:
            return
        if pts == dts:
            self._leaves.add(Place(self._piece, dts))
        if self._comes_one_by_one and self._last_dts is not None:
            missing = range(self._last_dts + 1, dts)
            self._leaves.update(Place(self._piece, missing_dts) for missing_dts in missing)

    def failed(self, pts: int | None, problem: str) -> Iterable[Event]:
        """The decoder raised: at once if nobody knows when the frame should have been shown."""
        if pts is None:
            return [Event(None, None, problem)]
        self._waiting[Place(self._piece, pts)] = problem
        return []

    def before(self, frame: av.VideoFrame) -> Iterable[Event]:
        """What is lost before a frame that is shown now."""
        if frame.pts is None:
            return []
        place = Place(self._sent(frame).piece, frame.pts)
        self._leaves.discard(place)
        if self._waiting.pop(place, None) is None and self._expects_packets:
            # The decoder makes its own times: what is missing cannot be told by them.
            self._expects_packets = False
            self._waiting = {k: text for k, text in self._waiting.items() if text != _NO_FRAME}
        if self._expects_pts:
            self._expect_up_to(place)
        return self._events_at(sorted(waiting for waiting in self._waiting if waiting < place))

    def _expect_up_to(self, place: Place) -> None:
        """Where packets come one by one, no frame may be left out between two."""
        piece, last_pts = self._last
        if self._comes_one_by_one and piece == place.piece:
            for missing in range(last_pts + 1, place.pts):
                self._waiting.setdefault(Place(piece, missing), _NO_FRAME)
        self._last = max(self._last, place)

    def rest(self) -> Iterable[Event]:
        """What is lost after the last frame."""
        return self._events_at(sorted(self._waiting))

    def flaw(self, frame: av.VideoFrame) -> str | None:
        """What is wrong with a frame that the decoder gave."""
        if self._sent(frame).is_cut_off:
            return _CUT_OFF
        return _CORRUPT if frame.is_corrupt else None

    def _sent(self, frame: av.VideoFrame) -> SentPacket:
        return (
            frame.opaque if isinstance(frame.opaque, SentPacket) else SentPacket(self._piece, False)
        )

    def _events_at(self, places: list[Place]) -> list[Event]:
        return [
            Event(
                place.pts, None, self._waiting.pop(place), is_referred_to=place not in self._leaves
            )
            for place in places
        ]


class InOrder:
    """Puts frames in the order of their times, where these are known to be right.

    A decoder gives a frame that others refer to when the next such packet comes. If that one is
    lost, the frames in between come first.

    Args:
        num_held: frames that are held, to see what comes behind them; with 0 all stay as they come.
    """

    def __init__(self, num_held: int) -> None:
        self._num_held = num_held
        self._held: list[av.VideoFrame] = []
        self._given: int | None = None

    def add(self, frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Holds frames; gives those that none can come before any more."""
        for frame in frames:
            if not self._num_held or frame.pts is None:
                yield from self.rest()
                yield frame
                continue
            if self._given is not None and frame.pts < self._given:
                yield from self.rest()  # another piece begins
                self._given = None
            self._held.append(frame)
            self._held.sort(key=lambda held: held.pts or 0)
            if len(self._held) > self._num_held:
                self._given = self._held[0].pts
                yield self._held.pop(0)

    def rest(self) -> Iterator[av.VideoFrame]:
        """The frames that are held."""
        while self._held:
            yield self._held.pop(0)


def with_doubts(events: Iterable[Event]) -> Iterator[Event]:
    """Marks the frames that may refer to one that is lost.

    These are the frames behind a loss up to the next key frame, and the B-frames before it, which
    refer to what is shown after them.
    """
    is_lost = False
    waiting: list[Event] = []
    for event in events:
        is_b_frame = event.frame is not None and event.frame.pict_type == PictureType.B
        if event.problem is None and is_b_frame:
            waiting.append(event)
            continue
        is_lost |= event.problem is not None and event.is_referred_to
        yield from (replace(before, is_doubtful=is_lost) for before in waiting)
        waiting.clear()
        is_whole_key = event.problem is None and event.frame is not None and event.frame.key_frame
        is_lost &= not is_whole_key
        yield replace(event, is_doubtful=is_lost)
    yield from (replace(before, is_doubtful=is_lost) for before in waiting)
