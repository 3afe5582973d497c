"""Runs side by side: curves that were told, scores as rows, a page with both."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from run import main
from tests.made.small_reports import assessment_of, street
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.curves import read_curves
from tmanet_jax.scoring.report import write_report
from tmanet_jax.scoring.runs import Row, compare, report_runs
from tmanet_jax.training.loggers import CSV


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The second run's road is wrong everywhere."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    clips = street(2, (64, 128))
    worse = []
    for segmented in clips:
        confusion = segmented.confusion_CxC.copy()
        confusion[0] = 0
        confusion[0, 1] = segmented.confusion_CxC[0].sum()
        worse.append(segmented._replace(confusion_CxC=confusion))
    for workdir, shown, slope in ((first, clips, -0.5), (second, worse, -0.25)):
        curves = CSV(workdir, 0)
        for step in (2, 4, 6):
            curves.scalars(step, {"train/loss": 9 + slope * step, "IoU/road": step / 10})
        curves.close()
        write_report(assessment_of(shown), workdir)
    return first, second


def test_rows_hold_all_runs_and_how_far_they_are_apart(workdirs: tuple[Path, Path]) -> None:
    rows = {(row.part, row.name): row for row in compare(workdirs)}
    metrics = [json.loads((workdir / "metrics.json").read_text()) for workdir in workdirs]
    road = rows["class", "road"]
    assert road == Row("class", "road", (metrics[0]["classes"]["road"]["IoU"], 0.0))
    assert road.spread == metrics[0]["classes"]["road"]["IoU"]
    assert rows["mean", "mIoU"].scores == tuple(found["mIoU"] for found in metrics)
    assert rows["group", "degraded"].scores[0] == metrics[0]["groups"]["degraded"]["mIoU"]
    assert ("class", "train") not in rows
    three = compare([*workdirs, workdirs[0]])
    assert {len(row.scores) for row in three} == {3}


def test_curves_are_read_but_for_torn_lines_and_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text("step,name,value\n2,train/loss,1.5\n4,train/loss,nan\n6,train/loss,0.5\n8,tra")
    curve = read_curves(tmp_path)["train/loss"]
    np.testing.assert_array_equal(curve.steps_N, [2, 6])
    np.testing.assert_array_equal(curve.values_N, [1.5, 0.5])
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="first line is not step,name,value"):
        read_curves(tmp_path)


def test_the_report_links_to_the_curves_of_its_run(workdirs: tuple[Path, Path]) -> None:
    assert 'href="curves.html"' in (workdirs[0] / "report.html").read_text()
    assert (workdirs[0] / "curves.html").read_text().count("<polyline") == 2


def test_the_command_prints_scores_and_writes_a_page_of_all_runs(
    workdirs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--workdir={workdir}" for workdir in workdirs]
    assert main(["run.py", "report", "--config=configs/demo.py", *words]) == 0
    printed = capsys.readouterr().out
    assert len(next(line for line in printed.splitlines() if line.startswith("mIoU")).split()) == 3
    page = (workdirs[0] / "comparison.html").read_text()
    assert (workdirs[0] / "curves.html").read_text().count("<polyline") == 2
    assert page.count("<polyline") == 4 and page.count("<svg") == 2
    assert 'points="48.0,' in page and "mIoU of the clips that differ most" in page
    assert main(["run.py", "eval", "--config=configs/demo.py", *words]) == 2
    assert "--workdir is given 2 times" in capsys.readouterr().err


def test_scores_alone_and_a_single_point_are_shown(tmp_path: Path) -> None:
    write_report(assessment_of(street(2, (64, 128))), tmp_path)
    assert "mIoU" in report_runs([tmp_path])
    curves = CSV(tmp_path, 0)
    curves.scalars(2, {"eval/mIoU": 0.5})
    curves.close()
    report_runs([tmp_path])
    points = re.search(r'points="([^"]*)"', (tmp_path / "curves.html").read_text())
    assert points is not None and len(points[1].split()) == 2


def test_other_clips_and_missing_runs_are_refused(
    workdirs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(assessment_of(street(3, (64, 128))), tmp_path)
    with pytest.raises(UserError, match=r"number of clips is 2 in .* and 3 in"):
        compare([workdirs[0], tmp_path])
    others = [
        one._replace(clip=dataclasses.replace(one.clip, id=f"other_{one.clip.id}"))
        for one in street(2, (64, 128))
    ]
    write_report(assessment_of(others), tmp_path)
    with pytest.raises(UserError, match="are of different clips"):
        compare([workdirs[0], tmp_path])
    words = [f"--workdir={workdirs[0]}", f"--workdir={tmp_path / 'nowhere'}"]
    assert main(["run.py", "report", "--config=configs/demo.py", *words]) == 2
    assert "nowhere/curves.csv cannot be read" in capsys.readouterr().err
