"""The configuration of a run that has begun, out of its workdir's `config.json`.

    python run.py eval --workdir=runs/demo

is short for `--config=configs/workdir.py:runs/demo`. Fields on the command line take the place of
the run's. A field that was added since has its default.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import default


def get_config(workdir: str) -> ConfigDict:
    """The run's configuration.

    Raises:
        OSError: there is none, or it is damaged or of another version.
    """
    path = Path(workdir) / "config.json"
    config = default.get_config()
    try:
        fields = json.loads(path.read_bytes())["config"]
        values = {name: _with_tuples(value) for name, value in fields.items() if value is not None}
        config.update_from_flattened_dict(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise OSError(
            f"{path} is damaged or of another version ({error}); give the --config that the run "
            "was started with"
        ) from error
    return config


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
