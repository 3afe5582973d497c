"""A command line: its mode, the options of that mode, and its configuration."""

import argparse
import dataclasses
import difflib
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tmanet_jax.errors import UserError
from tmanet_jax.program import FOLDER, advice, folder_is_importable, loading
from tmanet_jax.run_file import CONFIG_FILE

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from tmanet_jax.settings import Settings

Options = Mapping[str, Mapping[str, Any]]
"""By name, without dashes: what `argparse` is told of an option."""

_COMMON: Options = {
    "config": {
        "metavar": "NAME|FILE",
        "help": "the configuration, such as demo; default: that of the workdir's run",
    },
    "workdir": {
        "metavar": "DIR",
        "action": "append",
        "help": "checkpoints, logs, metrics and pictures; default runs/NAME",
    },
}
_CONFIG_OF_WORKDIR = FOLDER / "configs" / "workdir.py"


def option(meaning: str, **keywords: Any) -> Mapping[str, Any]:
    """What `argparse` is told of an option: what it means, and more."""
    return {"help": meaning, **keywords}


class Configured(NamedTuple):
    """A configuration file and the fields that a command line sets in it.

    Attributes:
        config: with these fields.
        settings: made of it.
        others: words of the command line that are no fields.
    """

    config: "ConfigDict"
    settings: "Settings"
    others: list[str]


class Command(NamedTuple):
    """What a command line says.

    Attributes:
        mode: its name.
        options: of the mode, by name; those that are not given have their default.
        config: the configuration.
        settings: made of it.
    """

    mode: str
    options: Mapping[str, Any]
    config: "ConfigDict"
    settings: "Settings"

    @property
    def workdir(self) -> Path:
        """Of the run.

        Raises:
            UserError: there are several.
        """
        first, *others = self.workdirs
        if others:
            raise UserError(
                f"--workdir is given {len(others) + 1} times, and mode {self.mode} is of one run; "
                "mode report compares several."
            )
        return first

    @property
    def workdirs(self) -> list[Path]:
        """Of the runs, at least one."""
        return [Path(name) for name in self.options["workdir"] or [f"runs/{self.settings.name}"]]


@dataclasses.dataclass(frozen=True)
class Mode:
    """What the first word of a command line chooses.

    Attributes:
        start: does it.
        summary: one line for the help.
        options: its own.
        of_processes: further ones, which may differ between the processes of a run.
        needs_records: whether it reads the data set.
        config: the configuration where none is named; None: one must be.
    """

    start: Callable[[Command], object]
    summary: str
    options: Options = dataclasses.field(default_factory=dict)
    of_processes: Options = dataclasses.field(default_factory=dict)
    needs_records: bool = True
    config: str | None = None

    @property
    def all_options(self) -> Options:
        """Those that go with it."""
        return {**_COMMON, **self.options, **self.of_processes}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"The command line is wrong: {message}.")


def parse(argv: Sequence[str], modes: Mapping[str, Mode]) -> Command | None:
    """What a command line says; None if it asked for help, which is printed.

    Args:
        argv: the program and its words.
        modes: by name; the first need not be named.

    Raises:
        UserError: an unknown mode, option or field, or a wrong value.
    """
    # -config=... is --config=..., as absl has it; -h stays
    words = [f"-{word}" if re.match("-[a-z]{2}", word) else word for word in argv[1:]]
    if "--help" in words or "-h" in words:
        _print_help(next((word for word in words if word in modes), next(iter(modes))), modes)
        return None
    given, others = _given(words, modes)
    of_modes = (modes[word].config for word in others if word in modes)
    config = _config_of(given, next(of_modes, None))
    with loading():
        configured = read_config(config, others)
    unknown = [word for word in configured.others if word.startswith("-")]
    mode = " ".join(configured.others) or next(iter(modes))
    if not unknown and mode not in modes:
        raise UserError(f"{reprlib.repr(mode)} is no mode: choose one of {', '.join(modes)}.")
    for name in (*unknown, *given):
        _check_option(name.lstrip("-").partition("=")[0], mode, modes)
    defaults = {name: keywords.get("default") for name, keywords in modes[mode].all_options.items()}
    return Command(mode, {**defaults, **given}, configured.config, configured.settings)


