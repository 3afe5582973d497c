"""What the flags of a run in several processes may say, and what it does when a port is taken."""

import logging
import re
import socket
import subprocess
import sys
from typing import Any

import pytest
from ml_collections import ConfigDict

import run
from configs import default
from tests.processes import PROJECT
from tmanet_jax.errors import UserError
from tmanet_jax.parallel import distributed
from tmanet_jax.parallel.distributed import Launch, launch_of
from tmanet_jax.parallel.peers import EXIT_STATUS

NOTHING: dict[str, Any] = {
    "detected": False,
    "coordinator": None,
    "num_processes": None,
    "process_id": None,
    "start_timeout_s": None,
    "peer_timeout_s": None,
}


def test_one_process_alone_is_what_no_flag_means() -> None:
    assert launch_of(**NOTHING) is None
    assert distributed.count() == 1
    assert distributed.is_first()


def test_news_and_warnings_are_told_without_where_they_come_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("tmanet_jax")
    for name in ("level", "handlers", "propagate"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    distributed.tell_news()
    distributed.tell_news()
    logging.getLogger("tmanet_jax.export").info("It is exported.")
    logging.getLogger("tmanet_jax.video").warning("It is HDR.")
    assert capsys.readouterr().err == "It is exported.\nWarning: It is HDR.\n"


def test_a_coordinator_or_the_cluster_say_who_the_others_are() -> None:
    named = {"coordinator": "[::1]:80", "num_processes": 4, "process_id": 3}
    assert launch_of(**{**NOTHING, **named}) == Launch("[::1]:80", 4, 3, 300, 60)
    assert launch_of(**{**NOTHING, "detected": True}) == Launch(None, None, None, 300, 60)
    timeouts = {"start_timeout_s": 9, "peer_timeout_s": 8}
    assert launch_of(**{**NOTHING, **named, **timeouts}) == Launch("[::1]:80", 4, 3, 9, 8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_processes": 2}, "go with --coordinator"),
        ({"process_id": 0}, "go with --coordinator"),
        ({"start_timeout_s": 9}, "go with several processes"),
        ({"peer_timeout_s": 9}, "go with several processes"),
        ({"detected": True, "coordinator": "a:1"}, "one of the two"),
        ({"coordinator": "a"}, "a free port"),
        ({"coordinator": "a:70000"}, "a free port"),
        ({"coordinator": "a:1"}, "--num-processes and --process-id"),
        ({"coordinator": "a:1", "num_processes": 2}, "--num-processes and --process-id"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "from 0 to 1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        launch_of(**{**NOTHING, **given})


def test_the_guide_names_fields_and_flags_that_are_there() -> None:
    guide = (PROJECT / "docs" / "pods.md").read_text()
    config = default.get_config()
    fields = set(re.findall(r"config\.([a-z_]+(?:\.[a-z_]+)?)\b", guide))
    assert {"batch_size", "mesh.space", "profile"} <= fields
    assert fields <= {*config, *flatten(config)}
    options = {name for mode in run.MODES.values() for name in mode.all_options}
    for line in guide.splitlines():
        if line.lstrip().startswith(("--", "| `--")) or "run.py" in line:
            for flag in re.findall(r"--([a-z-]+)[=` ]", line):
                assert flag in options or flag == "kill-on-bad-exit", line


def flatten(config: ConfigDict) -> list[str]:
    return [
        f"{group}.{name}"
        for group, part in config.items()
        if isinstance(part, ConfigDict)
        for name in part
    ]


def test_a_port_that_is_taken_is_told_before_jax_crashes_on_it() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        launch = Launch(f"localhost:{port}", 1, 0, 300, 60)
        with pytest.raises(UserError, match="cannot listen"), distributed.joined(launch):
            pass


@pytest.mark.parametrize(
    ("words", "status"), [("'it was this'", EXIT_STATUS), ("None", -6)], ids=["lost", "own fault"]
)
def test_an_abort_gets_last_words_and_a_status_if_there_are_any(words: str, status: int) -> None:
    """Also in a thread that is none of Python's."""
    program = (
        "import ctypes, threading; from tmanet_jax.parallel import peers\n"
        f"peers.on_abort(lambda: {words})\n"
        "thread = threading.Thread(target=ctypes.CDLL(None).abort)\n"
        "thread.start(); thread.join()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status
    assert ("it was this" in done.stderr) == (status == EXIT_STATUS)
