"""The configuration of a run that has begun, out of its workdir's `config.json`.

    python run.py eval --workdir=runs/demo

is short for `--config=configs/workdir.py:runs/demo`. Fields on the command line take the place of
the run's. A field that was added since has its default.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import default
from tmanet_jax.errors import UserError
from tmanet_jax.run_file import read_run_file
from tmanet_jax.settings import choose


def get_config(workdir: str) -> ConfigDict:
    """The run's configuration.

    Raises:
        UserError: there is none, or it is damaged or of another version.
    """
    run = read_run_file(Path(workdir))
    if run is None:
        raise UserError(f"There is no run in {workdir}: it has no config.json.")
    try:
        config = choose(default.get_config(), run.config)
    except UserError as error:
        found = str(error).partition(" Did you mean")[0]
        raise UserError(
            f"The run in {workdir} has what this program does not know: {found} If a file added it "
            "(docs/extend.md), name that file with --config=FILE beside --workdir."
        ) from error
    values = {name: _with_tuples(value) for name, value in run.config.items() if value is not None}
    try:
        config.update_from_flattened_dict(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise run.damaged(error) from error
    return config


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
