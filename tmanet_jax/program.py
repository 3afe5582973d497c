"""How this program is started: in a checkout by `python run.py`, installed as `tmanet`."""

import contextlib
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tmanet_jax.allocator import without_collection

_IN_WHEEL = Path(__file__).parent / "checkout"
FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).parents[1]
"""Holds run.py, configs and data_prep: the checkout, or the part of it that the wheel carries."""

_AS_COMMAND = {
    r"python run\.py": "tmanet",
    r"(python -m )?data_prep\.": "tmanet prepare ",
    r"python -m tmanet_jax\.weights": "tmanet weights",
    r"--config=configs/(\w+)\.py": r"--config=\1",
    r"pip install -r requirements-(\w+)\.txt": r'pip install "tmanet-jax[\1]"',
}


@contextlib.contextmanager
def folder_is_importable() -> Iterator[None]:
    """Where the package alone was imported, as in a notebook, configurations find each other."""
    before = [*sys.path]
    sys.path.insert(0, str(FOLDER))
    try:
        yield
    finally:
        sys.path[:] = before


def tell_loading() -> None:
    """Says that jax is being loaded, unless it is there: it takes seconds, more off a cold disk."""
    if "jax" not in sys.modules:
        print("Loading jax and what works with it: some seconds ...", file=sys.stderr)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Says that jax is being loaded, within, unless it is there.

    What is loaded stays. So Python does not search it for garbage, neither meanwhile nor later: of
    3.3 s of CPU that a training took to load its libraries, that was 1.0.
    """
    if "jax" in sys.modules:
        yield
        return
    tell_loading()
    with without_collection():
        yield
        gc.freeze()


def advice(text: str) -> str:
    """What a text for a checkout advises to type, as whoever started this program would."""
    if _IN_WHEEL.is_dir() or Path(sys.argv[0]).stem == "tmanet":
        for in_checkout, as_command in _AS_COMMAND.items():
            text = re.sub(rf"(?<![\w/]){in_checkout}", as_command, text)  # in no user's path
    return text
