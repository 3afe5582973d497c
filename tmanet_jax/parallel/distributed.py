"""Several processes that train or score as one: how they find each other, and act one at a time.

Each has its own devices and reads its own clips; arrays are global (`sharding.put_batch`). Process
0 alone writes logs, pictures and reports, and is where the others meet.
"""

import contextlib
import hashlib
import json
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax._src import distributed as jax_distributed  # the key-value store has no public name
from tqdm import tqdm

from tmanet_jax.errors import Stopped, UserError
from tmanet_jax.parallel import peers

_NO_LIMIT_MS = 7 * 24 * 3600 * 1000  # the watch ends a wait for a process that is lost
JAX_TIMEOUTS = 4
"""Peer timeouts without a beat after which jax itself aborts a process: `peers` speaks before.

jax beats twice in that time: half of it may be over when a process is stopped.
"""
_SAME = (
    "Start all with the same command, code, records and --workdir (on a file system that they "
    "share)."
)


@dataclass(frozen=True)
class Launch:
    """How this process finds the others.

    Attributes:
        coordinator: HOST:PORT where process 0 listens; None: the cluster says it (TPU pods, SLURM,
            Kubernetes, Open MPI), and the two numbers below too.
        num_processes: of the run.
        process_id: of this one, from 0.
        start_timeout_s: to wait for all at the start.
        peer_timeout_s: after so much silence a process is lost, and the others end.
    """

    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    start_timeout_s: int
    peer_timeout_s: int


def launch_of(
    *,
    detected: bool,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    start_timeout_s: int | None,
    peer_timeout_s: int | None,
) -> Launch | None:
    """What the flags of a command line ask for; None: one process, alone.

    A flag that is None was not given.

    Raises:
        UserError: they contradict each other, or one is missing.
    """
    timeouts = (
        start_timeout_s or peers.START_TIMEOUT_S,
        peer_timeout_s or peers.PEER_TIMEOUT_S,
    )
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise UserError("--num-processes and --process-id go with --coordinator=HOST:PORT.")
        if detected:
            return Launch(None, None, None, *timeouts)
        if start_timeout_s is not None or peer_timeout_s is not None:
            raise UserError(
                "--start-timeout and --peer-timeout go with several processes: --distributed or "
                "--coordinator=HOST:PORT."
            )
        return None
    if detected:
        raise UserError(
            "--distributed lets the cluster say what --coordinator says: give one of the two."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isdigit() and 0 < int(port) < 2**16):
        raise UserError(
            f"--coordinator is {coordinator!r}: give the machine of process 0 and a free port of "
            "it, as in --coordinator=10.0.0.1:1234."
        )
    if num_processes is None or process_id is None:
        raise UserError(
            "--coordinator wants --num-processes and --process-id besides, the latter another one "
            "for each process, from 0."
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process-id is {process_id}: with --num-processes={num_processes} it must be from 0 "
            f"to {num_processes - 1}."
        )
    return Launch(coordinator, num_processes, process_id, *timeouts)


@contextlib.contextmanager
def joined(launch: Launch | None) -> Iterator[None]:
    """Joins the processes of a run; they leave together, also when one of them fails.

    Before this nothing may touch a device. A process that fails tells the others why, prints its
    error and ends here: jax's own end would wait for all of them.

    Args:
        launch: None: this process is alone.

    Raises:
        UserError: the processes do not find each other.
        Stopped: all of them were told to stop.
    """
    if launch is None:
        yield
        return
    members = _join(launch)
    watch = peers.PeerWatch(members, _client())
    watch.start()
    stopped = None
    try:
        try:
            yield
        except Stopped as told:  # all of them, after the same step
            stopped = told
        wait_for_all("end")
    except BaseException as error:
        if _is_of_communication(error):
            print(
                f"{error}\nIs another process lost? It is waited for.", file=sys.stderr, flush=True
            )
            watch.await_verdict()
        _end_with(error, watch)
    watch.stop()
    jax.distributed.shutdown()
    if stopped is not None:
        raise stopped


def wait_for_all(place: str) -> None:
    """Returns when all processes have come to this place, however long that takes."""
    if count() > 1:
        _client().wait_at_barrier(f"tmanet/{place}", _NO_LIMIT_MS)


def wait_for_start(place: str) -> None:
    """The same on the way to the first step, within `Launch.start_timeout_s`.

    A program that exchanges arrays may be called for the first time only where all do so at once:
    gloo connects then, and gives up after 30 s, which one process may compile longer than another.

    Args:
        place: what each has done; used once in a run.

    Raises:
        UserError: not all have come, naming those that are missing.
    """
    if count() == 1:
        return
    client, here = _client(), f"tmanet/at/{place}/"
    client.key_value_set(f"{here}{index()}", "")
    try:
        client.wait_at_barrier(here, 1000 * _start_timeout_s)
    except jax.errors.JaxRuntimeError as error:
        if _status_word(error) != "DEADLINE_EXCEEDED":
            raise
        come = {int(key.rsplit("/", 1)[1]) for key, _ in client.key_value_dir_get(here)}
        missing = ", ".join(str(other) for other in range(count()) if other not in come)
        raise UserError(
            f"Process {missing} has not {place} within {_start_timeout_s} s of the first one that "
            "had: give more with --start-timeout=SECONDS. The next start finds what was compiled."
        ) from error


def in_turn(action: Callable[[], object]) -> None:
    """Each process acts when those before it have: files that are shared are made once."""
    for other in range(count()):
        if other == index():
            action()
        wait_for_all(f"turn/{other}")


