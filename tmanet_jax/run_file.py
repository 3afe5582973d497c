"""What a run leaves in its workdir, by name, and `config.json`, in which it says what it is."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tmanet_jax.data import strict_json
from tmanet_jax.errors import UserError

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.json"
CURVES_FILE = "curves.csv"
CURVES_COLUMNS = ("step", "name", "value")
PICTURES_DIR = "predictions"


@dataclasses.dataclass(frozen=True)
class RunFile:
    """The file of a run, of this version of the project or of an older one.

    Attributes:
        path: of the file.
        content: what it holds, as JSON.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """Fields of the configuration by their dotted names, as JSON holds them.

        Raises:
            UserError: there are none.
        """
        fields = self.content.get("config")
        if not isinstance(fields, Mapping):
            raise self.damaged("it has no configuration")
        return fields

    def damaged(self, reason: object) -> UserError:
        """That something in it cannot be used."""
        return UserError(
            f"{self.path} is damaged or of another version ({reason}): move it away, and give the "
            "--config that the run was started with."
        )


def read_run_file(workdir: Path) -> RunFile | None:
    """What the run in a workdir says of itself; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        return None
    try:
        content = strict_json.parse(path.read_bytes(), "its text")
    except (OSError, UserError) as error:
        raise RunFile(path, {}).damaged(error) from error
    if not isinstance(content, dict):
        raise RunFile(path, {}).damaged("it is no object of JSON")
    return RunFile(path, content)
