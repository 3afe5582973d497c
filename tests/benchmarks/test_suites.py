"""Suites: what fails takes nothing with it, what ended is not repeated, and words are options."""

import json
from pathlib import Path

import pytest
from flax.traverse_util import flatten_dict

from benchmarks import suites
from benchmarks.__main__ import main, parser_of_all
from benchmarks.findings import Findings, Target
from benchmarks.suites import CPU, GPU, TPU, Run
from configs import demo
from tests import processes
from tmanet_jax.errors import UserError

FINDINGS = Findings("", ["a"], [["b"]], [Target("s", 0.5, 1.0, at_least=False)]).to_json()
WRITES = f"import sys; print('told'); open(sys.argv[1].split('=')[1], 'w').write({FINDINGS!r})"


def test_what_failed_takes_nothing_with_it_and_what_ended_is_not_repeated(tmp_path: Path) -> None:
    runs = [
        Run("works", ("-c", WRITES)),
        Run("breaks", ("-c", "import sys; sys.exit('out of memory')")),
        Run("hangs", ("-c", "import time; time.sleep(60)"), timeout=0.2, writes_json=False),
    ]
    suites.perform(runs, tmp_path, runs)
    told = (tmp_path / "README.md").read_text()
    assert "| works | s | 0.5 | at most 1 | yes |" in told
    assert "FAILED: out of memory" in told
    assert "FAILED: took more than 0 s" in told
    marks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.log")}
    suites.perform(runs, tmp_path, runs)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.log")} == marks


def test_measurements_are_chosen_by_name() -> None:
    assert [run.name for run in suites.chosen(GPU, "start,curves")] == ["start", "curves"]
    with pytest.raises(UserError, match="'nothing' is no measurement"):
        suites.chosen(GPU, "nothing")
    for runs in (CPU, GPU, TPU):
        assert len({run.name for run in runs}) == len(runs)


@pytest.mark.parametrize("arguments", [run.arguments for run in (*CPU, *GPU, *TPU)])
def test_the_command_lines_are_those_of_a_command(arguments: tuple[str, ...]) -> None:
    fields = [word for word in arguments[1:] if not word.startswith("--workdir=")]
    if arguments[0] == "-m":
        options, fields = parser_of_all().parse_known_args(arguments[2:])
        assert (processes.PROJECT / options.config).is_file()
    known = {"config", *flatten_dict({"config": demo.get_config().to_dict()}, sep=".")}
    assert {word.split("=")[0].removeprefix("--") for word in fields} <= known


def test_the_table_of_tpus_is_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / f"{TPU[0].name}.json").write_text(FINDINGS)
    table = suites.table(TPU, tmp_path)
    assert table.count("| a |\n| --- |\n| b |\n") == 1
    (tmp_path / f"{TPU[1].name}.json").write_text("{")
    with pytest.raises(UserError, match=TPU[1].name):
        suites.table(TPU, tmp_path)


def test_the_table_in_docs_is_of_the_files_beside_it() -> None:
    folder = processes.PROJECT / "docs" / "compile"
    assert (folder / "table.md").read_text() == suites.table(TPU, folder)
    assert {path.stem for path in folder.glob("*.json")} <= {run.name for run in TPU}
    for path in folder.glob("*.json"):
        assert json.loads(path.read_text())["rows"]


def test_commands_are_listed_and_wrong_words_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "attention" in capsys.readouterr().out
    for words, told in (
        (["train"], "--config"),
        (["train", "--config=configs/demo.py", "--size=4x512"], "'4x512' is not height x width"),
        (["stream", "--config=configs/demo.py", "--batch=0"], "'0' is no whole number from 1"),
        (["curves", "--sides=97,big"], "'big' is no whole number"),
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
