"""An export for browsers, in one; and what is refused of its runtime."""

import base64
import contextlib
import http.server
import importlib.util
import io
import json
import runpy
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import in_process
from tests.browser import chromium, requests
from tests.made.small_networks import untrained
from tests.made.small_videos import write_video
from tests.made.tiny_weights import write_weights
from tests.models.test_tmanet import small_config
from tmanet_jax.data.classes import numbered_classes
from tmanet_jax.errors import UserError
from tmanet_jax.export import web, web_runtime
from tmanet_jax.export.page import serve
from tmanet_jax.export.program import program_of
from tmanet_jax.export.verify import agreement_of, calls_of
from tmanet_jax.export.web import export_page
from tmanet_jax.protocol import Protocol

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.export

SIZE = (33, 49)
CLASSES = numbered_classes(5)
PATIENCE_S = 120
A_GPU_IN_SOFTWARE = (
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
    "--use-webgpu-adapter=swiftshader",
)
A_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

SEGMENT = """
const [frames, resets, engine, done] = arguments;
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const text = (array) => {
  const all = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return btoa(Array.from(all, (byte) => String.fromCharCode(byte)).join(""));
};
(async () => {
  const { Network } = await import("/network.js");
  const network = await Network.load(engine);
  const results = [];
  for (const [i, frame] of frames.entries()) {
    const labels = await network.segment(bytes(frame), resets[i]);
    results.push([text(labels), text(network.logits)]);
  }
  return { engine: network.engine, threads: network.threads, results };
})().then(done, (error) => done(String(error)));
"""


@pytest.fixture(scope="module")
def model():
    return untrained(small_config(align_corners=False))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime's package as npm unpacks it."""
    folder = tmp_path_factory.mktemp("onnxruntime-web")
    (folder / "dist").mkdir()
    for name, content in web_runtime.runtime_files("").items():
        (folder / "dist" / name).write_bytes(content)
    describe(folder, web_runtime.VERSION)
    return folder


