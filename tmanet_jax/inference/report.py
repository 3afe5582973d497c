"""What an evaluation leaves in the workdir: metrics.json and pictures of predictions."""

import json
import math
import os
from pathlib import Path
from typing import Any

import cv2

from tmanet_jax.data.classes import ClassSet
from tmanet_jax.errors import UserError
from tmanet_jax.inference.evaluate import Evaluation
from tmanet_jax.metrics import Scores

METRICS_FILE = "metrics.json"
PICTURES_DIR = "predictions"


def write_report(evaluation: Evaluation, workdir: Path, *, step: int, split: str) -> str:
    """Writes the metrics and the pictures; returns the table and where the pictures are.

    Raises:
        UserError: the workdir cannot be written.
    """
    try:
        _write_atomically(workdir / METRICS_FILE, metrics_json(evaluation, step=step, split=split))
        _write_pictures(evaluation, workdir / PICTURES_DIR)
    except OSError as error:
        raise UserError(f"The report in {workdir} cannot be written: {error}.") from error
    return (
        f"step {step}, {evaluation.num_clips} clips of {split}:\n\n{table(evaluation)}\n\n"
        f"metrics:  {workdir / METRICS_FILE}\npictures: {workdir / PICTURES_DIR}/"
    )


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n")
    os.replace(partial, path)


def _write_pictures(evaluation: Evaluation, directory: Path) -> None:
    """The pictures of this evaluation, and none of an earlier one."""
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.png"):
        old.unlink()
    for clip_id, picture_HxWx3 in evaluation.overlays.items():
        _, png = cv2.imencode(".png", picture_HxWx3[:, :, ::-1])
        (directory / f"{clip_id}.png").write_bytes(png.tobytes())


def metrics_json(evaluation: Evaluation, *, step: int, split: str) -> str:
    """All scores as fractions; one that no pixel defines is null."""
    values = {
        "split": split,
        "step": step,
        "clips": evaluation.num_clips,
        **_score_values(evaluation.overall, evaluation.classes),
        "groups": {
            name: _score_values(group, evaluation.classes)
            for name, group in evaluation.groups.items()
        },
    }
    return json.dumps(values, indent=2, allow_nan=False)


def _score_values(group: Scores, classes: ClassSet) -> dict[str, Any]:
    return {
        "mIoU": _finite(group.mean_iou),
        "mAcc": _finite(group.mean_accuracy),
        "aAcc": _finite(group.all_accuracy),
        "mDice": _finite(group.mean_dice),
        "classes": {
            name: {
                "IoU": _finite(group.iou_C[index]),
                "Acc": _finite(group.accuracy_C[index]),
                "Dice": _finite(group.dice_C[index]),
                "frequency": _finite(group.frequency_C[index]),
            }
            for index, name in enumerate(classes.names)
        },
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def table(evaluation: Evaluation) -> str:
    """The scores as text, in percent: a row a class that occurs, then the means, a row a group."""
    overall = evaluation.overall
    lines = [f"{'class':<16}{'IoU':>8}{'Acc':>8}{'Dice':>8}{'pixels':>8}"]
    for index, name in enumerate(evaluation.classes.names):
        if not math.isnan(overall.iou_C[index]):
            columns = (overall.iou_C, overall.accuracy_C, overall.dice_C, overall.frequency_C)
            lines.append(f"{name:<16}" + "".join(_percent(column[index]) for column in columns))
    lines += ["", f"{'':<16}{'mIoU':>8}{'mAcc':>8}{'mDice':>8}{'aAcc':>8}"]
    for name, group in {"all": overall, **evaluation.groups}.items():
        means = (group.mean_iou, group.mean_accuracy, group.mean_dice, group.all_accuracy)
        lines.append(f"{name:<16}" + "".join(map(_percent, means)))
    return "\n".join(lines)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:8.2f}"
