"""Engines behind one API: the same frames and scores; exports are kept, torn ones made anew."""

import errno
import functools
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import tmanet_jax
from tests import in_process
from tests.export.test_export import SIZE, SLIDE
from tests.made import tiny_runs
from tests.made.small_networks import untrained
from tests.made.tiny_weights import write_weights
from tests.models.test_tmanet import small_config, trained
from tmanet_jax import settings
from tmanet_jax.data.classes import numbered_classes
from tmanet_jax.errors import UserError
from tmanet_jax.export import cache
from tmanet_jax.export import network as runner
from tmanet_jax.export.names import Engine
from tmanet_jax.inference import engine
from tmanet_jax.inference.engine import Computation, ExportedNetwork
from tmanet_jax.protocol import Protocol
from tmanet_jax.weights import load

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def model():
    return untrained(small_config(align_corners=False))


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of exports."""
    monkeypatch.setattr(cache, "DIRECTORY", tmp_path / "exports")
    return tmp_path / "exports"


def folders_of(exports: Path) -> list[Path]:
    return sorted(path for path in exports.iterdir() if path.is_dir() and path.name[0] != ".")


@pytest.mark.parametrize("protocol", [Protocol(scale=0.75), SLIDE], ids=str)
def test_an_engine_segments_a_video_as_jax_does(
    protocol: Protocol, tmp_path: Path, exports: Path
) -> None:
    weights = write_weights(tmp_path / "tmanet.safetensors", protocol=protocol)
    frames = list(np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8))
    expected = list(tmanet_jax.Segmenter.load(weights).stream(frames))
    segmenter = tmanet_jax.Segmenter.load(weights, engine="onnxruntime")
    for result, of_jax in zip(segmenter.stream(frames), expected, strict=True):
        np.testing.assert_allclose(result.probabilities, of_jax.probabilities, atol=1e-4)
        np.testing.assert_array_equal(result.labels, of_jax.labels)
    assert len(folders_of(exports)) == 1


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_session_of_an_engine_is_that_of_jax(name: Engine, exports: Path) -> None:
    model, classes = trained(small_config()), numbered_classes(5)
    videos_LxBxHxWx3 = np.random.default_rng(0).integers(0, 256, (6, 2, *SIZE, 3), np.uint8)
    by_engine = tmanet_jax.Segmenter(model, classes, computation=Computation(name))
    with (
        by_engine.session(streams=2) as session,
        tmanet_jax.Segmenter(model, classes).session(streams=2) as of_jax,
    ):
        for index, frames in enumerate(videos_LxBxHxWx3):
            if index == 3:
                session.reset(1)
                of_jax.reset(1)
            for result, expected in zip(session.add(frames), of_jax.add(frames), strict=True):
                assert result.index == expected.index
                np.testing.assert_array_equal(result.labels, expected.labels)
                np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-4)


def test_an_export_is_made_once_and_anew_where_it_is_torn(
    tmp_path: Path, exports: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = write_weights(tmp_path / "tmanet.safetensors")
    frames = list(np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8))

    def labels() -> list[np.ndarray]:
        segmenter = tmanet_jax.Segmenter.load(weights, engine="openvino")
        return [result.labels for result in segmenter.stream(frames)]

    expected = labels()
    (folder,) = folders_of(exports)
    written = (folder / "export.json").stat().st_mtime_ns
    labels()
    assert (folder / "export.json").stat().st_mtime_ns == written
    caplog.clear()
    for name in ("export.json", "program.xml", "program.bin"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1000])
        np.testing.assert_array_equal(labels(), expected)
        assert "is damaged, and is written anew" in caplog.text, name
        caplog.clear()
    assert folders_of(exports) == [folder]


def test_an_export_is_made_anew_by_another_version(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the project, of an engine under whatever name it is packaged, of what rounds to 8 bits."""
    frames = [np.zeros((*SIZE, 3), np.uint8)]
    networks = [
        ExportedNetwork(model, numbered_classes(5), Protocol(), computation)
        for computation in (Computation("onnxruntime"), Computation("openvino", "int8", frames))
    ]
    versions = dict.fromkeys(("jax", "flax", "onnx", "onnxruntime-gpu", "openvino", "nncf"), "1")
    packages = {"onnxruntime": ["onnxruntime-gpu"]}

    def version(package: str) -> str:
        if package not in versions:
            raise importlib.metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: packages)
    monkeypatch.setattr(importlib.metadata, "version", version)

    def names() -> list[str]:
        return [network._name(1, SIZE) for network in networks]

    before = names()
    versions["nncf"] = "2"
    assert [name in before for name in names()] == [True, False]
    versions["onnxruntime-gpu"] = "2"
    assert not set(names()) & set(before)
    engine._source.cache_clear()
    read_bytes, before = Path.read_bytes, names()
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read_bytes(path) + b"#" * (path.name == "stream.py")
    )
    engine._source.cache_clear()
    assert not set(names()) & set(before)
    engine._source.cache_clear()


