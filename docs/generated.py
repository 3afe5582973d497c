"""What the site says out of the code, as Markdown: fields, command lines, public names, files."""

import argparse
import ast
import contextlib
import importlib
import inspect
import io
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import run
import tmanet_jax
from benchmarks import __main__ as benchmarks
from tmanet_jax import command_line
from tmanet_jax.__main__ import PREPARATIONS
from tmanet_jax.fields import PUBLISHED, Checked, Leaf, leaves, with_kinds
from tmanet_jax.settings import Settings
from tmanet_jax.weights import conversion

PROJECT = Path(__file__).parents[1]

RETURNED = (
    "tmanet_jax.inference.results.FrameResult",
    "tmanet_jax.inference.session.Session",
    "tmanet_jax.inference.attention.MemoryRead",
    "tmanet_jax.training.loop.TrainedRun",
    "tmanet_jax.scoring.evaluate.Evaluation",
    "tmanet_jax.scoring.metrics.Scores",
    "tmanet_jax.weights.load.LoadedModel",
    "tmanet_jax.data.records.ClipRecords",
    "tmanet_jax.data.clips.Clip",
    "tmanet_jax.data.classes.ClassSet",
    "tmanet_jax.protocol.Protocol",
    "tmanet_jax.inference.engine.Computation",
)
"""What the public functions give back or take."""


def fields() -> str:
    """Every field of a run, by groups; then those that other heads and backbones have."""
    usual = leaves(Settings())
    groups = groupby(usual, key=lambda leaf: leaf.path.rpartition(".")[0])
    parts = [_fields_table(f"config.{group}" if group else "config", of) for group, of in groups]
    names = {leaf.path for leaf in usual}
    for choice in (leaf for leaf in usual if leaf.field.declared.kinds):
        for kind in choice.field.declared.kinds:
            of_kind = leaves(with_kinds(Settings(), {choice.path: kind}))
            if own := [leaf for leaf in of_kind if leaf.path not in names]:
                parts.append(_fields_table(f"config.{choice.path} = {kind!r}", own))
    return "\n".join(parts)


def _fields_table(title: str, of: Iterable[Leaf]) -> str:
    lines = [
        f"## `{title}`",
        "",
        "| field | meaning | can be | default |",
        "| --- | --- | --- | --- |",
    ]
    for leaf in of:
        declared = leaf.field.declared
        source = " (original)" if declared.source == PUBLISHED else ""
        cells = (
            f"`{leaf.path}`",
            declared.meaning,
            leaf.field.expected(),
            f"`{leaf.value!r}`{source}",
        )
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("**", "\\*\\*").replace("<", "&lt;")


def commands() -> str:
    """The help of every command."""
    parts = ["## run.py", ""]
    for mode in run.MODES:
        words = ["run.py", mode, "--help"]
        parts += _help(f"run.py {mode}", partial(command_line.parse, words, run.MODES))
    parts += ["## Preparations", ""]
    for name in PREPARATIONS:
        main = importlib.import_module(f"data_prep.{name}").main
        parts += _help(f"data_prep.{name}", partial(main, ["--help"]))
    parts += ["## Weights", ""]
    parts += _help("tmanet_jax.weights", partial(conversion.main, ["--help"]))
    parts += ["## Measurements", ""]
    for name in _benchmarks():
        parts += _help(f"benchmarks {name}", partial(benchmarks.main, [name, "--help"]))
    return "\n".join(parts)


def _benchmarks() -> Sequence[str]:
    (commands,) = (
        action
        for action in benchmarks.parser_of_all()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return [*commands.choices]


def _help(title: str, call: Callable[[], object]) -> list[str]:
    shown, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "84"
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            call()
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return [
        f"### {title}",
        "",
        "```text",
        shown.getvalue().rstrip().replace(str(Path.home()), "~"),
        "```",
        "",
    ]


def public_names() -> str:
    """The public names, and what they give back, each by its docstring."""
    names = [f"tmanet_jax.{name}" for name in tmanet_jax.__all__]
    parts = [*map(_documented, names), "## What they give back", "", *map(_documented, RETURNED)]
    return "\n".join(parts)


def _documented(path: str) -> str:
    module, _, name = path.rpartition(".")
    member = getattr(importlib.import_module(module), name)
    level = "##" if module == "tmanet_jax" else "###"
    directive = f".. autofunction:: {path}"
    if inspect.isclass(member):
        has_fields = issubclass(member, Checked)  # those of the page of all fields
        directive = f".. autoclass:: {path}{'(**fields)' * has_fields}\n   :members:"
    return f"{level} {name}\n\n```{{eval-rst}}\n{directive}\n```\n"


def files() -> str:
    """The first sentence of every module, by folders."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    paths = [
        Path(line) for line in listed.stdout.splitlines() if not line.startswith(("tests", "docs"))
    ]
    parts = []
    for folder, of_folder in groupby(
        sorted(paths, key=lambda p: (p.parent, p)), lambda p: p.parent
    ):
        parts += [f"### `{folder}`", "", "| file | |", "| --- | --- |"]
        for path in of_folder:
            said = ast.get_docstring(ast.parse((PROJECT / path).read_text())) or ""
            sentence = " ".join(said.partition("\n\n")[0].split())
            parts.append(f"| `{path.name}` | {_cell(sentence)} |")
        parts.append("")
    return "\n".join(parts)


PAGES: Mapping[str, Callable[[], str]] = {
    "configuration": fields,
    "commands": commands,
    "api": public_names,
    "map": files,
}
"""What stands behind which page."""
