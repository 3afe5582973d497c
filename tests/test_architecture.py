"""The arrows of the design: imports run in one direction."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

ORDER = """
    tmanet_jax.allocator tmanet_jax.program tmanet_jax.progress
    tmanet_jax.errors tmanet_jax.fields tmanet_jax.stop_signals
    tmanet_jax.compilation_cache
    tmanet_jax.data
    tmanet_jax.run_file tmanet_jax.pictures
    tmanet_jax.video
    tmanet_jax.parallel
    tmanet_jax.models
    tmanet_jax.protocol
    tmanet_jax.checkpoints
    tmanet_jax.weights
    tmanet_jax.training.loggers tmanet_jax.training.rates tmanet_jax.training.optimizer
    tmanet_jax.settings tmanet_jax.workdir tmanet_jax.command_line tmanet_jax.inputs
    tmanet_jax.inference.windows tmanet_jax.inference.stream tmanet_jax.export
    tmanet_jax.inference.engine
    tmanet_jax.publish
    tmanet_jax.inference
    tmanet_jax.scoring
    tmanet_jax.training
    tmanet_jax.doctor
    tmanet_jax.__init__
"""
"""The rooms that use the network: each imports itself and what stands above it."""

WITHOUT_NETWORK = {
    "tmanet_jax.program",
    "tmanet_jax.progress",
    "tmanet_jax.errors",
    "tmanet_jax.fields",
    "tmanet_jax.allocator",
    "tmanet_jax.data",
}
MAY_IMPORT = {
    room: {*ORDER.split()[: index + 1], "tmanet_jax.data.classes"}
    for index, room in enumerate(ORDER.split())
} | {
    "tmanet_jax.models": {
        "tmanet_jax.data.classes",
        "tmanet_jax.errors",
        "tmanet_jax.fields",
        "tmanet_jax.models",
        "tmanet_jax.parallel",
    },
    "tmanet_jax.data.classes": WITHOUT_NETWORK,
    "configs": {"configs", "tmanet_jax.errors", "tmanet_jax.run_file", "tmanet_jax.settings"},
    "data_prep": {
        "data_prep",
        "tmanet_jax.data.classes",
        "tmanet_jax.pictures",
        "tmanet_jax.run_file",
        "tmanet_jax.video",
        *WITHOUT_NETWORK,
    },
    "benchmarks": {"benchmarks", "data_prep", "tmanet_jax.data.classes", *ORDER.split()},
    "run": {"data_prep", *ORDER.split()},
    "tmanet_jax.__main__": {"run", "data_prep", *ORDER.split()},
}
"""Which parts of the project each part imports."""

FOREIGN = {
    "tmanet_jax.data": {"jax", "flax", "optax", "orbax"},
    "data_prep": {"jax", "flax", "optax", "orbax"},
    "tmanet_jax.models": {
        "optax",
        "orbax",
        "grain",
        "tensorflow_datasets",
        "ml_collections",
        "cv2",
    },
}
"""Libraries that a part never imports."""

FOLDERS = ("tmanet_jax", "data_prep", "configs", "benchmarks")
MODULES = [PROJECT / "run.py"]
MODULES += sorted(path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py"))


def part_of(module: str) -> str:
    """The longest part in the table that the module's name begins with."""
    parts = [part for part in MAY_IMPORT if module == part or module.startswith(part + ".")]
    assert parts, f"{module} stands in no room of the table"
    return max(parts, key=len)


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    part = part_of(".".join(path.relative_to(PROJECT).with_suffix("").parts))
    for name in imported(path):
        root = name.split(".")[0]
        if root in ("tmanet_jax", "data_prep", "configs", "benchmarks", "run", "tests"):
            assert part_of(name) in MAY_IMPORT[part], f"{part} imports {name}"
        assert root not in FOREIGN.get(part, set()), f"{part} imports {name}"


def test_the_data_side_starts_without_jax() -> None:
    parts = "data_prep.camvid, data_prep.cityscapes, data_prep.folder, data_prep.synthetic"
    program = f"import sys, {parts}; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
