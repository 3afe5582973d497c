"""What `run.py doctor` finds of this machine, and of one with something wrong."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from unittest import mock

import av
import jax
import pytest

from run import main
from tmanet_jax import compilation_cache, doctor


def test_a_machine_that_can_run_is_told_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = mock.Mock(platform="tpu", id=9, device_kind="of another machine of a pod")
    monkeypatch.setattr(jax, "devices", lambda: [elsewhere])
    assert main(["run.py", "doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line[:22].strip(): line[22:] for line in lines}
    assert {"python", "packages", "cpu", "memory", "disk", "compiled programs", "h264"} <= set(
        found
    )
    assert "jax " in found["packages"] and "flax " in found["packages"]
    assert "a small network's gradient in" in found["cpu 0"]


def test_what_extras_lack_is_told_with_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["jax>=0.10", 'absent-a>=1; extra == "export"', "absent-b; extra == 'hub'"]
    needed += ["absent-c ; extra == 'export'", 'jax[cuda12]; extra == "cuda"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needed)
    found = {finding.name: finding.found for finding in doctor._packages()}
    assert (found["without export"], found["without hub"]) == ("absent-a, absent-c", "absent-b")
    assert found["all of these by"] == 'pip install "tmanet-jax[export,hub]"'


def test_a_checkout_that_is_not_installed_tells_its_extras_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.requires", mock.Mock(side_effect=PackageNotFoundError))
    usual = doctor._version
    monkeypatch.setattr(
        doctor, "_version", lambda name: None if name in ("onnx", "wandb") else usual(name)
    )
    found = {finding.name: finding for finding in doctor._packages()}
    assert "onnx" in found["without export"].found and found["without wandb"].found == "wandb"
    assert "grain " in found["packages"].found and not found["packages"].remedy
    assert "-r requirements-export.txt" in found["all of these by"].found


def test_what_is_wrong_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation_cache, "DIRECTORY", tmp_path / "file" / "cache")
    monkeypatch.setattr(doctor, "_LEAST_DISK", 2**80)
    monkeypatch.setattr(doctor, "_norm_of_gradient", mock.Mock(side_effect=RuntimeError("full")))
    monkeypatch.setattr(av.CodecContext, "create", mock.Mock(side_effect=ValueError("libx264")))
    assert main(["run.py", "doctor"]) == 2
    told = capsys.readouterr().err
    assert "compiled programs: name another folder in JAX_COMPILATION_CACHE_DIR" in told
    assert "disk: free some disk" in told
    assert "h264: reinstall av" in told and "cpu 0: free it of other programs" in told
