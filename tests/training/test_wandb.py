"""Weights & Biases in its offline mode: what a run has shown is in its file."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tmanet_jax.training.logs import RunLog

pytestmark = pytest.mark.wandb


def points(path: Path) -> list[dict[str, Any]]:
    """What a start has logged, but for the logger's own; its file is one block of LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    found, content = [], path.read_bytes()
    assert len(content) < 2**15
    place = 7  # behind the file's header; each record has one of seven bytes, too
    while place < len(content):
        (length,) = struct.unpack_from("<H", content, place + 4)
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content[place + 7 : place + 7 + length])
        place += 7 + length
        if record.WhichOneof("record_type") == "history":
            items = {
                ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            found.append({name: value for name, value in items.items() if name[0] != "_"})
    return found


def test_curves_and_pictures_of_a_run_and_of_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    for first_step, told in ((0, (3,)), (2, (3, 6))):  # step 3 is computed, and told, twice
        with RunLog(tmp_path, first_step, ("wandb",)) as log:
            for step in told:
                log.scalars(step, {"train/loss": 0.5, "IoU/road": 0.25})
                log.picture(step, "prediction/a", np.full((4, 6, 3), 7, np.uint8))
    wandb.teardown()  # as when the process ends: its service writes in the background
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda f: f.stat().st_mtime)
    (first, picture), (second, _) = map(points, files)
    assert first == {"step": 3, "train/loss": 0.5, "IoU/road": 0.25}
    assert (picture["step"], picture["prediction/a.width"]) == (3, 6)
    assert second == {"step": 6, "train/loss": 0.5, "IoU/road": 0.25}
    name = (tmp_path / "wandb_id").read_text()
    assert [file.name for file in files] == [f"run-{name}.wandb"] * 2
