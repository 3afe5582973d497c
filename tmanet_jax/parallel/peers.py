"""The watch over the processes of a run: when one is lost, the others end, and say which.

jax alone does not do this. Of a lost process it tells the others in a log of C++ and aborts them,
status 134; and when it is process 0 that hangs, nothing ends at all (jax 0.10.2, measured). So
every process writes a beat into the key-value store of process 0, and reads those of the others.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

EXIT_STATUS = 75
"""Of a process that ends because another one is lost: EX_TEMPFAIL, start all of them again."""
START_TIMEOUT_S, PEER_TIMEOUT_S = 300, 60

_BEATS, _STOPPED = "tmanet/beat/", "tmanet/stopped/"
_BEATS_PER_TIMEOUT = 10
_LONGEST_BEAT_S = 2.0
_BEATS_TO_HEAR = 3
_PROBE_S = 5.0

AGAIN = "Start all processes again: training goes on from the newest checkpoint."


@dataclass(frozen=True)
class Peers:
    """The processes of a run.

    Attributes:
        index: of this process.
        names: of all, for messages: machine and process id.
        coordinator: HOST:PORT where process 0 answers.
        timeout_s: after so much silence a process is lost.
    """

    index: int
    names: tuple[str, ...]
    coordinator: str
    timeout_s: float

    def name(self, index: int) -> str:
        """A process, as messages call it."""
        return f"Process {index} ({self.names[index]})"


class PeerWatch:
    """Ends this process when another one is lost or has stopped.

    Two threads: the one that beats may wait for ever for a process 0 that hangs, so the other
    looks at the clock.

    Args:
        peers: the processes.
        client: of jax's coordination service.
    """

    def __init__(self, peers: Peers, client: Any):
        self._peers = peers
        self._client = client
        self._interval_s = min(peers.timeout_s / _BEATS_PER_TIMEOUT, _LONGEST_BEAT_S)
        self._quiet = threading.Event()
        now = time.monotonic()
        self._answered = now  # when process 0 answered last
        self._heard = dict.fromkeys(range(len(peers.names)), ("", now))

    def start(self) -> None:
        """Beats and watches until `stop`."""
        for loop in (self._beat, self._look):
            threading.Thread(target=loop, daemon=True, name=f"peers{loop.__name__}").start()

    def stop(self) -> None:
        """Watches no more: the run is over."""
        self._quiet.set()

    def announce(self, reason: str) -> None:
        """Tells the others that this process ends, and gives them the time to hear it."""
        self._quiet.set()
        telling = threading.Thread(
            target=self._client.key_value_set,
            args=(f"{_STOPPED}{self._peers.index}", reason, True),
            daemon=True,
        )
        telling.start()
        telling.join(self._peers.timeout_s)
        last = self._peers.index == 0  # with it ends what the others hear by
        time.sleep((_BEATS_TO_HEAR + 2 * last) * self._interval_s)

    def await_verdict(self) -> None:
        """Returns after so long that a lost process would have ended this one."""
        self._quiet.wait(self._peers.timeout_s + _BEATS_TO_HEAR * self._interval_s)

    def _beat(self) -> None:
        number = 0
        while not self._quiet.is_set():
            number += 1
            own = f"{_BEATS}{self._peers.index}"
            try:
                self._client.key_value_set(own, str(number), True)
                beats = self._client.key_value_dir_get(_BEATS)
                stopped = self._client.key_value_dir_get(_STOPPED)
            except Exception:  # process 0 does not answer: `_look` counts the seconds
                self._quiet.wait(self._interval_s)
                continue
            self._note(beats)
            for key, reason in stopped:
                self._end(f"{self._peers.name(_index_of(key))} has stopped: {reason}")
            self._quiet.wait(self._interval_s)

    def _note(self, beats: list[tuple[str, str]]) -> None:
        now = time.monotonic()
        self._answered = now
        for key, value in beats:
            index = _index_of(key)
            if self._heard[index][0] != value:
                self._heard[index] = (value, now)

    def _look(self) -> None:
        while not self._quiet.wait(self._interval_s):
            now, limit = time.monotonic(), self._peers.timeout_s
            if now - self._answered > limit:
                self._end(f"{self._coordinator()} {_silent(limit)}")
            lost = [index for index, (_, when) in self._heard.items() if now - when > limit]
            if lost:
                names = ", ".join(self._peers.name(index) for index in lost)
                self._end(f"{names} {_silent(limit)}")

    def _coordinator(self) -> str:
        return f"{self._peers.name(0)}, the coordinator at {self._peers.coordinator},"

    def _end(self, reason: str) -> None:
        if not self._quiet.is_set():
            end(f"{reason}\nProcess {self._peers.index} ends too. {AGAIN}", EXIT_STATUS)


def end(message: str, status: int) -> NoReturn:
    """Ends this process at once, from any thread, with a message."""
    sys.stdout.flush()
    os.write(2, f"\n{message}\n".encode())
    os._exit(status)


def on_abort(last_words: Callable[[], str | None], status: int = EXIT_STATUS) -> None:
    """Turns the abort that jax makes of a lost connection into a message and a status.

    Python's own handlers of signals never see an abort: it returns to no interpreter. The function
    is called in the thread that aborts.

    Args:
        last_words: the message, or None if the abort is about something else.
        status: of the process that ends with the message.
    """

    def handle(number: int) -> None:
        message = last_words()
        if message is not None:
            end(message, status)
        libc.signal(number, None)  # SIG_DFL

    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
    _KEPT_ALIVE.append(handler)
    libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))


_KEPT_ALIVE: list[Any] = []
"""C keeps the address of the handler, and no reference to it."""


def words_without_coordinator(peers: Peers) -> str | None:
    """What to say of an abort, if process 0 is gone; None if it answers."""
    if peers.index == 0 or answers(peers.coordinator):
        return None
    return (
        f"{peers.name(0)}, the coordinator at {peers.coordinator}, is gone: it ended or was "
        f"killed.\nProcess {peers.index} ends too. {AGAIN}"
    )


def answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=_PROBE_S).close()
    except OSError:
        return False
    return True


def _index_of(key: str) -> int:
    return int(key.rsplit("/", 1)[1])


def _silent(limit_s: float) -> str:
    return (
        f"has not answered for {limit_s:g} s (--peer-timeout): it was killed, hangs, or its "
        "machine or network is down."
    )
