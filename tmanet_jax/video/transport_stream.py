"""MPEG transport streams in files, by their packets: where they end, and where two were joined.

Fields are those of ISO/IEC 13818-1, 2.4.3.2 (packets) and 2.4.3.6 (what they carry).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SIZE, _SYNC = 188, 0x47
_CLOCK_HZ = 90_000
_MOST_PACKETS = 50_000
"""That are read of two frames: 9 MB."""


class _Packet(NamedTuple):
    """A packet of the transport stream.

    Attributes:
        pid: of the stream that it belongs to.
        counter: 0 to 15, counts the packets of that stream that carry something.
        is_whole: whether the sender does not say that it is damaged.
        is_stuffed: whether less than it could hold is in it, as at the end of a frame.
        decoded_at: when what begins here is to be decoded, by the clock; None within a frame.
    """

    pid: int
    counter: int
    is_whole: bool
    is_stuffed: bool
    decoded_at: int | None


def is_cut(path: Path) -> bool:
    """Whether the last packet is not whole, where packets have the usual size."""
    with path.open("rb") as file:
        start = file.read(2 * _SIZE)
    is_usual = len(start) == 2 * _SIZE and start[0] == start[_SIZE] == _SYNC
    return is_usual and path.stat().st_size % _SIZE != 0


def is_joint(path: Path, position: int, frame_s: float) -> bool:
    """Whether a frame that libav marks as corrupt is so only because files were joined.

    At a joint a frame ends, and the one behind it begins again at an earlier time or follows at
    once. libav marks the frame before the one where it notices a break in the counters of packets,
    so that both are looked at.

    Args:
        path: the file.
        position: of the frame that is marked.
        frame_s: how long a frame is shown, in seconds.
    """
    joints: list[bool] = []
    num_frames, last_time = 0, 0
    before: _Packet | None = None
    for packet in _of_one_stream(path, position):
        if not packet.is_whole:
            return False
        time = packet.decoded_at
        if before is not None and packet.counter != (before.counter + 1) % 16:
            follows = time is not None and time <= last_time + 1.5 * frame_s * _CLOCK_HZ
            joints.append(before.is_stuffed and follows)
        num_frames += time is not None
        if num_frames == 3:
            break
        last_time = last_time if time is None else time
        before = packet
    return bool(joints) and all(joints)


def _of_one_stream(path: Path, position: int) -> Iterator[_Packet]:
    """The packets from a position on that carry something of the stream of the first one."""
    pid = None
    with path.open("rb") as file:
        file.seek(position)
        for _ in range(_MOST_PACKETS):
            data = file.read(_SIZE)
            if len(data) < _SIZE or data[0] != _SYNC:
                return
            has_content = bool(data[3] & 0x10)
            packet = _parsed(data)
            pid = packet.pid if pid is None else pid
            if has_content and packet.pid == pid:
                yield packet


def _parsed(data: bytes) -> _Packet:
    begin = 5 + data[4] if data[3] & 0x20 else 4
    content = data[begin:]
    is_start = data[1] & 0x40 and content[:3] == b"\0\0\1" and content[7:8] > b"\x7f"
    return _Packet(
        pid=(data[1] & 0x1F) << 8 | data[2],
        counter=data[3] & 0xF,
        is_whole=not data[1] & 0x80,
        is_stuffed=begin > 4 + 8,  # more than a clock
        decoded_at=_decoded_at(content) if is_start else None,
    )


def _decoded_at(content: bytes) -> int:
    """When to decode; where only the time of showing stands there, they are the same."""
    stamp = content[14:19] if content[7] & 0x40 else content[9:14]
    a, b, c, d, e = stamp.ljust(5, b"\0")
    return (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1
