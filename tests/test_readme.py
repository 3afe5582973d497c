"""Every command of the README parses, names files that exist, and is the one that CI runs."""

import contextlib
import functools
import io
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import pytest

from benchmarks.__main__ import parser_of_all
from benchmarks.command import read_settings
from tests import in_process, processes

README = (processes.PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    part.strip() for block in BLOCKS for line in block.splitlines() for part in line.split("&&")
]
RUNS = [command for command in COMMANDS if command.startswith("python run.py")]
MODULES = [command for command in COMMANDS if command.startswith("python -m")]
BENCHMARKS = [command for command in MODULES if command.startswith("python -m benchmarks")]


def test_the_two_lines_of_the_start_are_there() -> None:
    lines = [line for block in BLOCKS for line in block.splitlines()]
    assert lines[0] == ("pip install -r requirements.txt && python run.py --config=configs/demo.py")
    assert lines[1] == "pip install -r requirements-dev.txt && python -m pytest"
    continuous_integration = (processes.PROJECT / ".ci" / "run").read_text()
    assert "pip install --quiet -r requirements-dev.txt" in continuous_integration
    assert "\npython -m pytest\n" in continuous_integration


def test_every_command_is_of_a_known_kind() -> None:
    installs = [command for command in COMMANDS if command.startswith("pip install -r")]
    assert set(COMMANDS) == set(RUNS) | set(MODULES) | set(installs)
    for command in installs:
        assert (processes.PROJECT / command.split()[-1]).is_file(), command


@pytest.mark.parametrize("command", RUNS)
def test_the_settings_of_a_run_are_accepted(command: str) -> None:
    """Without its data a run gets as far as to miss it."""
    without_data = [
        "--config.data.render=False",
        "--config.data.dir=/nowhere",
        "--workdir=/nowhere",
    ]
    misses = ["There are no records at /nowhere", ".safetensors", "There is nothing to segment at"]
    misses.append("pip install -r requirements-export.txt")  # the line above, where it was not run
    words = [*shlex.split(command)[2:], *without_data]
    done = with_two_devices(words) if "mesh.space=2" in command else in_process.called(words)
    assert done.returncode == 2, done.stderr
    assert any(message in done.stderr for message in misses), done.stderr


def with_two_devices(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "run.py", *words],
        cwd=processes.PROJECT,
        env=processes.environment(num_devices=2),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@functools.cache
def help_of(module: str) -> str:
    """What `python -m MODULE --help` prints."""
    shown = io.StringIO()
    with (
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),  # it is imported already
        mock.patch.object(sys, "argv", [module, "--help"]),
        mock.patch.object(sys, "excepthook", sys.excepthook),
        contextlib.redirect_stdout(shown),
        pytest.raises(SystemExit) as end,
    ):
        runpy.run_module(module, run_name="__main__")
    assert not end.value.code
    return shown.getvalue()


@pytest.mark.parametrize("command", MODULES)
def test_the_options_of_a_module_exist(command: str) -> None:
    _, _, module, *arguments = shlex.split(command)
    if module in ("pytest", "benchmarks"):
        return
    shown = help_of(module)
    for argument in arguments:
        if argument.startswith("--"):
            assert argument.split("=")[0] in shown, argument


@pytest.mark.parametrize("command", BENCHMARKS)
def test_the_options_and_fields_of_a_benchmark_exist(command: str) -> None:
    options, fields = parser_of_all().parse_known_args(shlex.split(command)[3:])
    if "config" in options:
        read_settings(str(processes.PROJECT / options.config), fields)
    else:
        assert not fields


def test_nothing_is_left_to_be_filled_in() -> None:
    assert "<!--" not in README


def test_every_file_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (processes.PROJECT / Path(target)).exists(), target
