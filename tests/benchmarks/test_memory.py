"""Two runs side by side."""

import dataclasses
import json
from ast import literal_eval
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.memory import MEMORIES, STUDIED, Row, _workdir, compare
from tests.made.small_reports import assessment_of, street
from tmanet_jax.command_line import read_settings
from tmanet_jax.errors import UserError
from tmanet_jax.scoring.report import write_report


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
    write_report(assessment_of(clips), first)
    write_report(assessment_of(worse), second)
    return first, second


def test_rows_hold_both_runs_and_the_difference(workdirs: tuple[Path, Path]) -> None:
    rows = {(row.part, row.name): row for row in compare(*workdirs)}
    metrics = [json.loads((workdir / "metrics.json").read_text()) for workdir in workdirs]
    road = rows["class", "road"]
    assert road == Row("class", "road", metrics[0]["classes"]["road"]["IoU"], 0.0)
    assert road.difference == -metrics[0]["classes"]["road"]["IoU"]
    assert rows["mean", "mIoU"].second == metrics[1]["mIoU"] < metrics[0]["mIoU"]
    assert rows["group", "degraded"].first == metrics[0]["groups"]["degraded"]["mIoU"]
    assert ("class", "train") not in rows


def test_the_command_prints_and_writes_the_table(
    workdirs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ",".join(map(str, workdirs))
    assert main(["baseline", f"--workdirs={names}", f"--out={tmp_path / 'out'}"]) == 0
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert "| class | road |" in table


def test_other_clips_and_missing_runs_are_refused(
    workdirs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(assessment_of(street(3, (64, 128))), tmp_path)
    with pytest.raises(UserError, match=r"number of clips is 2 in .* and 3 in"):
        compare(workdirs[0], tmp_path)
    others = [
        one._replace(clip=dataclasses.replace(one.clip, id=f"other_{one.clip.id}"))
        for one in street(2, (64, 128))
    ]
    write_report(assessment_of(others), tmp_path)
    with pytest.raises(UserError, match="are of different clips"):
        compare(workdirs[0], tmp_path)
    assert main(["baseline", f"--workdirs={workdirs[0]},{tmp_path / 'nowhere'}"]) == 2
    assert "nowhere/metrics.json cannot be read" in capsys.readouterr().err


def test_the_study_varies_fields_that_there_are_in_workdirs_of_their_own() -> None:
    variants = MEMORIES | STUDIED
    demo = read_settings("demo")
    for fields in variants.values():
        values = {name: literal_eval(value) for name, value in (f.split("=") for f in fields)}
        assert values == {} or read_settings("demo", values) != demo
    assert len({_workdir(name, 0) for name in variants}) == len(variants)