def parse_count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def parse_index(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def parse_pixel(text: str) -> tuple[int, int]:
    """Row and column, as in 120,64."""
    row, _, column = text.partition(",")
    if not (row.isdecimal() and column.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no pixel Y,X, as in 120,64")
    return int(row), int(column)


def parse_port(text: str) -> int:
    """0 to 65535."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port, 0 to 65535")
    return int(text)


def _given(words: Sequence[str], modes: Mapping[str, Mode]) -> tuple[Mapping[str, Any], list[str]]:
    """Values of the options of any mode that are there, and the other words."""
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    of_all: Options = {}
    for mode in modes.values():
        of_all = {**of_all, **mode.all_options}
    for name, keywords in of_all.items():
        but_default = {key: value for key, value in keywords.items() if key != "default"}
        parser.add_argument(f"--{name}", dest=name, **but_default)
    found, others = parser.parse_known_args(words)
    return vars(found), others


def read_settings(
    config: str | os.PathLike[str], fields: Mapping[str, Any] | None = None
) -> "Settings":
    """The settings that a configuration makes, for programs and notebooks.

    Args:
        config: the file, or the name of one in `configs`, as in "demo".
        fields: what is to be otherwise, by the names of the command line: {"num_steps": 50,
            "model.num_memory": 1}.

    Raises:
        UserError: the file, a field or its value is wrong.
    """
    words = [f"--config.{name}={value}" for name, value in (fields or {}).items()]
    return read_config(os.fspath(config), words).settings


def read_config(path: str, words: Sequence[str]) -> Configured:
    """Reads a configuration.

    Which backbone and heads the words choose decides which fields there are: so these are found
    before the words are parsed as fields.

    Args:
        path: of the file, or the name of one in `configs`; perhaps an argument behind a colon.
        words: of a command line, some as in "--config.batch_size=2".

    Raises:
        UserError: the file, a field or its value is wrong.
    """
    from absl import flags
    from flax.traverse_util import flatten_dict
    from ml_collections import config_flags

    from tmanet_jax import settings

    values = flags.FlagValues()
    try:
        set_here = _fields_of(words)
        config = settings.choose(_loaded(_file_of(path)), set_here)
        settings.check_names(set_here, flatten_dict(config.to_dict(), sep="."))
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["run.py", *words]
        )
        _, *others = values(["run.py", *words], known_only=True)
        config = holder.value.lock()
        overrides = config_flags.get_override_values(values["config"])
    except UserError:
        raise
    except Exception as error:  # a configuration is a program: it can fail in any way
        reason = str(error).replace("\\n", " ").replace("\\'", "'")
        if reason[:1] in ("'", '"') and reason.endswith(reason[0]):  # a KeyError quotes its text
            reason = reason[1:-1]
        raise UserError(
            f"The command line or its configuration is wrong: {reason}. Fields and their types: "
            "python run.py config --config=configs/default.py."
        ) from error
    return Configured(config, settings.from_config(config, overrides), others)


def _file_of(config: str) -> str:
    name, *argument = config.split(":", 1)
    if Path(name).is_file():
        return config
    published = {path.stem: str(path) for path in (FOLDER / "configs").glob("[a-z]*.py")}
    if name in published:
        return ":".join([published[name], *argument])
    near = difflib.get_close_matches(Path(name).stem, published, n=1, cutoff=0.5)
    hint = f" Did you mean --config={':'.join([near[0], *argument])}?" if near else ""
    raise UserError(
        f"There is no configuration {name!r}, neither a file nor one of "
        f"{', '.join(sorted(published))}.{hint}"
    )


def _loaded(path: str) -> "ConfigDict":
    """The configuration that a file makes; the first use reports one that could not be loaded."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    words = ["run.py", f"--config={path}"]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    with folder_is_importable():
        values(words)
        return holder.value.lock()


def _fields_of(words: Sequence[str]) -> dict[str, str]:
    """The fields that words set, by their names; a value stands behind "=" or is the next word."""
    fields = {}
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if match := re.match(r"--?(?:no)?config\.([^=]*)(=?)(.*)", word, re.DOTALL):
            fields[match[1]] = match[3] if match[2] else following
    return fields


def _config_of(given: Mapping[str, Any], otherwise: str | None) -> str:
    if "config" in given:
        return given["config"]
    workdir = given.get("workdir", [""])[0]
    if workdir and (Path(workdir) / CONFIG_FILE).is_file():
        return f"{_CONFIG_OF_WORKDIR}:{workdir}"
    if otherwise is not None:
        return otherwise
    raise UserError(
        "Which configuration? For example --config=configs/demo.py, or the --workdir of a run "
        f"that has begun (one with a {CONFIG_FILE})."
    )


def _check_option(name: str, mode: str, modes: Mapping[str, Mode]) -> None:
    """Raises UserError if it does not go with the mode, naming the one that has it."""
    if mode in modes and name in modes[mode].all_options:
        return
    having = [other for other, its in modes.items() if name in its.all_options]
    if having:
        raise UserError(
            f"--{name} goes with mode {' and '.join(having)}, not {mode}: python run.py "
            f"{having[0]} --{name}=..."
        )
    names = {name for its in modes.values() for name in its.all_options}
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean --{near[0]}?" if near else ""
    raise UserError(f"--{name} is no option.{hint} All of them: python run.py [MODE] --help.")


def _print_help(mode: str, modes: Mapping[str, Mode]) -> None:
    default = next(iter(modes))
    summaries = "\n".join(f"  {name:12} {its.summary}" for name, its in modes.items())
    parser = argparse.ArgumentParser(
        prog=advice(f"python run.py {f'[{mode}]' if mode == default else mode}"),
        usage="%(prog)s --config=NAME|FILE [--config.FIELD=VALUE ...] [OPTION ...]",
        description=f"{modes[mode].summary[:1].upper()}{modes[mode].summary[1:]}.",
        epilog=advice(f"modes (python run.py MODE --help):\n{summaries}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("several processes as one (docs/pods.md)")
    for of, options in ((parser, _COMMON), (parser, modes[mode].options)):
        for name, keywords in options.items():
            of.add_argument(f"--{name}", **keywords)
    for name, keywords in modes[mode].of_processes.items():
        group.add_argument(f"--{name}", **keywords)
    parser.print_help()
