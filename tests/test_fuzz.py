"""Whatever is in a file, its reader ends done or with one message, and tells damage that it can.

python -m pytest -m fuzz [--mutations=N]

The same seeds each time: a failure is repeated by its name, as in `-k weights-17`.
"""

import functools
import shutil
import signal
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import jax
import numpy as np
import pytest

from tests.fuzz.mutations import mutated, mutations_of, one_of
from tests.fuzz.targets import TARGETS, Found
from tmanet_jax.errors import UserError

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.filterwarnings("ignore"),  # as in a program, where they are no errors
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
]

SECONDS = 20
"""After which a reader hangs."""

LONGEST_MESSAGE = 2000
"""Characters; more is a dump."""


class HangError(BaseException):
    """Not an Exception, which readers may catch."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" not in metafunc.fixturenames:
        return
    times = metafunc.config.getoption("mutations") / sum(one.share for one in TARGETS.values())
    cases = [
        pytest.param(name, number, id=f"{name}-{number}")
        for name, target in TARGETS.items()
        for number in range(round(target.share * times))
    ]
    metafunc.parametrize(("name", "number"), cases)


@pytest.fixture(scope="module")
def healthy(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Path, Found]]:
    """By a target's name its healthy files, made once, and what is read of them."""

    @functools.cache
    def made(name: str) -> tuple[Path, Found]:
        folder = tmp_path_factory.mktemp(name)
        TARGETS[name].make(folder)
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            return folder, TARGETS[name].read(Path(copy))

    return made


@pytest.fixture
def watchdog() -> Iterator[None]:
    def bite(number: int, frame: FrameType | None) -> None:
        raise HangError(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, bite)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("watchdog")
def test_a_reader_ends_done_or_with_one_message(
    healthy: Callable[[str], tuple[Path, Found]], name: str, number: int, tmp_path: Path
) -> None:
    folder, expected = healthy(name)
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    with tempfile.TemporaryDirectory(dir=tmp_path) as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        files = sorted(path for path in Path(copy).rglob("*") if path.is_file())
        damage(files, rng)
        try:
            found = TARGETS[name].read(Path(copy))
        except UserError as error:
            assert 0 < len(str(error)) <= LONGEST_MESSAGE
            return
    for key in found.keys() & expected.keys():
        jax.tree.map(np.testing.assert_array_equal, found[key], expected[key])


def damage(files: Sequence[Path], rng: np.random.Generator) -> None:
    """Mutates one of the files."""
    path = one_of(files, rng)
    content = path.read_bytes()
    path.write_bytes(mutated(content, mutations_of(path.suffix, content), rng))