def check_same(what: str, value: object) -> None:
    """Refuses a run whose processes were told different things.

    Args:
        what: the name of the thing; used once in a run.
        value: its `repr` is compared.

    Raises:
        UserError: it differs, naming the processes.
    """
    digests = exchange(f"same/{what}", hashlib.sha256(repr(value).encode()).hexdigest())
    others = [other for other, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise UserError(
            f"Process 0 and process {', '.join(map(str, others))} differ in the {what}. {_SAME}"
        )


def check_same_fields(what: str, fields: Mapping[str, object]) -> None:
    """The same for a thing of several fields, of which those that differ are named.

    Raises:
        UserError: fields differ, with their values and processes.
    """
    texts = exchange(f"same/{what}", json.dumps({name: repr(fields[name]) for name in fields}))
    first, *others = map(json.loads, texts)
    different = [
        f"{name} is {first.get(name)} in process 0 and {other.get(name)} in process {number}"
        for number, other in enumerate(others, start=1)
        for name in {**first, **other}
        if first.get(name) != other.get(name)
    ]
    if different:
        raise UserError(f"The processes differ in the {what}: {'; '.join(different)}. {_SAME}")


def exchange(what: str, text: str) -> list[str]:
    """What each process has to say, by their numbers; `what` is used once in a run."""
    if count() == 1:
        return [text]
    client = _client()
    client.key_value_set(f"tmanet/{what}/{index()}", text)
    return [
        client.blocking_key_value_get(f"tmanet/{what}/{other}", _NO_LIMIT_MS)
        for other in range(count())
    ]


def count() -> int:
    """Number of processes. Unlike `jax.process_count`, it touches no device."""
    return jax_distributed.global_state.num_processes


def index() -> int:
    """Of this process, from 0."""
    return jax_distributed.global_state.process_id


def is_first() -> bool:
    """Whether this is the process that writes and tells."""
    return index() == 0


def tell(text: str) -> None:
    """To the terminal, above a progress bar; by process 0 alone."""
    if is_first():
        tqdm.write(text)


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if is_first():
            warns = "Warning: " * (record.levelno >= logging.WARNING)
            tqdm.write(f"{warns}{record.getMessage()}", file=sys.stderr)


def tell_news() -> None:
    """What modules of this package log goes to the terminal, above a progress bar."""
    logger = logging.getLogger("tmanet_jax")
    logger.setLevel(logging.INFO)
    logger.handlers, logger.propagate = [_Terminal()], False


_start_timeout_s = peers.START_TIMEOUT_S
"""Of the run that this process has joined."""


def _join(launch: Launch) -> peers.Peers:
    """Raises UserError if the cluster is unknown, or the port is taken."""
    global _start_timeout_s
    _start_timeout_s = launch.start_timeout_s
    if launch.process_id == 0 and launch.coordinator is not None:
        _check_port(launch.coordinator)
    peers.on_abort(lambda: _words_of_start(launch))
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            launch.coordinator,
            launch.num_processes,
            launch.process_id,
            cluster_detection_method=None if launch.coordinator is None else "deactivate",
            initialization_timeout=launch.start_timeout_s,
            heartbeat_timeout_seconds=JAX_TIMEOUTS * launch.peer_timeout_s,
            shutdown_timeout_seconds=launch.peer_timeout_s,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"The processes did not find each other: {error} --distributed is for TPU pods, SLURM, "
            "Kubernetes (with pip install 'jax[k8s]') and Open MPI; elsewhere give "
            "--coordinator=HOST:PORT --num-processes=N --process-id=I."
        ) from error
    names = exchange("name", f"{socket.gethostname()}, pid {os.getpid()}")
    address = jax_distributed.global_state.coordinator_address
    assert address is not None
    members = peers.Peers(index(), tuple(names), address, launch.peer_timeout_s)
    peers.on_abort(lambda: peers.words_without_coordinator(members))
    return members


def _check_port(address: str) -> None:
    """The service of jax crashes on a port that is taken."""
    port = int(address.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(
            f"Process 0 cannot listen at --coordinator={address}: {error.strerror}. Choose another "
            "port, the same for all processes."
        ) from error


def _words_of_start(launch: Launch) -> str:
    wanted = (
        "all processes" if launch.num_processes is None else f"{launch.num_processes} processes"
    )
    where = launch.coordinator or "the coordinator of the cluster"
    reached = launch.coordinator is not None and peers.answers(launch.coordinator)
    return (
        f"{wanted} did not come together at {where} within {launch.start_timeout_s} s "
        f"(--start-timeout). Process 0 {'answers' if reached else 'does not answer'} there: "
        f"{'another one is missing' if reached else 'it is missing, or a firewall is between'}."
    )


def _is_of_communication(error: BaseException) -> bool:
    """Whether a lost process may be the reason: what jax, gloo and NCCL raise then."""
    if any(library in str(error) for library in ("Gloo", "NCCL")):
        return True
    return isinstance(error, jax.errors.JaxRuntimeError) and _status_word(error) not in _OWN_FAULTS


_OWN_FAULTS = (
    "RESOURCE_EXHAUSTED",  # out of memory
    "INVALID_ARGUMENT",
    "OUT_OF_RANGE",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNIMPLEMENTED",
)
"""Status words that no lost process causes."""


def _status_word(error: BaseException) -> str:
    return str(error).split(":", 1)[0]


def _end_with(error: BaseException, watch: peers.PeerWatch) -> None:
    if isinstance(error, UserError):
        text, status, reason = str(error), 2, str(error)
    else:
        text, status = traceback.format_exc(), 1
        reason = f"{type(error).__name__}: {error}"
    print(text, file=sys.stderr, flush=True)
    last_words = f"Process {index()} has stopped; it told the others."
    peers.on_abort(lambda: last_words, status)  # once told, they may leave before this one
    watch.announce(reason)
    peers.end(last_words, status)


def _client() -> Any:
    client = jax_distributed.global_state.client
    assert client is not None
    return client
