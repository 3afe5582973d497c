"""README and documentation: commands parse and name files that exist, links lead somewhere."""

import contextlib
import functools
import io
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

import run
from benchmarks.__main__ import parser_of_all
from benchmarks.command import read_settings
from tests import in_process, processes
from tmanet_jax import command_line
from tmanet_jax.fields import leaves, with_kinds
from tmanet_jax.settings import Settings

README = processes.PROJECT / "README.md"
PAGES = {path: path.read_text() for path in (README, *README.parent.glob("docs/**/*.md"))}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


COMMANDS = {
    part.strip()
    for text in PAGES.values()
    for block in blocks(text, "bash")
    for line in block.splitlines()
    for part in line.split("&&")
}
RUNS = sorted(command for command in COMMANDS if command.startswith("python run.py"))
MODULES = sorted(command for command in COMMANDS if command.startswith("python -m"))
BENCHMARKS = [command for command in MODULES if command.startswith("python -m benchmarks")]


def commands_elsewhere() -> Iterator[str]:
    """In sentences, tables and scripts of other machines; what a reader fills in is a number."""
    for text in PAGES.values():
        yield from re.findall(r"`(python (?:run\.py|-m benchmarks)[^`\[]* --[^`\[]*)`", text)
        for script in blocks(text, "sh"):
            yield from re.findall(r"python run\.py [^|>&\n]*", script.replace("\\\n", " "))


ELSEWHERE = sorted(
    {re.sub(r"\$\w+|\s+", lambda m: "1" if "$" in m[0] else " ", c) for c in commands_elsewhere()}
)


def test_the_two_lines_of_the_start_are_there() -> None:
    lines = [line for block in blocks(PAGES[README], "bash") for line in block.splitlines()]
    assert lines[0] == ("pip install -r requirements.txt && python run.py --config=configs/demo.py")
    assert lines[1] == "pip install -r requirements-dev.txt && python -m pytest"
    continuous_integration = (processes.PROJECT / ".ci" / "run").read_text()
    assert "pip install --quiet -r requirements-dev.txt" in continuous_integration
    assert "\npython -m pytest\n" in continuous_integration


def test_the_readme_is_short() -> None:
    assert len(PAGES[README].splitlines()) <= 150


def test_every_command_is_of_a_known_kind() -> None:
    installs = {command for command in COMMANDS if command.startswith("pip install -r")}
    assert {*RUNS, *MODULES} | installs == COMMANDS
    for command in installs:
        assert (processes.PROJECT / command.split()[-1]).is_file(), command


def words_of(command: str) -> list[str]:
    """What follows run.py; a run that is named by its workdir is the demo's."""
    words = [re.sub(r"(finetune\.py):.*", r"\1", word) for word in shlex.split(command)[2:]]
    has_config = any(word.startswith("--config=") for word in words)
    return words if has_config else [*words, "--config=configs/demo.py"]


@pytest.mark.parametrize("command", RUNS)
def test_the_settings_of_a_run_are_accepted(command: str) -> None:
    """Without its data a run gets as far as to miss it."""
    without_data = [
        "--config.data.render=False",
        "--config.data.dir=/nowhere",
        "--workdir=/nowhere",
    ]
    misses = ["There are no records at /nowhere", ".safetensors", "There is nothing to segment at"]
    misses.append("curves.csv cannot be read")
    misses.append("pip install -r requirements-export.txt")  # the line above, where it was not run
    words = [word for word in words_of(command) if not word.startswith("--workdir=")]
    words += without_data
    if "config" in words:
        assert in_process.called(words).returncode == 0
        return
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
    check_benchmark(command)


def check_benchmark(command: str) -> None:
    options, fields = parser_of_all().parse_known_args(shlex.split(command)[3:])
    if "config" in options:
        read_settings(str(processes.PROJECT / options.config), fields)
    else:
        assert not fields


@pytest.mark.parametrize("command", ELSEWHERE)
def test_a_command_in_a_sentence_or_a_script_parses(command: str) -> None:
    if "benchmarks" in command:
        check_benchmark(command)
    else:
        with contextlib.chdir(processes.PROJECT):
            assert command_line.parse(["run.py", *words_of(command)], run.MODES)


def test_every_field_that_is_named_exists() -> None:
    usual = leaves(Settings())
    choices = [leaf for leaf in usual if leaf.field.declared.kinds]
    known = {leaf.path for leaf in usual} | {
        leaf.path
        for choice in choices
        for kind in choice.field.declared.kinds
        for leaf in leaves(with_kinds(Settings(), {choice.path: kind}))
    }
    known |= {name.rpartition(".")[0] for name in known} | {"json", "py"}
    for path, text in PAGES.items():
        named = {name.rstrip(".") for name in re.findall(r"(?:--|`)config\.([a-z_.0-9]+)", text)}
        assert named <= known, path


def test_nothing_is_left_to_be_filled_in() -> None:
    assert not [path for path, text in PAGES.items() if "<!--" in text or "TODO" in text]


def test_every_file_that_is_linked_exists() -> None:
    for path, text in PAGES.items():
        for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
            assert (path.parent / Path(target)).exists(), f"{path}: {target}"
