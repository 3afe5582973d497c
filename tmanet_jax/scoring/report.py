"""What an evaluation leaves in the workdir: tables, pictures, and a page with all of it."""

import dataclasses
import hashlib
import json
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tmanet_jax import pictures
from tmanet_jax.data.classes import ClassSet
from tmanet_jax.data.files import csv_text, write_whole
from tmanet_jax.errors import UserError
from tmanet_jax.run_file import CONFIG_FILE, CURVES_FILE, METRICS_FILE, PICTURES_DIR
from tmanet_jax.scoring import runs
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.evaluate import Assessment, Evaluation
from tmanet_jax.scoring.metrics import Scores, most_confused, row_shares
from tmanet_jax.scoring.report_page import render_page
from tmanet_jax.scoring.temporal import FLOW

PAGE_FILE = "report.html"
WORST_DIR = "worst"


def write_report(assessed: Assessment, workdir: Path) -> str:
    """Writes metrics, tables, pictures and the page; returns the table and where they are.

    Metrics and page of other weights, another split, other settings or another computation are
    kept under other names.

    Raises:
        UserError: the workdir cannot be written.
    """
    evaluation = assessed.evaluation
    classes = evaluation.classes
    try:
        kept = _keep_others(workdir, _identity(assessed))
        about = _run_file(assessed, workdir)
        write_whole(workdir / METRICS_FILE, (metrics_json(assessed, about) + "\n").encode())
        write_whole(workdir / "confusion.csv", confusion_csv(evaluation).encode())
        write_whole(workdir / "classes.csv", classes_csv(evaluation).encode())
        write_whole(workdir / "confusion.png", _png(_confusion(evaluation)))
        _write_pictures(evaluation.shown, classes, workdir / PICTURES_DIR)
        _write_pictures(assessed.worst, classes, workdir / WORST_DIR)
        how = f"{assessed.how}; the run is described in {about}" if about else str(assessed.how)
        curves = _curves_page(workdir)
        write_whole(workdir / PAGE_FILE, render_page(assessed, how, curves).encode())
    except OSError as error:
        raise UserError(f"The report in {workdir} cannot be written: {error}.") from error
    return (
        f"{assessed.title} ({how}):\n\n{table(assessed)}\n\n"
        f"metrics:  {workdir / METRICS_FILE}\npictures: {workdir / PICTURES_DIR}/\n"
        f"report:   {workdir / PAGE_FILE}" + (f"\nbefore:   {kept}" if kept else "")
    )


def _curves_page(workdir: Path) -> str | None:
    """Writes it where the run told curves; seen from the report."""
    try:
        return runs.write_page([workdir])[0].name if (workdir / CURVES_FILE).exists() else None
    except UserError:  # the curves are damaged: the scores are not
        return None


_IDENTITY = ("split", "step", "weights", "scored", "computation")


def _identity(assessed: Assessment) -> dict[str, Any]:
    """What was scored and how, as values of JSON; fields that stand in the metrics."""
    scored = {
        **dataclasses.asdict(assessed.how.protocol),
        "ratios": assessed.how.ratios,
        "flip": assessed.how.flip,
    }
    values = (assessed.split, assessed.step, assessed.weights, scored, assessed.computation)
    return json.loads(json.dumps(dict(zip(_IDENTITY, values, strict=True))))


def _keep_others(workdir: Path, identity: dict[str, Any]) -> Path | None:
    """Gives metrics and page that something else scored a name of their own, and returns it."""
    metrics = workdir / METRICS_FILE
    if not metrics.exists():
        return None
    try:
        found = json.loads(metrics.read_bytes())
        other = {name: found[name] for name in _IDENTITY if name in found}
        whole = json.dumps(other, sort_keys=True)
    except (OSError, ValueError, TypeError, RecursionError):  # of another version, or unreadable
        other, whole = {}, str(metrics.stat().st_mtime_ns)
    if other == identity:
        return None
    words = [
        re.sub(r"\W", "_", str(other.get(name, "")), flags=re.ASCII)[:64]
        for name in ("split", "step")
    ]
    name = "-".join([*filter(None, words), hashlib.sha256(whole.encode()).hexdigest()[:8]])
    kept = metrics.with_stem(f"{metrics.stem}-{name}")
    metrics.replace(kept)
    page = workdir / PAGE_FILE
    if page.exists():
        page.replace(page.with_stem(f"{page.stem}-{name}"))
    return kept


def _write_pictures(shown: Iterable[SegmentedClip], classes: ClassSet, directory: Path) -> None:
    """The pictures of this evaluation, and none of an earlier one."""
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.png"):
        old.unlink()
    for segmented in shown:
        picture = segmented.picture(classes)
        (directory / f"{segmented.clip.id}.png").write_bytes(_png(picture))


def _confusion(evaluation: Evaluation) -> np.ndarray:
    """Of classes that a reader can survey: RGB uint8."""
    told_K = most_confused(evaluation.confusion_CxC)
    shares_KxK = row_shares(evaluation.confusion_CxC)[np.ix_(told_K, told_K)]
    return pictures.confusion(shares_KxK, [evaluation.classes.names[index] for index in told_K])


