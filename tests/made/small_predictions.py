"""What tests of `predict` share: a command line's wishes, inputs, and what a folder holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from configs import demo
from tests.made.small_videos import numbered
from tmanet_jax import settings
from tmanet_jax.inference.prediction import Prediction, prediction_of
from tmanet_jax.video.read import open_video
from tmanet_jax.workdir import LOCK_FILE

ALL = ["video", "png", "labels"]
SIZE = (48, 64)


def asked(
    weights: Path,
    source: Path | str | Sequence[Path | str],
    output: Path | str,
    *,
    precision: str = "default",
    **options: Any,
) -> Prediction:
    """What a command line asks for, of a network for whole frames."""
    config = demo.get_config()
    config.eval.mode = "whole"
    config.model.precision = precision
    defaults: dict[str, Any] = {
        "formats": ALL,
        "on_error": "keep",
        "sound": "keep",
        "memory_stride": None,
        "scale": None,
    }
    return prediction_of(
        settings.from_config(config),
        Path(output),
        checkpoint=str(weights),
        sources=[str(source)] if isinstance(source, Path | str) else list(map(str, source)),
        output=str(output),
        **(defaults | options),
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the lock, which names a process."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK_FILE
    }


def frames_of(path: Path) -> list[np.ndarray]:
    """Those of a video that can be decoded."""
    with open_video(path) as video:
        return [frame.pixels_HxWx3 for frame in video if frame.pixels_HxWx3 is not None]


def broken_folder(folder: Path, broken: set[int]) -> Path:
    """Eight pictures, some of which are torn."""
    folder.mkdir()
    for number in range(8):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), numbered(number, SIZE))
        if number in broken:
            path.write_bytes(b"torn")
    return folder
