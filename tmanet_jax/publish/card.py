"""The model card of a published network, with the fields that the hub reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tmanet_jax.data.classes import NUMBERED
from tmanet_jax.errors import counted
from tmanet_jax.models.tmanet import num_parameters
from tmanet_jax.publish.story import Metrics, Scores, Story, Training
from tmanet_jax.weights.load import LoadedModel

_FRONT = """\
---
license: unknown # fill in; the terms of the training data may bind the weights, too
library_name: tmanet-jax
pipeline_tag: image-segmentation
tags:
- semantic-segmentation
- video
- jax
- tmanet{metrics}
---"""

_ABOUT = """\
# {network} for the {classes}

A {with_paper} of TMANet-JAX: each frame of a video is segmented
{memory}. {backbone}; {num_parameters:,} parameters.

Classes: {names}."""

_PAPERS = {"TMANet": "[TMANet](https://arxiv.org/abs/2102.08643)"}

_USE = """\
## Use

```python
import tmanet_jax

segmenter = tmanet_jax.Segmenter.load("hf://OWNER/NAME")  # or the path of this folder
for result in segmenter.stream("drive.mp4"):
    print(result.index, result.labels.shape)  # also .overlay, .probabilities
```

Labels are row numbers of `classes.csv`, from 0. Frames are segmented so: {protocol}."""

_TRAINING = """\
## Training

{num_steps} steps of {batch_size} clips of the split {split}: {data} in `{data_dir}`.{origin}

```bash
{command}
```

Commit {commit}; {versions}. `config.json` has every field."""

_SCORES = """\
## Scores

{clips} of the split {split}, step {step}{computation}, segmented so: {how}. In percent;
`metrics.json` has more.

{doubt}{means}

{classes}"""

_OLD_SCORES = """\
An older version scored these weights, and did not record in which numbers and by which engine.

"""

_LICENCE = """\
## Licence

To be filled in by who publishes this, here and as `license` above. Nothing in this folder is run
when it is loaded."""


def card(network: LoadedModel, story: Story) -> str:
    """The text of a README.md: what is known of a network, and what is not.

    Args:
        network: what is published.
        story: of its weights.
    """
    origin = f" The weights are of {network.origin}." if network.origin else ""
    sections = [
        _FRONT.format(metrics="\nmetrics:\n- mean_iou" if story.metrics else ""),
        _about(network),
        _USE.format(protocol=network.protocol or "as who loads them asks for"),
        _training(story.training, origin),
        _scores(story.metrics) if story.metrics else f"## Scores\n\n{story.unscored}",
        _pictures([name for name in story.files if name.endswith(".png")]),
        _limits(network, story.metrics),
        _LICENCE,
    ]
    return "\n\n".join(sections) + "\n"


def _about(network: LoadedModel) -> str:
    config, classes = network.model.config, network.classes
    of = "" if classes.name == NUMBERED else f" of {classes.name}"
    num_memory = config.head.num_memory
    return _ABOUT.format(
        network=config.head.network,
        with_paper=_PAPERS.get(config.head.network, f"network ({config.head.network})"),
        classes=f"{counted(classes.num_classes, 'class')}{of}",
        memory=f"with a memory of {counted(num_memory, 'frame')}" if num_memory else "by itself",
        backbone=config.backbone,
        num_parameters=num_parameters(network.model),
        names=", ".join(classes.names),
    )


def _training(training: Training | None, origin: str) -> str:
    if training is None:
        return f"## Training\n\nHow the weights were trained is not recorded with them.{origin}"
    config = training.config
    versions = ", ".join(f"{name} {version}" for name, version in training.versions.items())
    return _TRAINING.format(
        num_steps=config.get("num_steps"),
        batch_size=config.get("batch_size"),
        split=config.get("data.train_split"),
        data="a street that this project renders" if config.get("data.render") else "records",
        data_dir=config.get("data.dir"),
        origin=origin,
        command=_as_typed(training.command) if training.command else "(not recorded)",
        commit=training.commit or "not recorded",
        versions=versions or "versions not recorded",
    )


def _as_typed(command: str) -> str:
    """A process knows its program by its path: run.py, or where `tmanet` is installed."""
    program, space, words = command.partition(" ")
    name = Path(program).name
    return f"python {command}" if name.endswith(".py") else f"{name}{space}{words}"


def _scores(metrics: Metrics) -> str:
    clips: dict[str, Scores] = {"all": metrics, **metrics.groups}
    means = {name: (x.mIoU, x.mAcc, x.mDice, x.aAcc, x.fwIoU) for name, x in clips.items()}
    classes = {name: (x.IoU, x.Acc, x.Dice, x.frequency) for name, x in metrics.classes.items()}
    return _SCORES.format(
        clips=counted(metrics.clips, "clip"),
        split=metrics.split,
        step=metrics.step,
        computation=f", computed in {metrics.computation}" if metrics.computation else "",
        how=metrics.scored,
        doubt="" if metrics.computation else _OLD_SCORES,
        means=_table(("clips", "mIoU", "mAcc", "mDice", "aAcc", "fwIoU"), means),
        classes=_table(("class", "IoU", "Acc", "Dice", "pixels"), classes),
    )


def _table(head: Sequence[str], fractions: Mapping[str, Sequence[float | None]]) -> str:
    rows = [head, ["---"] * len(head)]
    for name, row in fractions.items():
        cells = ["-" if value is None else f"{100 * value:.2f}" for value in row]
        rows.append([name.replace("|", "&#124;"), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _pictures(names: Sequence[str]) -> str:
    if not names:
        return "## Pictures\n\nNone are recorded with these weights."
    shown = [f"![{Path(name).stem}]({quote(name)})" for name in names]
    return "\n\n".join(["## Pictures", "Frame, labels and prediction of scored clips.", *shown])


def _limits(network: LoadedModel, metrics: Metrics | None) -> str:
    limits = [
        "Every pixel is given one of the classes, also where none of them is to be seen.",
        "Scores are of one split: expect less of other cameras, places and weather.",
        "Untested wherever a mistake could harm somebody.",
    ]
    if network.model.config.head.num_memory:
        limits.append("A video's first frame stands in for the memory that it does not have yet.")
    unseen = [name for name, x in metrics.classes.items() if x.IoU is None] if metrics else []
    if unseen:
        limits.append(f"No pixel of the split has or was given these classes: {', '.join(unseen)}.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)
