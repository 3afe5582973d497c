"""The table of compiled runs, from results that are there."""

from pathlib import Path

import pytest

from benchmarks import compile_table
from benchmarks.chips import parse_topology
from benchmarks.compile_table import ROWS, TABLE, Row
from tests.benchmarks.small_compile_results import FITS, TOO_LARGE, result

FIRST = ROWS[0]


def file_of(folder: Path, row: Row) -> Path:
    return folder / f"{row.name}.json"


def table(folder: Path, *options: str) -> list[str]:
    assert compile_table.main([f"--out={folder}", "--rows=0", *options]) == 0
    lines = (folder / TABLE).read_text().splitlines()
    return [line for line in lines if line.startswith("| ")][2:]


def test_every_row_has_a_file_of_its_own_and_a_topology_that_exists() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        parse_topology(row.topology)
        assert not row.smaller or any(
            (other.config, other.topology, other.options) == (row.config, row.smaller, row.options)
            for other in ROWS
        )


def test_the_table_has_what_is_there_and_marks_what_is_extrapolated(tmp_path: Path) -> None:
    assert table(tmp_path) == []
    file_of(tmp_path, FIRST).write_text(result().to_json())
    (line,) = table(tmp_path)
    assert "16 v5e:4x4" in line
    assert "extrapolated" not in line
    of_16, of_256, of_64 = table(tmp_path, "--extrapolate")
    assert of_16 == line
    assert "256 v5e:16x16 (data 256)" in of_256
    assert "256 clips of 3 frames 769x769" in of_256
    assert (
        of_256.count("extrapolated from v5e:4x4") == of_64.count("extrapolated from v5e:4x4") == 3
    )


def test_a_row_that_does_not_fit_says_so_and_is_not_extrapolated(tmp_path: Path) -> None:
    file_of(tmp_path, FIRST).write_text(result(TOO_LARGE).to_json())
    (line,) = table(tmp_path, "--extrapolate")
    assert "does not fit: needs 20.00 of 15.00" in line


def test_only_missing_rows_are_compiled_and_a_failure_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = []

    def compile_row(folder: Path, row: Row) -> bool:
        compiled.append(row)
        if row != ROWS[1]:
            file_of(folder, row).write_text(result(FITS, row.topology).to_json())
        return row != ROWS[1]

    monkeypatch.setattr(compile_table, "compile_row", compile_row)
    file_of(tmp_path, FIRST).write_text(result().to_json())
    assert compile_table.main([f"--out={tmp_path}", "--rows=3"]) == 2
    assert compiled == [ROWS[1], ROWS[2]]
    assert ROWS[1].name in capsys.readouterr().err
    assert len(table(tmp_path)) == 2


def test_a_spoilt_result_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file_of(tmp_path, FIRST).write_text("{")
    assert compile_table.main([f"--out={tmp_path}", "--rows=0"]) == 2
    assert file_of(tmp_path, FIRST).name in capsys.readouterr().err
