"""The documentation site, for Sphinx: `make docs`."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

# all of these are found by the path above
import generated  # noqa: E402

import tmanet_jax  # noqa: E402
from data_prep.street.demo import ensure_records  # noqa: E402
from tmanet_jax.data.config import RenderConfig  # noqa: E402

project = "TMANet-JAX"
version = release = tmanet_jax.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = html_show_sphinx = False

myst_heading_anchors = 3
nb_execution_mode = "cache"  # of a notebook's text, beside the site
nb_execution_raise_on_error = nb_execution_show_tb = True
nb_execution_timeout = 300  # seconds, of a cell
nb_merge_streams = True
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


def prepare_notebooks(app: Sphinx) -> None:
    """Notebooks run in a folder of their own, where the demo has left its run, as a reader's do."""
    if app.config.nb_execution_mode == "off":
        return
    folder = Path(app.outdir).parent / "notebooks"
    shutil.rmtree(folder / "runs", ignore_errors=True)  # a run that is there would go on
    shutil.copytree(HERE / "notebooks" / "demo", folder / "runs" / "demo")
    (folder / "startup.py").write_text(f"import os\nos.chdir({str(folder)!r})\n")
    os.environ |= {
        "PYTHONSTARTUP": str(folder / "startup.py"),
        "PYTHONPATH": str(HERE.parent),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    street = RenderConfig(wanted=True, num_train=1, num_eval=40)
    ensure_records(folder / "data" / "demo", street)


def without_objects(*said: Any) -> tuple[str, str | None] | None:
    """A default that no source can say would keep Sphinx from reading the signature."""
    *_, signature, returned = said
    return (signature.replace("<factory>", "..."), returned) if signature else None


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("builder-inited", prepare_notebooks)
    app.connect("autodoc-process-signature", without_objects)
    app.connect("source-read", add_generated)
