"""The documentation site, for Sphinx: `make docs`."""

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generated  # noqa: E402  # beside this file

import tmanet_jax  # noqa: E402

project = "TMANet-JAX"
version = release = tmanet_jax.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = html_show_sphinx = False

myst_heading_anchors = 3
default_role = "code"  # docstrings say `name`
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
toc_object_entries = False


def add_generated(_app: Sphinx, page: str, source: list[str]) -> None:
    """Behind what a page says stands what is made of the code."""
    if page in generated.PAGES:
        source[0] += "\n" + generated.PAGES[page]()


def without_objects(*said: Any) -> tuple[str, str | None] | None:
    """A default that no source can say would keep Sphinx from reading the signature."""
    *_, signature, returned = said
    return (signature.replace("<factory>", "..."), returned) if signature else None


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", without_objects)
    app.connect("source-read", add_generated)
