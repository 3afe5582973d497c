"""The folder of a run: made, kept from other runs, and what it says of itself (`config.json`)."""

import contextlib
import dataclasses
import datetime
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from tqdm import tqdm

from tmanet_jax.data import strict_json
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.files import lock, write_whole
from tmanet_jax.data.records import ClipRecords
from tmanet_jax.errors import UserError
from tmanet_jax.parallel import distributed
from tmanet_jax.protocol import Protocol
from tmanet_jax.run_file import CONFIG_FILE, read_run_file

LOCK_FILE = "run.lock"
PATTERN_CHARACTERS = "*?[\\"
"""Orbax looks for parts of a checkpoint by patterns of its whole path, where these mean others."""
_PROJECT = Path(__file__).parents[1]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def check_path(directory: Path) -> None:
    """Checkpoints below some paths could be written, and read by nobody.

    Raises:
        UserError: this is such a path.
    """
    whole_path = str(directory.absolute())
    found = [character for character in PATTERN_CHARACTERS if character in whole_path]
    if found:
        raise UserError(
            f"No checkpoints can be kept in {whole_path}: the library that writes them "
            f"reads {' '.join(found)} as a pattern. Choose another --workdir, whose whole path is "
            f"without {' '.join(PATTERN_CHARACTERS)}."
        )


def make_workdir(workdir: Path) -> None:
    """Makes the workdir.

    Raises:
        UserError: it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(
            f"The workdir {workdir} cannot be written: {error.strerror}. Choose another --workdir."
        ) from error


def check_processes_agree(records: ClipRecords, workdir: Path | None) -> None:
    """The processes of a run share the clips, whose records may lie anywhere, and the workdir.

    Args:
        records: of the clips.
        workdir: made already; None: not all processes use it.

    Raises:
        UserError: they do not.
    """
    if distributed.count() == 1:
        return
    distributed.check_same("clips", [records.clip_id(index) for index in range(len(records))])
    if workdir is None:
        return
    start_id = distributed.exchange("start", uuid.uuid4().hex)[0]
    mark = workdir / f".shared-by-all-processes-{start_id}"
    if distributed.is_first():
        mark.touch()
    distributed.wait_for_all("mark made")
    try:
        distributed.check_same("workdir", mark.exists())
    finally:
        if distributed.is_first():
            mark.unlink()


@contextlib.contextmanager
def alone_in(folder: Path, option: str) -> Iterator[None]:
    """Keeps other runs out of a folder; the lock ends with this process, however that ends.

    Of several processes of a run, the first one does so.

    Args:
        folder: of the run, made already.
        option: of the command line, which names the folder.

    Raises:
        UserError: another run is at work there; the message names its process.
    """
    if not distributed.is_first():
        yield
        return
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            is_locked = lock(file.fileno())
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "a process that has just begun"
            raise UserError(
                f"Another run is at work in {folder}: {owner}. Wait until it ends, stop it, or "
                f"choose another {option}."
            ) from error
        if not is_locked:
            tqdm.write(f"{folder} cannot be locked there: see that no other run uses it.")
        file.truncate(0)
        file.write(
            f"process {os.getpid()} on {socket.gethostname()}, "
            f"since {datetime.datetime.now():%Y-%m-%d %H:%M:%S}\n"
        )
        file.flush()
        yield


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """Everything that decides what a run computes.

    Attributes:
        config: every field of the configuration by its dotted name, as JSON holds it.
        command: the command line.
        versions: of Python and of the libraries that compute.
        commit: of this project, "-dirty" behind it if files were changed; None: no repository.
        data_dir: absolute directory of the clip records.
        classes: what the records tell apart.
        protocol: how the network is scored.
    """

    config: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    commit: str | None
    data_dir: str
    classes: ClassSet
    protocol: Protocol

    @classmethod
    def of(
        cls, config: Mapping[str, Any], records: ClipRecords, protocol: Protocol
    ) -> "RunDescription":
        """That of this process, with the clips that it trains on."""
        versions = {name: metadata.version(name) for name in _PACKAGES}
        return cls(
            config=config,
            command=shlex.join(sys.argv),
            versions={"python": platform.python_version(), **versions},
            commit=_commit(),
            data_dir=str(records.data_dir.absolute()),
            classes=records.info.classes,
            protocol=protocol,
        )

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return dataclasses.asdict(self)

    def write(self, workdir: Path) -> None:
        """Leaves it in the workdir."""
        content = json.dumps(self.to_json(), indent=2) + "\n"
        write_whole(workdir / CONFIG_FILE, content.encode())

    def __str__(self) -> str:
        """For the log; the configuration stands in its file."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.command}\ncommit {self.commit or 'unknown'}; {versions}"


def fields_of(config: ConfigDict) -> dict[str, Any]:
    """Every field by its dotted name, as it comes back from JSON."""
    return json.loads(json.dumps(flatten_dict(config.to_dict(), sep=".")))


def read_fields(workdir: Path) -> Mapping[str, Any]:
    """The configuration of the run in a workdir; empty if there is none.

    Raises:
        UserError: the file is damaged.
    """
    run = read_run_file(workdir)
    return {} if run is None else run.config


def read_protocol(workdir: Path) -> Protocol | None:
    """How the network of the run in a workdir is scored; None if it does not say.

    Raises:
        UserError: the file is damaged.
    """
    run = read_run_file(workdir)
    if run is None or "protocol" not in run.content:
        return None
    return strict_json.decode(Protocol, run.content["protocol"], f"{run.path}, protocol")


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The fields that two configurations set differently, in words; those of one alone are not."""
    return [
        f"{name} is {there[name]!r} there and {here[name]!r} here"
        for name in here
        if name in there and there[name] != here[name]
    ]


def tell_contradictions(workdir: Path, config: ConfigDict) -> None:
    """Tells where a run is used otherwise than it was trained.

    Raises:
        UserError: what the workdir says is damaged.
    """
    changed = differences(read_fields(workdir), fields_of(config))
    if changed:
        distributed.tell(f"Unlike {workdir / CONFIG_FILE}: {'; '.join(changed)}.")


def _commit() -> str | None:
    if not (_PROJECT / ".git").exists():
        return None
    words = ["git", "-C", str(_PROJECT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
