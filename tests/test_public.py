"""What people build on: every public name imports and says what it takes, returns and raises."""

import dataclasses
import inspect
import subprocess
import sys
from typing import Any

import pytest

import tmanet_jax


@pytest.mark.parametrize("name", tmanet_jax.__all__)
def test_every_public_name_imports_and_is_described(name: str) -> None:
    member = getattr(tmanet_jax, name)
    said = inspect.getdoc(member) or ""
    assert said
    assert [given for given in parameters(member) if given not in said] == []


def parameters(member: Any) -> list[str]:
    """Of a function, or of a class; fields of settings carry their meaning beside them."""
    if dataclasses.is_dataclass(member):
        return [field.name for field in dataclasses.fields(member) if not field.metadata]
    function = member.__init__ if inspect.isclass(member) else member
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_another_name_is_none() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Segmentor'"):
        tmanet_jax.Segmentor  # noqa: B018, asked for, not used


def test_the_package_alone_imports_no_jax() -> None:
    program = "import sys, tmanet_jax; print('jax' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