def test_frames_to_calibrate_on_are_decoded_for_an_export_alone(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, names = tmp_path / "drive.mp4", list[str]()

    def kept(name: str, *_: object) -> mock.Mock:
        names.append(name)
        return mock.Mock()

    monkeypatch.setattr(cache, "kept", kept)
    monkeypatch.setattr(engine, "calibration_clips", lambda *_: pytest.fail("they are decoded"))
    for content in (b"one", None, b"another"):
        if content is not None:
            video.write_bytes(content)
        computation = Computation("openvino", "int8", video)
        ExportedNetwork(model, numbered_classes(5), Protocol(), computation).start(1, SIZE)
    assert names[0] == names[1] != names[2]


def write_entry(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "export.json").touch()
    (folder / "program").write_bytes(b"x" * 1000)


def keep(name: str) -> bytes:
    """What the cache has or makes of an entry."""
    return cache.kept(
        f"{name}_0000000000000000", write_entry, lambda folder: (folder / "program").read_bytes()
    )


def test_exports_that_were_used_longest_ago_go(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LIMIT_BYTES", 2500)
    for name in ("a", "b", "a", "c"):
        assert keep(name) == b"x" * 1000
    assert [folder.name[0] for folder in folders_of(exports)] == ["a", "c"]
    monkeypatch.setattr(cache, "LIMIT_BYTES", 10)
    keep("d")
    assert [folder.name[0] for folder in folders_of(exports)] == ["d"]


def test_folders_that_are_no_exports_of_the_cache_stay(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("photos", "exported"):
        write_entry(exports / name)
    (exports / "photos" / "export.json").unlink()
    monkeypatch.setattr(cache, "LIMIT_BYTES", 10)
    keep("a"), keep("b")
    assert [folder.name[:6] for folder in folders_of(exports)] == ["b_0000", "export", "photos"]


def test_an_export_stays_where_it_is_the_engine_that_cannot(exports: Path) -> None:
    keep("a")

    def out_of_memory(folder: Path) -> None:
        raise RuntimeError("out of memory")

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RuntimeError, match="out of memory"):
        cache.kept("a_0000000000000000", write_entry, out_of_memory)
    with pytest.raises(UserError, match=r"exports cannot be written.*TMANET_EXPORTS=DIR"):
        cache.kept("b_0000000000000000", full, out_of_memory)
    cache.kept("a_0000000000000000", full, lambda folder: (folder / "program").read_bytes())


def test_streams_share_a_program_and_not_their_memory(model, exports: Path) -> None:
    computation = Computation("openvino")
    stream = ExportedNetwork(model, numbered_classes(5), Protocol(), computation)
    frames = np.random.default_rng(0).integers(0, 256, (4, 1, *SIZE, 3), np.uint8)
    goes_on = np.zeros(1, bool)

    def logits(state, frame_1xHxWx3):
        return np.asarray(stream.step(state, frame_1xHxWx3, goes_on)[1].logits_NxhxwxC)

    alone = stream.start(1, SIZE)
    expected = [logits(alone, frame) for frame in frames]
    shutil.rmtree(exports)  # a stream that starts reads nothing
    first, second = stream.start(1, SIZE), stream.start(1, SIZE)
    np.testing.assert_array_equal(logits(first, frames[0]), expected[0])
    for index in range(3):
        np.testing.assert_array_equal(logits(second, frames[index]), expected[index])
        np.testing.assert_array_equal(logits(first, frames[index + 1]), expected[index + 1])


def test_an_engine_that_cannot_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = write_weights(tmp_path / "tmanet.safetensors")
    segmenter: Any = functools.partial(tmanet_jax.Segmenter.load, weights)
    for wrong, told in (
        ({"engine": "tensorrt"}, "engine is 'tensorrt': choose one of jax, onnxruntime, openvino"),
        ({"precision": "int4"}, "precision is 'int4': choose one of float32, bfloat16, int8"),
        (
            {"engine": "onnxruntime", "precision": "bfloat16"},
            "Engine onnxruntime computes in float32: choose engine jax or openvino for bfloat16",
        ),
        (
            {"precision": "int8", "calibrate": "drive.mp4"},
            "Engine jax computes in float32 or bfloat16: choose engine openvino for int8",
        ),
        ({"engine": "openvino", "precision": "int8"}, "precision int8 goes with calibrate, a vid"),
        ({"engine": "openvino", "calibrate": "drive.mp4"}, "precision int8 goes with calibrate"),
        ({"engine": "openvino", "device": "abacus"}, "device is 'abacus': openvino has cpu"),
        ({"engine": "onnxruntime", "device": "abacus"}, "onnxruntime has .*cpu"),
        ({"device": "abacus"}, "device is 'abacus': jax has cpu"),
        ({"engine": "openvino", "products": "highest"}, "products and attention are for jax"),
        ({"engine": "onnxruntime", "attention": "chunked"}, "leave them out with onnxruntime"),
    ):
        with pytest.raises(UserError, match=told):
            segmenter(**wrong)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs openvino and onnx: pip install -r requirements-ex"):
        segmenter(engine="openvino")


def test_other_frames_calibrate_another_computation(tmp_path: Path) -> None:
    """Also where they have the same path: what was written or scored by the old ones is told."""

    def told(source: Any) -> str:
        return Computation("openvino", "int8", calibrate=source).in_words()

    frame_HxWx3 = np.zeros((8, 8, 3), np.uint8)
    assert told([frame_HxWx3]) == told([frame_HxWx3.copy()]) != told([frame_HxWx3 + 1])
    assert told([frame_HxWx3]).startswith("int8 calibrated on 1 array (")
    (tmp_path / "a.png").write_bytes(b"one")
    before = told(tmp_path)
    assert before == told(tmp_path)
    (tmp_path / "a.png").write_bytes(b"others")
    assert told(tmp_path) != before


def test_a_type_that_jax_does_not_compute_here_is_told() -> None:
    with pytest.raises(UserError, match="precision is 'float64': choose one of float32"):
        Computation.by_jax("float64")


def test_a_cpu_without_bfloat16_computes_float32_and_says_so(
    model, exports: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    openvino = runner.openvino_library()
    monkeypatch.setattr(openvino.Core, "get_property", lambda core, device, name: ["FP32", "INT8"])
    frame_1xHxWx3 = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    logits = []
    for computation in (Computation("openvino"), Computation("openvino", "bfloat16")):
        stream = ExportedNetwork(model, numbered_classes(5), Protocol(), computation)
        state = stream.start(1, SIZE)
        logits.append(stream.step(state, frame_1xHxWx3, np.ones(1, bool))[1].logits_NxhxwxC)
    np.testing.assert_array_equal(logits[0], logits[1])
    assert "This CPU has no bfloat16: it computes float32" in caplog.text


def test_every_engine_is_scored_by_the_same_scores(
    exports: Path, data_dir: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "tmanet.safetensors"
    run = settings.from_config(tiny_runs.config(data_dir))
    load.save(weights, untrained(run.model), protocol=run.evaluation.protocol)

    def score(*options: str) -> subprocess.CompletedProcess[str]:
        words = [f"--workdir={tmp_path / 'run'}", f"--config.init.checkpoint={weights}", *options]
        return in_process.called(["eval", *tiny_runs.command(data_dir, *words)[2:]])

    def confusion(*options: str) -> np.ndarray:
        done = score(*options)
        assert done.returncode == 0, done.stderr
        return np.array(json.loads((tmp_path / "run" / "metrics.json").read_text())["confusion"])

    of_jax = confusion()
    moved = np.abs(confusion("--engine=onnxruntime") - of_jax).sum()
    assert moved <= of_jax.sum() / 10_000  # ties
    int8 = confusion("--engine=openvino", "--precision=int8", f"--calibrate={data_dir}")
    moved_in_int8 = np.abs(int8 - of_jax).sum()
    assert moved < moved_in_int8 < of_jax.sum() / 5
    assert sum("int8" in folder.name for folder in folders_of(exports)) == 1
    done = score("--engine=onnxruntime", "--config.eval.flip=True")
    assert done.returncode == 2
    assert "Only jax segments clips in several views" in done.stderr
