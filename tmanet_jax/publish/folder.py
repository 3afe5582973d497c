"""The folder of a published network, and the mode `publish` of run.py."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.files import csv_text, folder_in_place
from tmanet_jax.errors import UserError
from tmanet_jax.publish.card import card
from tmanet_jax.publish.story import Story, story_of
from tmanet_jax.run_file import CONFIG_FILE
from tmanet_jax.weights import hub, load
from tmanet_jax.weights.load import LoadedModel


def publish_run(workdir: Path, output: str) -> None:
    """Writes the best weights of a run, with its story, and says what is left to do.

    Raises:
        UserError: no output is named, the run left no weights, a file of it is damaged, or the
            output is there already or cannot be written.
    """
    if not output:
        raise UserError("Say where to: --output=published.")
    network = load.load_model(load.weights_of_run(workdir))
    story = story_of(workdir, network.origin, network.model.config.dtype)
    write_folder(Path(output), network, story)
    if story.metrics is None:
        print(f"Without scores and pictures. {story.unscored}")
    print(
        f"{output}: fill in the licence in README.md, and see what paths it and {CONFIG_FILE} "
        "tell, before you hand it on."
    )


def write_folder(output: Path, network: LoadedModel, story: Story) -> None:
    """Writes weights, `config.json`, `classes.csv`, README.md and what was scored and pictured.

    Equal bytes for an equal network and story. What cannot be finished leaves no trace.

    Args:
        output: a folder that is made.
        network: what is published.
        story: of its weights.

    Raises:
        UserError: the output is there already or cannot be written.
    """
    with folder_in_place(output) as folder:
        load.save(
            folder / hub.WEIGHTS,
            network.model,
            network.classes,
            protocol=network.protocol,
            origin=network.origin,
        )
        about = json.dumps(_about(network, story), indent=2) + "\n"
        (folder / CONFIG_FILE).write_bytes(about.encode())
        (folder / "classes.csv").write_bytes(_classes_csv(network.classes).encode())
        (folder / "README.md").write_bytes(card(network, story).encode())
        for name, path in story.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / name)


def _about(network: LoadedModel, story: Story) -> dict[str, Any]:
    """What the weights say of themselves, and what the run does, for readers."""
    parts = {
        "classes": network.classes,
        "protocol": network.protocol,
        "origin": network.origin,
        "training": story.training,
    }
    told = {name: dataclasses.asdict(part) for name, part in parts.items() if part is not None}
    return {"network": network.model.config.fields(), **told}


def _classes_csv(classes: ClassSet) -> str:
    rows = zip(classes.names, classes.palette_Cx3, strict=True)
    return csv_text([("name", "red", "green", "blue"), *((name, *colour) for name, colour in rows)])