def _png(picture_HxWx3: np.ndarray) -> bytes:
    _, png = cv2.imencode(".png", picture_HxWx3[:, :, ::-1])
    return png.tobytes()


def _run_file(assessed: Assessment, workdir: Path) -> str | None:
    """Where, seen from the report, the run says what it is; a file of weights may be of any run."""
    places = (CONFIG_FILE, f"../{CONFIG_FILE}") if not assessed.weights else ()
    return next((place for place in places if (workdir / place).is_file()), None)


def metrics_json(assessed: Assessment, run_file: str | None = None) -> str:
    """All scores as fractions; one that no pixel defines is null.

    Args:
        assessed: the scores.
        run_file: where the run says what it is, if it does.
    """
    evaluation = assessed.evaluation
    names = evaluation.classes.names
    values: dict[str, Any] = {
        **_identity(assessed),
        "run": run_file,
        "clips": evaluation.num_clips,
        **_score_values(evaluation.overall, names),
        "groups": {name: _score_values(group, names) for name, group in evaluation.groups.items()},
    }
    for name, (part, part_names) in evaluation.other_scores.items():
        values[name] = _score_values(part, part_names)
    if assessed.temporal is not None:
        values["temporal"] = {
            **{name: _finite(value) for name, value in assessed.temporal.by_name().items()},
            "flow": FLOW,
        }
    values["confusion"] = evaluation.confusion_CxC.tolist()
    values["mIoU_of_clip"] = {
        clip_id: _finite(value)
        for clip_id, value in zip(evaluation.clip_ids, evaluation.mean_iou_N, strict=True)
    }
    values["worst"] = [segmented.clip.id for segmented in assessed.worst]
    return json.dumps(values, indent=2, allow_nan=False)


def _score_values(group: Scores, names: Sequence[str]) -> dict[str, Any]:
    return {
        "mIoU": _finite(group.mean_iou),
        "mAcc": _finite(group.mean_accuracy),
        "aAcc": _finite(group.all_accuracy),
        "mDice": _finite(group.mean_dice),
        "fwIoU": _finite(group.frequency_weighted_iou),
        "mIoU_of_labelled": _finite(group.mean_iou_of_labelled),
        "classes": {
            name: {
                "IoU": _finite(group.iou_C[index]),
                "Acc": _finite(group.accuracy_C[index]),
                "Dice": _finite(group.dice_C[index]),
                "frequency": _finite(group.frequency_C[index]),
            }
            for index, name in enumerate(names)
        },
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def confusion_csv(evaluation: Evaluation) -> str:
    """Pixels: labels in rows, predictions in columns."""
    names = evaluation.classes.names
    rows = zip(names, evaluation.confusion_CxC.tolist(), strict=True)
    return csv_text([("label", *names), *((name, *pixels) for name, pixels in rows)])


def classes_csv(evaluation: Evaluation) -> str:
    """Scores of each class as fractions; empty where no pixel defines one."""
    overall = evaluation.overall
    columns = (overall.iou_C, overall.accuracy_C, overall.dice_C, overall.frequency_C)
    rows = [
        (name, *("" if math.isnan(column[index]) else float(column[index]) for column in columns))
        for index, name in enumerate(evaluation.classes.names)
    ]
    return csv_text([("class", "IoU", "Acc", "Dice", "frequency"), *rows])


def table(assessed: Assessment) -> str:
    """The scores as text, in percent: a row a class that occurs, then the means, a row a group."""
    evaluation = assessed.evaluation
    overall = evaluation.overall
    lines = [f"{'class':<16}{'IoU':>8}{'Acc':>8}{'Dice':>8}{'pixels':>8}"]
    absent = []
    for index, name in enumerate(evaluation.classes.names):
        columns = (overall.iou_C, overall.accuracy_C, overall.dice_C, overall.frequency_C)
        if math.isnan(overall.iou_C[index]):
            absent.append(name)
        else:
            lines.append(f"{name:<16}" + "".join(_percent(column[index]) for column in columns))
    if absent:
        lines += textwrap.wrap(f"neither labelled nor predicted: {', '.join(absent)}", 96)
    lines += ["", f"{'':<16}{'mIoU':>8}{'mAcc':>8}{'mDice':>8}{'aAcc':>8}"]
    others = [(name, part) for name, (part, _) in evaluation.other_scores.items()]
    for name, group in [("all", overall), *others, *evaluation.groups.items()]:
        means = (group.mean_iou, group.mean_accuracy, group.mean_dice, group.all_accuracy)
        lines.append(f"{name:<16}" + "".join(map(_percent, means)))
    if assessed.temporal is not None:
        values = assessed.temporal.by_name()
        lines += ["", f"{'':<16}" + "".join(f"{name:>8}" for name in values)]
        lines.append(f"{'over time':<16}" + "".join(map(_percent, values.values())))
    return "\n".join(lines)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:8.2f}" if math.isfinite(fraction) else f"{'-':>8}"
