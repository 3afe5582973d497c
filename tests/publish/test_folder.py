"""A published folder of weights that no run is known of; `test_end_to_end` publishes a run."""

import csv
import errno
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests import in_process
from tests.made.small_videos import numbered
from tests.made.tiny_weights import CLASSES, write_weights
from tmanet_jax import Segmenter
from tmanet_jax.errors import UserError
from tmanet_jax.protocol import EvalConfig, Protocol
from tmanet_jax.publish.card import card
from tmanet_jax.publish.story import Metrics, Story, Training, story_of
from tmanet_jax.weights import load

SLIDE = Protocol("slide", (24, 32), (16, 24), memory_stride=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_says_what_it_holds_and_predicts_the_same(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "tmanet.safetensors", protocol=SLIDE)
    segmenter = Segmenter.load(weights)
    segmenter.save_pretrained(tmp_path / "published")
    again = Segmenter.load(tmp_path / "published")
    assert (again.classes, again.protocol) == (CLASSES, SLIDE)
    video = [numbered(number, (36, 48)) for number in range(4)]
    for result, expected in zip(again.stream(video), segmenter.stream(video), strict=True):
        np.testing.assert_array_equal(result.labels, expected.labels)

    again.save_pretrained(tmp_path / "again")
    published = contents(tmp_path / "published")
    assert contents(tmp_path / "again") == published
    assert set(published) == {"README.md", "classes.csv", "config.json", "model.safetensors"}
    rows = csv.DictReader(published["classes.csv"].decode().splitlines())
    colours = [(row["name"], int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows]
    assert colours == [
        (name, *colour) for name, colour in zip(CLASSES.names, CLASSES.palette_Cx3, strict=True)
    ]
    said = json.loads(published["config.json"])
    assert said["network"]["head"]["num_classes"] == 5
    assert said["protocol"]["mode"] == "slide"


def test_what_nobody_recorded_is_said_and_not_invented(tmp_path: Path) -> None:
    Segmenter.load(write_weights(tmp_path / "a.pth.safetensors")).save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    front, text = card.removeprefix("---\n").split("\n---\n")
    fields = dict(line.split(": ", 1) for line in front.splitlines() if ": " in line)
    assert fields["license"].startswith("unknown # fill in")
    assert fields["library_name"] == "tmanet-jax"
    assert fields["pipeline_tag"] == "image-segmentation"
    assert "metrics:" not in front and "datasets:" not in front
    for said in (
        "How the weights were trained is not recorded with them.",
        "No scores are recorded with these weights.",
        "## Pictures\n\nNone are recorded with these weights.",
    ):
        assert said in text
    assert "mIoU" not in text


@pytest.mark.parametrize(
    ("recorded", "typed"),
    [
        ("run.py --config=configs/demo.py", "python run.py --config=configs/demo.py"),
        ("/opt/venv/bin/tmanet train --config=demo", "tmanet train --config=demo"),
    ],
)
def test_the_command_is_told_as_it_was_typed(tmp_path: Path, recorded: str, typed: str) -> None:
    network = load.load_model(write_weights(tmp_path / "tmanet.safetensors"))
    told = card(network, Story(Training({}, recorded)))
    assert f"```bash\n{typed}\n```" in told


def test_what_is_there_stays(tmp_path: Path) -> None:
    segmenter = Segmenter.load(write_weights(tmp_path / "tmanet.safetensors"))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already"):
        segmenter.save_pretrained(tmp_path / "out")
    with pytest.raises(UserError, match="cannot be written"):
        segmenter.save_pretrained(tmp_path / "tmanet.safetensors" / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("output", "told"),
    [("", "Say where to: --output="), ("out", "There is no file of weights at")],
)
def test_a_run_without_weights_is_not_published(tmp_path: Path, output: str, told: str) -> None:
    words = ["--config=configs/demo.py", f"--workdir={tmp_path}", f"--output={output}"]
    done = in_process.called(["publish", *words])
    assert done.returncode == 2
    assert told in done.stderr


def test_metrics_that_cannot_be_read_are_an_error_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics.json").touch()
    refused = mock.Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(UserError, match=r"metrics\.json cannot be read: Permission denied"):
        story_of(tmp_path, None, "float32")


def test_the_card_tells_scores_of_an_older_version_from_others(tmp_path: Path) -> None:
    network = load.load_model(write_weights(tmp_path / "tmanet.safetensors"))
    text = {
        computation: card(network, Story(metrics=scores(computation)))
        for computation in ("", "float32, engine jax")
    }
    assert ["older version scored" in one for one in text.values()] == [True, False]


def scores(computation: str) -> Metrics:
    return Metrics(
        mIoU=0.5,
        mAcc=0.5,
        mDice=0.5,
        aAcc=0.5,
        classes={},
        split="val",
        clips=3,
        step=8,
        weights="",
        computation=computation,
        scored=EvalConfig(),
        groups={},
    )
