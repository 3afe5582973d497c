"""Names that no file can have, or that are no text, end in one message or are printed escaped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tmanet_jax.errors import ends_with_message


@ends_with_message
def makes(path: str) -> int:
    os.mkdir(path)
    return 0


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "y/" + "z" * 5_000])
def test_a_name_that_no_file_can_have_is_one_message(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert makes(f"{tmp_path}/{name}") == 2
    assert capsys.readouterr().err.count("Choose another name.") == 1


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        ends_with_message(lambda: int("a"))()


def test_names_that_are_no_text_are_printed_escaped() -> None:
    program = (
        "from tmanet_jax.errors import ends_with_message\n"
        "ends_with_message(lambda: print('drive\\udcff.mp4') or 0)()"
    )
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=processes.PROJECT,
        env=environment,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"drive\\udcff.mp4\n"
