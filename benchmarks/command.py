"""What the commands of `python -m benchmarks` share: options, and the settings of a run."""

import argparse
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax

from tmanet_jax import command_line
from tmanet_jax.allocator import computes_on_cpu, keep_freed_buffers
from tmanet_jax.command_line import parse_count
from tmanet_jax.compilation_cache import use_compilation_cache
from tmanet_jax.data.codec import parse_size
from tmanet_jax.errors import UserError
from tmanet_jax.parallel.sharding import check_devices
from tmanet_jax.settings import Settings

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add(
    commands: Subparsers, name: str, document: str | None, run: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    """A command of its own, whose help is a module's docstring; `run` is given its options."""
    document = document or ""
    parser = commands.add_parser(
        name,
        help=document.splitlines()[0],
        description=document,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_options(parser: argparse.ArgumentParser, *names: str, config: str | None = None) -> None:
    """Those of `COMMON`, and `--config`, which must be given unless there is one already."""
    parser.add_argument(
        "--config",
        default=config,
        required=config is None,
        metavar="FILE",
        help="as in configs/cityscapes.py; --config.FIELD=VALUE sets one of its fields",
    )
    for name in names:
        parser.add_argument(f"--{name}", **COMMON[name])


COMMON: Mapping[str, Mapping[str, Any]] = {
    "torch": {"action": "store_true", "help": "PyTorch beside it (requirements-torch.txt)"},
    "size": {"type": parse_size, "metavar": "HxW", "help": "height x width of frames or crops"},
    "batch": {
        "type": parse_count,
        "metavar": "N",
        "help": "clips or videos at a time",
    },
    "full": {"action": "store_true", "help": "the configuration's sizes on a CPU, too"},
    "turns": {
        "type": parse_count,
        "metavar": "N",
        "default": 10,
        "help": "counted calls of each side; default %(default)s",
    },
    "json": {"type": Path, "metavar": "FILE", "help": "what was found, for programs"},
}


class Sizes(NamedTuple):
    """Height and width of frames or crops, and how many clips go in at a time."""

    size: tuple[int, int]
    batch: int


def sizes_of(options: argparse.Namespace, configured: Sizes, most_on_cpu: Sizes) -> Sizes:
    """`--size` and `--batch`, or else the configuration's; on a CPU less, but with `--full`."""
    size, batch = configured
    if jax.default_backend() == "cpu" and not options.full:
        height, width = map(min, size, most_on_cpu.size)
        size, batch = (height, width), min(batch, most_on_cpu.batch)
    return Sizes(options.size or size, options.batch or batch)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of `--config` and `--config.FIELD=VALUE`; this process then computes as runs do.

    Raises:
        UserError: torch is asked for and missing, or has no such network; or the configuration is
            wrong.
    """
    run = read_settings(options.config, options.others)
    if getattr(options, "torch", False):
        if getattr(run.model.head, "neighbourhood", None) is not None:
            raise UserError(
                "--torch: the network in PyTorch reads all of the memory, as the original does: "
                "add --config.model.neighbourhood=None."
            )
        if importlib.util.find_spec("torch") is None:
            raise UserError("--torch needs torch: pip install -r requirements-torch.txt.")
    if computes_on_cpu(os.environ.get("JAX_PLATFORMS")):
        keep_freed_buffers()
    use_compilation_cache()
    check_devices()
    return run


def read_settings(config: str, fields: list[str]) -> Settings:
    """The settings of a configuration file.

    Args:
        config: its path.
        fields: as in "--config.batch_size=2".

    Raises:
        UserError: the file, a field or its value is wrong.
    """
    configured = command_line.read_config(config, fields)
    if configured.others:
        raise UserError(
            f"{configured.others[0]!r} is no option: python -m benchmarks COMMAND --help."
        )
    return configured.settings
