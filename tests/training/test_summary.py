"""`run.py config --summary`: a network's modules, and the memory of a training step."""

import re
from pathlib import Path

from tests.made import tiny_runs


def test_a_summary_has_a_row_a_module_and_the_memory_of_training(tmp_path: Path) -> None:
    done = tiny_runs.called(tmp_path, "config", "--summary", "--config.model.num_memory=0")
    assert done.returncode == 0
    columns, whole, *_ = (line.split() for line in done.stdout.splitlines())
    assert columns == ["module", "output", "parameters", "operations", "activations"]
    assert whole[:3] == ["whole", "network", "1x6x10x19"]
    assert re.search(r"^backbone\.stages\.3\.0\.\S+ +1x6x10x\d+ +[\d,]+", done.stdout, re.MULTILINE)
    memory = re.search(
        r"batches of 2 clips takes ([\d.]+) MiB on each of 1 cpu device.*"
        r"batch ([\d.]+); results ([\d.]+); activations and temporaries ([\d.]+); "
        r"program ([\d.]+)\.",
        done.stdout,
    )
    assert memory
    total, *parts = map(float, memory.groups())
    assert abs(total - sum(parts)) < 0.2 and min(total, parts[0], parts[2]) > 0
