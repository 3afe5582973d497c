"""Scores of result files by the official scripts equal those of `eval`."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import synthetic
from data_prep.cityscapes import Cityscapes
from data_prep.command import prepare
from data_prep.data_set import Options
from data_prep.source import SourceTree
from tmanet_jax.data.classes import CITYSCAPES, IGNORE
from tmanet_jax.data.records import open_clips
from tmanet_jax.scoring.clips import SegmentedClip
from tmanet_jax.scoring.evaluate import Tally
from tmanet_jax.scoring.metrics import confusion_of
from tmanet_jax.scoring.submission import Submission

pytestmark = [
    pytest.mark.cityscapes,
    pytest.mark.filterwarnings("ignore::Warning:cityscapesscripts"),
]


def wrong_here_and_there(labels_HxW: np.ndarray, seed: int) -> np.ndarray:
    """Labels as a network might predict them: no ignored pixels, and blocks of other classes."""
    rng = np.random.default_rng(seed)
    height, width = labels_HxW.shape
    noise_hxw = rng.integers(0, CITYSCAPES.num_classes, (height // 8, width // 8), np.uint8)
    noise_HxW = noise_hxw.repeat(8, axis=0).repeat(8, axis=1)
    keep_HxW = rng.random((height // 8, width // 8)).repeat(8, axis=0).repeat(8, axis=1) < 0.7
    return np.where(keep_HxW & (labels_HxW != IGNORE), labels_HxW, noise_HxW)


def test_classes_and_categories_score_as_the_server_scores_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    street = tmp_path / "street"
    synthetic.render_dataset(street, size=(64, 128), val=3, before=0, after=0, progress=False)
    prepare(
        Cityscapes(SourceTree(street)),
        tmp_path / "records",
        Options(memory_range=0),
        splits=("val",),
    )
    source = open_clips(tmp_path / "records", "val")
    submission = Submission.begin(tmp_path / "results", source)
    clips = [source.read(index, ()) for index in range(len(source))]
    tally = Tally.of_split(source)
    for index, clip in enumerate(clips):
        predicted_HxW = wrong_here_and_there(clip.labels_HxW, index)
        confusion = confusion_of(predicted_HxW, clip.labels_HxW, CITYSCAPES.num_classes)
        tally.add(index, confusion)
        submission.add(SegmentedClip(clip, predicted_HxW, confusion))
    ours = tally.evaluation()

    theirs = official_scores(street, tmp_path / "results", monkeypatch)
    for name, iou in zip(CITYSCAPES.names, ours.overall.iou_C, strict=True):
        np.testing.assert_allclose(theirs["classScores"][name], iou, rtol=1e-12, err_msg=name)
    categories, names = ours.other_scores["categories"]
    for name, iou in zip(names, categories.iou_C, strict=True):
        np.testing.assert_allclose(theirs["categoryScores"][name], iou, rtol=1e-12, err_msg=name)
    assert theirs["averageScoreClasses"] == pytest.approx(ours.overall.mean_iou, rel=1e-12)
    assert theirs["averageScoreCategories"] == pytest.approx(categories.mean_iou, rel=1e-12)


def official_scores(street: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `csEvalPixelLevelSemanticLabeling` reports."""
    monkeypatch.setenv("CITYSCAPES_DATASET", str(street))
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(results))
    official = importlib.import_module(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling"
    )
    official.args.evalInstLevelScore = False
    official.args.quiet = True
    official.args.JSONOutput = False
    official.args.groundTruthSearch = str(street / "gtFine/val/*/*_gtFine_labelIds.png")
    labels = sorted((street / "gtFine" / "val").rglob("*_gtFine_labelIds.png"))
    predictions = [official.getPrediction(official.args, str(path)) for path in labels]
    return official.evaluateImgLists(predictions, [str(path) for path in labels], official.args)
