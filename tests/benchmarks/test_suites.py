"""Suites: what fails takes nothing with it, what ended is not repeated, and words are options."""

import json
from pathlib import Path

import pytest
from flax.traverse_util import flatten_dict

from benchmarks import suites
from benchmarks.__main__ import main, parser_of_all
from benchmarks.findings import Findings, Target
from benchmarks.suites import CPU, TPU
from configs import demo
from tests import processes
from tmanet_jax.errors import UserError

FINDINGS = Findings("", ["a"], [["b"]], [Target("s", 0.5, 1.0, at_least=False)]).to_json()
WRITES = f"import sys; print('told'); open(sys.argv[1].split('=')[1], 'w').write({FINDINGS!r})"


def test_what_failed_takes_nothing_with_it_and_what_ended_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {
        "works": WRITES,
        "breaks": "import sys; sys.exit('out of memory')",
        "hangs": "import time; time.sleep(60)",
    }
    monkeypatch.setattr(suites, "command_line", lambda words: ["python", "-c", words])
    suites.perform(runs, list(runs), tmp_path, timeout_s=2)
    told = (tmp_path / "README.md").read_text()
    assert "| works | s | 0.5 | at most 1 | yes |" in told
    assert "FAILED: out of memory" in told
    assert "FAILED: took more than 2 s" in told
    marks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.log")}
    suites.perform(runs, list(runs), tmp_path, timeout_s=2)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.log")} == marks


def test_what_failed_within_jax_tells_its_error(tmp_path: Path) -> None:
    breaks = "import jax; jax.jit(lambda x: {}['no such array'])(1)"
    suites.measure("breaks", ["python", "-c", breaks], tmp_path, timeout_s=None)
    assert (tmp_path / "breaks.log").read_text().endswith("KeyError: 'no such array'\n")


def test_measurements_are_chosen_by_name() -> None:
    assert suites.chosen(CPU, "start,attention") == ["start", "attention"]
    with pytest.raises(UserError, match="'nothing' is no measurement"):
        suites.chosen(CPU, "nothing")


@pytest.mark.parametrize("words", [*CPU.values(), *TPU.values()])
def test_the_command_lines_are_those_of_a_command(words: str) -> None:
    options, fields = parser_of_all().parse_known_args(words.split())
    assert (processes.PROJECT / options.config).is_file()
    known = {"config", *flatten_dict({"config": demo.get_config().to_dict()}, sep=".")}
    assert {word.split("=")[0].removeprefix("--") for word in fields} <= known


def test_the_table_of_tpus_is_of_what_is_there(tmp_path: Path) -> None:
    first, second, *_ = TPU
    (tmp_path / f"{first}.json").write_text(FINDINGS)
    table = suites.table(TPU, tmp_path)
    assert table.count("| a |\n| --- |\n| b |\n") == 1
    (tmp_path / f"{second}.json").write_text("{")
    with pytest.raises(UserError, match=second):
        suites.table(TPU, tmp_path)


def test_the_table_in_docs_is_of_the_files_beside_it() -> None:
    folder = processes.PROJECT / "docs" / "compile"
    assert (folder / "table.md").read_text() == suites.table(TPU, folder)
    assert {path.stem for path in folder.glob("*.json")} <= set(TPU)
    for path in folder.glob("*.json"):
        assert json.loads(path.read_text())["rows"]


def test_commands_are_listed_and_wrong_words_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "attention" in capsys.readouterr().out
    for words, told in (
        (["train"], "--config"),
        (["train", "--config=configs/demo.py", "--size=4x512"], "'4x512' is not height x width"),
        (["stream", "--config=configs/demo.py", "--batch=0"], "'0' is no whole number from 1"),
        (["memory", "--bogus"], "--bogus"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
        assert told in capsys.readouterr().err
    for words, told in (
        (["train", "--config=configs/nothing.py"], "configs/nothing.py"),
        (["train", "--config=configs/demo.py", "--config.batch_size=many"], "batch_size"),
        (["train", "--config=configs/demo.py", "--bogus=1"], "bogus"),
    ):
        assert main(words) == 2
        assert told in capsys.readouterr().err