def describe(folder: Path, version: str) -> None:
    about = {"name": "onnxruntime-web", "version": version}
    (folder / "package.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def site(model, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "site"
    export_page(model, CLASSES, Protocol(), folder, size=SIZE, runtime=str(package))
    return folder


@contextlib.contextmanager
def running(server: http.server.HTTPServer) -> Iterator[str]:
    """Its address while it answers."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with running(serve.server(site, 0)) as where:
        yield where


@pytest.fixture(scope="module")
def browser() -> "Iterator[Chrome]":
    with chromium("--window-size=1200,1000", *A_GPU_IN_SOFTWARE, *A_CAMERA) as driver:
        driver.set_script_timeout(PATIENCE_S)
        yield driver


@pytest.mark.parametrize("engine", ["wasm", "webgpu"])
def test_the_labels_in_a_browser_are_the_networks(
    model, browser: "Chrome", address: str, engine: str
) -> None:
    program = program_of(model, Protocol(), "stream", 1, SIZE)
    frames_LxBxHxWx3, resets_LxB = calls_of(program)
    browser.get(address)
    found = browser.execute_async_script(
        SEGMENT,
        [base64.b64encode(frames).decode() for frames in frames_LxBxHxWx3],
        resets_LxB[:, 0].tolist(),
        engine,
    )
    assert found["engine"] == engine, found
    assert found["threads"] > 1
    labels, logits = (
        np.stack([np.frombuffer(base64.b64decode(result[i]), dtype) for result in found["results"]])
        for i, dtype in enumerate((np.uint8, np.float32))
    )
    arrays = {
        "labels": labels.reshape(-1, *program.outputs["labels"].shape),
        "logits": logits.reshape(-1, *program.outputs["logits"].shape),
    }
    agreement = agreement_of(program, frames_LxBxHxWx3, resets_LxB, arrays)
    assert agreement.calls == 12
    assert agreement.is_good, agreement


@pytest.fixture
def page(browser: "Chrome", address: str) -> "Chrome":
    """The page once the network is loaded; what was asked for before is forgotten."""
    requests(browser), browser.get_log("browser")
    browser.get(address)
    wait_for(browser, "told", "Ready: frames of 33x49 pixels on the CPU")
    return browser


def wait_for(page: "Chrome", name: str, words: str) -> None:
    from selenium.webdriver.support.expected_conditions import text_to_be_present_in_element
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, PATIENCE_S).until(text_to_be_present_in_element(("id", name), words))


def colours(page: "Chrome", opacity: float) -> set[tuple[int, ...]]:
    """Of the picture that is shown."""
    return {
        tuple(colour)
        for colour in page.execute_script(
            """
            const slider = document.getElementById("opacity");
            slider.value = arguments[0];
            slider.dispatchEvent(new Event("input"));
            const { width, height } = document.getElementById("stage");
            const context = document.getElementById("stage").getContext("2d");
            const data = context.getImageData(0, 0, width, height).data;
            const all = new Map();
            for (let i = 0; i < data.length; i += 4) {
              const colour = [...data.slice(i, i + 3)];
              all.set(String(colour), colour);
            }
            return [...all.values()];
            """,
            opacity,
        )
    }


def test_a_video_is_segmented_and_nothing_leaves_the_page(
    page: "Chrome", address: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 256, (30, 48, 96, 3), np.uint8))
    video = write_video(tmp_path / "noise.webm", frames, "libvpx-vp9")
    assert not page.find_element("id", "play").is_enabled()
    page.find_element("id", "file").send_keys(str(video))
    wait_for(page, "rate", "frames/s")
    assert page.find_element("id", "told").text.startswith("noise.webm, on the CPU, ")
    page.find_element("id", "play").click()
    wait_for(page, "play", "Play")
    palette = set(CLASSES.palette_Cx3)
    assert colours(page, 1.0) <= palette
    assert len(colours(page, 0.0) - palette) > 100
    assert np.ptp([*colours(page, 0.0)], axis=1).max() > 100
    assert np.ptp([*colours(page, 0.05)], axis=1).max() < 20  # labels lie over a grey frame
    asked = requests(page)
    assert f"{address}runtime/ort.wasm.min.mjs" in asked
    assert all(url.startswith((address, "blob:", "data:")) for url in asked), asked
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    legend = page.find_element("id", "legend").text.split("\n")
    assert legend == list(CLASSES.names)
    absent = page.find_elements("css selector", "#legend .absent")
    assert len(absent) == len(CLASSES.names) - len(colours(page, 1.0))


def test_the_page_may_ask_no_other_server(page: "Chrome", address: str) -> None:
    other = address.replace("localhost", "127.0.0.1")
    told = page.execute_async_script(
        "fetch(arguments[0], {mode: 'no-cors'}).then(() => 'answered', String).then(arguments[1])",
        other,
    )
    assert told == "TypeError: Failed to fetch"
    assert "Content Security Policy" in page.get_log("browser")[0]["message"]


def test_the_camera_is_segmented(page: "Chrome") -> None:
    page.find_element("id", "webcam").click()
    wait_for(page, "rate", "frames/s")
    assert page.find_element("id", "told").text.startswith("The camera, on the CPU")
    assert not page.find_element("id", "place").is_enabled()


def test_what_is_no_video_is_told(page: "Chrome", site: Path) -> None:
    page.find_element("id", "file").send_keys(str(site / "README.md"))
    wait_for(page, "told", "This browser cannot play README.md")


def test_a_phone_shows_all_of_it(page: "Chrome") -> None:
    narrow = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_the_headers_one_thread_is_told(browser: "Chrome", site: Path) -> None:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as where:
        browser.get(where)
        wait_for(browser, "told", "one thread only: python serve.py in this folder")


def test_a_folder_of_another_version_is_refused_and_leaves_nothing(
    model, package: Path, tmp_path: Path
) -> None:
    describe(package, "1.17.0")
    try:
        with pytest.raises(UserError, match=r"is 1\.17\.0: version .* is expected"):
            export_page(
                model, CLASSES, Protocol(), tmp_path / "site", size=SIZE, runtime=str(package)
            )
    finally:
        describe(package, web_runtime.VERSION)
    assert not list(tmp_path.iterdir())


def test_damaged_packages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no onnxruntime-web"):
        web_runtime.runtime_files(str(tmp_path))
    describe(tmp_path, web_runtime.VERSION)
    with pytest.raises(UserError, match=r"dist/ort\.wasm\.min\.mjs is missing or not the one of"):
        web_runtime.runtime_files(str(tmp_path))
    whole, torn = tmp_path / "whole.tgz", tmp_path / "torn.tgz"
    noise = np.random.default_rng(0).bytes(100_000)
    with tarfile.open(whole, "w:gz") as archive:
        archive.add(tmp_path / "package.json", "package/package.json")
        member = tarfile.TarInfo("package/dist/ort.wasm.min.mjs")
        member.size = len(noise)
        archive.addfile(member, io.BytesIO(noise))
    with pytest.raises(UserError, match="missing or not the one of"):
        web_runtime.runtime_files(str(whole))
    torn.write_bytes(whole.read_bytes()[:50_000])
    for path in (torn, tmp_path / "missing.tgz", tmp_path / "package.json"):
        with pytest.raises(UserError, match=r"is no whole package .*`npm pack onnxruntime-web@"):
            web_runtime.runtime_files(str(path))


def test_without_npm_or_its_network_what_to_do_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no npm here to fetch it: install npm, or"):
        web_runtime.runtime_files("")
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code EAI_AGAIN' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(UserError, match=r"npm cannot fetch .* \(npm error code EAI_AGAIN\)"):
        web_runtime.runtime_files("")


def test_without_onnx_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(source: str) -> dict[str, bytes]:
        raise AssertionError("npm was asked")

    monkeypatch.setattr(web, "runtime_files", fetched)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="Format onnx needs onnxruntime and onnx"):
        model = untrained(small_config())
        export_page(model, CLASSES, Protocol(), tmp_path / "site", size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("port", ["abc", "99999", "-1"])
def test_a_port_that_is_none_is_told(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["serve.py", port])
    with pytest.raises(SystemExit, match=f"PORT is '{port}': choose a whole number"):
        runpy.run_path(serve.__file__, run_name="__main__")


def test_the_command_refuses_what_a_page_cannot_do(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "tmanet.safetensors")
    output = tmp_path / "site"
    words = ["export", "--config=configs/demo.py", f"--checkpoint={weights}", "--size=33x49"]
    words += [f"--output={output}", "--format=web"]
    refused = {
        "--streams=2": "Format web segments one video as it plays",
        "--program=clip": "Format web segments one video as it plays",
        f"--runtime={tmp_path}": "is no onnxruntime-web",
        "--format=onnx": "Format onnx takes no --runtime",
    }
    for wrong, told in refused.items():
        done = in_process.called([*words, "--runtime=missing.tgz", wrong])
        assert done.returncode == 2, wrong
        assert told in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"tmanet.safetensors"}
