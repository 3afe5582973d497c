"""What trained weights are worth on other data: fine-tuned, and trained from nothing.

    python -m benchmarks finetune

The demo is trained (runs/demo) unless it is there. Another street, in the dark and labelled by
seven other classes, is rendered as a folder of one's own and recorded (data/night); on it
`configs/finetune.py` goes on from the demo's weights, and `configs/demo.py` begins from random
ones, with the same few steps and several seeds, in runs/finetune/.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks import command
from benchmarks.findings import markdown
from benchmarks.memory import mean_and_range, train
from data_prep import folder
from data_prep.street.render import SnippetFrames
from data_prep.street.scene import ANNOTATED_FRAME
from tmanet_jax.command_line import parse_count
from tmanet_jax.data.classes import (
    CITYSCAPES,
    CITYSCAPES_CATEGORIES,
    CITYSCAPES_TRAIN_ID_OF_LABEL_ID,
    IGNORE,
    Colour,
)
from tmanet_jax.data.records import has_records
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.runs import read_metrics

DEMO, DATA, RUNS = Path("runs/demo"), Path("data/night"), Path("runs/finetune")
SIZE, SEED, MEMORY_RANGE = (128, 256), 1, 4
BEGINS = {
    "weights": f"configs/finetune.py:{DEMO}",
    "nothing": "configs/demo.py",
}
"""What a run begins from, and its configuration."""


def add_command(commands: command.Subparsers) -> None:
    """`finetune`."""
    parser = command.add(commands, "finetune", __doc__, _run)
    for name, default, meaning in (
        ("seeds", 3, "runs of each kind"),
        ("steps", 300, "of each run"),
        ("clips", 200, "that are rendered to train on, and a quarter of them to score"),
    ):
        help_text = f"{meaning}; default %(default)s"
        parser.add_argument(f"--{name}", type=parse_count, default=default, help=help_text)


def _run(options: argparse.Namespace) -> None:
    train(DEMO, "configs/demo.py", [])
    if not has_records(DATA):
        record_night(DATA, {"train": options.clips, "val": max(options.clips // 4, 1)})
    seeds = range(options.seeds)
    for seed in seeds:
        for begin, config in BEGINS.items():
            train(_workdir(begin, seed), config, _fields(seed, options.steps))
    print(f"mIoU after {options.steps} steps, mean (lowest to highest) of {options.seeds} seeds:\n")
    print(markdown(("begins from", "mIoU"), [_of_seeds(begin, seeds) for begin in BEGINS]))


def _fields(seed: int, steps: int) -> list[str]:
    fields = {
        "seed": seed,
        "num_steps": steps,
        "eval.every": steps,
        "data.dir": DATA,
        "data.render": False,
        "model.num_classes": len(CITYSCAPES_CATEGORIES.names),
    }
    return [f"--config.{name}={value}" for name, value in fields.items()]


def _workdir(begin: str, seed: int) -> Path:
    return RUNS / f"{begin}-seed{seed}"


def _of_seeds(begin: str, seeds: Sequence[int]) -> list[str]:
    return [begin, mean_and_range([read_metrics(_workdir(begin, seed))["mIoU"] for seed in seeds])]


def record_night(data_dir: Path, counts: dict[str, int]) -> None:
    """Records a dark street, labelled by Cityscapes' categories, as data of one's own.

    Args:
        data_dir: of the records.
        counts: clips of each split.

    Raises:
        UserError: the records cannot be written; it was told why.
    """
    with tempfile.TemporaryDirectory(prefix="night-") as directory:
        source = Path(directory)
        _write_classes(source / "classes.csv")
        for split, count in counts.items():
            for index in range(count):
                _write_clip(source, split, index)
        words = [f"--source={source}", f"--out={data_dir}", f"--memory-range={MEMORY_RANGE}"]
        if folder.main([*words, "--name=night"]):
            raise UserError(f"There are no records in {data_dir}: see above.")


def _write_classes(path: Path) -> None:
    """Each category in the colour of its first class."""
    colour_of: dict[str, Colour] = {}
    for category, colour in zip(
        CITYSCAPES_CATEGORIES.category_of_class_C, CITYSCAPES.palette_Cx3, strict=True
    ):
        colour_of.setdefault(CITYSCAPES_CATEGORIES.names[category], colour)
    lines = [f"{name},{','.join(map(str, colour))}" for name, colour in colour_of.items()]
    path.write_text("\n".join(["name,red,green,blue", *lines]) + "\n")


def _write_clip(source: Path, split: str, index: int) -> None:
    frames = SnippetFrames(split, index, SIZE, SEED, is_degraded=index % 2 == 1, night=True)
    for number in range(ANNOTATED_FRAME - MEMORY_RANGE, ANNOTATED_FRAME + 1):
        picture = frames.draw(number)
        _write(
            source / "frames" / split / f"{index:06d}" / f"{number:06d}.png", picture.image_HxWx3
        )
    train_ids_HxW = CITYSCAPES_TRAIN_ID_OF_LABEL_ID[picture.labels_HxW]
    category_256 = np.full(256, IGNORE, np.uint8)
    category_256[: CITYSCAPES.num_classes] = CITYSCAPES_CATEGORIES.category_of_class_C
    labels = source / "labels" / split / f"{index:06d}" / f"{ANNOTATED_FRAME:06d}.png"
    _write(labels, category_256[train_ids_HxW])


def _write(path: Path, picture_HxW: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture_HxW)
