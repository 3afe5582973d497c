"""Several processes that train or score as one: how they find each other, and act one at a time.

Each has its own devices and reads its own clips; arrays are global (`sharding.put_batch`). Process
0 alone writes logs, pictures and reports, and is where the others meet.
"""

import contextlib
import hashlib
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax._src import distributed as jax_distributed  # the key-value store has no public name
from tqdm import tqdm

from tmanet_jax import peers
from tmanet_jax.errors import Stopped, UserError

START_TIMEOUT_S, PEER_TIMEOUT_S = 300, 60
_NO_LIMIT_MS = 7 * 24 * 3600 * 1000  # the watch ends a wait for a process that is lost


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
    timeouts = (start_timeout_s or START_TIMEOUT_S, peer_timeout_s or PEER_TIMEOUT_S)
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
    """Returns when all processes have come to this place; its name is used once in a run."""
    if count() > 1:
        _client().wait_at_barrier(f"tmanet/{place}", _NO_LIMIT_MS)


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
    if count() == 1:
        return
    client, own = _client(), hashlib.sha256(repr(value).encode()).hexdigest()
    client.key_value_set(f"tmanet/same/{what}/{index()}", own)
    digests = [
        client.blocking_key_value_get(f"tmanet/same/{what}/{other}", _NO_LIMIT_MS)
        for other in range(count())
    ]
    others = [other for other, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise UserError(
            f"Process 0 and process {', '.join(map(str, others))} differ in the {what}: start all "
            "with the same command, code, records and --workdir (on a file system that they share)."
        )


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


def _join(launch: Launch) -> peers.Peers:
    """Raises UserError if the cluster is unknown, or the port is taken."""
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
            heartbeat_timeout_seconds=2 * launch.peer_timeout_s,  # `peers` speaks before
            shutdown_timeout_seconds=launch.peer_timeout_s,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"The processes did not find each other: {error} --distributed is for TPU pods, SLURM, "
            "Kubernetes (with pip install 'jax[k8s]') and Open MPI; elsewhere give "
            "--coordinator=HOST:PORT --num-processes=N --process-id=I."
        ) from error
    client = _client()
    client.key_value_set(f"tmanet/name/{index()}", f"{socket.gethostname()}, pid {os.getpid()}")
    names = tuple(
        client.blocking_key_value_get(f"tmanet/name/{other}", 1000 * launch.start_timeout_s)
        for other in range(count())
    )
    address = jax_distributed.global_state.coordinator_address
    assert address is not None
    members = peers.Peers(index(), names, address, launch.peer_timeout_s)
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
    """Whether a lost process may be the reason: what jax and gloo raise then."""
    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


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
