"""What an evaluation leaves in the workdir: metrics.json and pictures of predictions."""

import os
from pathlib import Path

import cv2

from tmanet_jax.inference.evaluate import Evaluation, metrics_json, table

METRICS_FILE = "metrics.json"
PICTURES_DIR = "predictions"


def write_report(evaluation: Evaluation, workdir: Path, *, step: int, split: str) -> str:
    """Writes the metrics and the pictures; returns the table and where the pictures are."""
    _write_atomically(workdir / METRICS_FILE, metrics_json(evaluation, step=step, split=split))
    pictures = workdir / PICTURES_DIR
    pictures.mkdir(exist_ok=True)
    for clip_id, picture_HxWx3 in evaluation.overlays.items():
        cv2.imwrite(str(pictures / f"{clip_id}.png"), picture_HxWx3[:, :, ::-1])
    return (
        f"step {step}, {evaluation.num_clips} clips of {split}:\n\n{table(evaluation)}\n\n"
        f"metrics:  {workdir / METRICS_FILE}\npictures: {pictures}/"
    )


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n")
    os.replace(partial, path)
