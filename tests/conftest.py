import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.parity")

COMPILED = Path.home() / ".cache" / "tmanet_jax" / "tests"
"""Tests and the processes that they start share compiled programs, also with the next run."""


def pytest_configure(config: pytest.Config) -> None:
    """All but the group for accelerators runs on the CPU, and compiles a program once."""
    if not _wants_accelerator(config):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # libtpu alone looks for a TPU for minutes
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """An accelerator belongs to one process."""
    return 0 if _wants_accelerator(config) else None


def _wants_accelerator(config: pytest.Config) -> bool:
    return config.option.markexpr == "gpu"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        type=Path,
        default=Path(__file__).parent / "goldens",
        metavar="DIR",
        help="folder of golden cases",
    )
    parser.addoption(
        "--mutations",
        type=int,
        default=1000,
        metavar="N",
        help="of the group fuzz, over all targets",
    )
