"""Weights at addresses of the hub, which a small server here stands in for."""

import errno
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests import in_process, processes
from tests.made.small_videos import numbered
from tests.made.tiny_weights import CLASSES, write_weights
from tmanet_jax import Segmenter
from tmanet_jax.errors import UserError
from tmanet_jax.weights import conversion, files, hub

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
ADDRESS = "hf://street/tmanet"


class FakeHub(http.server.ThreadingHTTPServer):
    """Answers for one repository, `street/tmanet`, and for a gated one.

    Attributes:
        files: of each revision.
        asked: methods and names of files, in order.
    """

    def __init__(self, files_of_revision: dict[str, dict[str, bytes]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files_of_revision
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:  # the library also asks about the hub itself
            return self._refuse(404, "EntryNotFound")
        self.server.asked.append(f"{self.command} {match[3]}")
        repository, revision, name = match.groups()
        names = {commit: revision for revision, commit in COMMITS.items()}
        content = self.server.files.get(names.get(revision, revision), {}).get(name)
        if repository == "street/gated":
            return self._refuse(403, "GatedRepo")
        if repository != "street/tmanet":
            return self._refuse(404, "RepoNotFound")
        if revision not in (*COMMITS, *names):
            return self._refuse(404, "RevisionNotFound")
        if content is None:
            return self._refuse(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMITS[names.get(revision, revision)])
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def _refuse(self, status: int, code: str) -> bytes:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return b""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two revisions of a published folder."""
    root = tmp_path_factory.mktemp("published")
    for seed, revision in enumerate(COMMITS):
        weights = write_weights(root / f"{revision}.safetensors", seed=seed)
        Segmenter.load(weights).save_pretrained(root / revision)
    return root


@pytest.fixture
def fake(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that has both."""
    from huggingface_hub import constants

    revisions = {
        name: {path.name: path.read_bytes() for path in (published / name).iterdir()}
        for name in COMMITS
    }
    with FakeHub(revisions) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        hub._downloaded.cache_clear()
        yield server
        server.shutdown()


@pytest.mark.hub
def test_weights_of_a_revision_are_downloaded_once_and_nothing_else(
    fake: FakeHub, published: Path
) -> None:
    for address, revision in ((ADDRESS, "main"), (f"{ADDRESS}@v1", "v1")):
        expected = files.read(published / revision)
        assert files.content_digest(files.read(address).tensors) == files.content_digest(
            expected.tensors
        )
    assert Segmenter.load(f"{ADDRESS}@v1").classes == CLASSES
    assert set(fake.asked) == {"HEAD model.safetensors", "GET model.safetensors"}
    assert fake.asked.count("GET model.safetensors") == 2
    hub._downloaded.cache_clear()
    files.read(f"{ADDRESS}@{COMMITS['v1']}")
    fake.shutdown()
    fake.server_close()
    hub._downloaded.cache_clear()
    files.read(ADDRESS)  # what was downloaded is there without a network
    assert fake.asked.count("GET model.safetensors") == 2


@pytest.mark.hub
@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("hf://street/nobody", "there is no street/nobody, or it is private"),
        ("hf://street/gated", "street/gated is for those who agreed to its terms"),
        (f"{ADDRESS}@v9", "street/tmanet has no revision v9"),
        (f"{ADDRESS}@empty", "street/tmanet has no model.safetensors"),
        ("hf://street/tma--net", "is no address on the hub"),
    ],
)
def test_what_is_not_there_is_told(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, address: str, told: str
) -> None:
    monkeypatch.setitem(COMMITS, "empty", "c" * 40)
    with pytest.raises(UserError, match=re.escape(told)):
        files.read(address)


@pytest.mark.hub
def test_without_a_network_it_is_told(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library tries again and again
    fake.shutdown()
    fake.server_close()
    with pytest.raises(UserError, match=r"the hub cannot be reached \(.*refused.*see your network"):
        files.read(ADDRESS)


@pytest.mark.hub
def test_a_cache_that_is_full_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", mock.Mock(side_effect=full))
    with pytest.raises(UserError, match="cannot be kept: No space left on device"):
        hub.fetched("hf://street/full")


@pytest.mark.hub
def test_damaged_weights_are_refused(fake: FakeHub) -> None:
    content = fake.files["main"]["model.safetensors"]
    fake.files["main"]["model.safetensors"] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(UserError, match="is damaged"):
        files.read(ADDRESS)


@pytest.mark.hub
def test_every_place_that_takes_a_file_of_weights_takes_an_address(
    fake: FakeHub, published: Path, tmp_path: Path
) -> None:
    conversion.convert(f"{ADDRESS}@v1", tmp_path / "copy.safetensors")
    tensors = files.read(tmp_path / "copy.safetensors").tensors
    assert files.content_digest(tensors) == files.content_digest(
        files.read(published / "v1").tensors
    )
    video = np.stack([numbered(number, (36, 48)) for number in range(3)])
    np.save(tmp_path / "video.npy", video)
    program = (
        "import sys, numpy as np, tmanet_jax; "
        "segmenter = tmanet_jax.Segmenter.load(sys.argv[1]); "
        "labels = [result.labels for result in segmenter.stream(list(np.load(sys.argv[2])))]; "
        "np.save(sys.argv[3], labels)"
    )
    subprocess.run(
        [sys.executable, "-c", program, ADDRESS, tmp_path / "video.npy", tmp_path / "labels.npy"],
        cwd=processes.PROJECT,
        env={**processes.environment(), "HF_ENDPOINT": fake.url, "HF_HOME": str(tmp_path / "home")},
        check=True,
    )
    expected = [result.labels for result in Segmenter.load(published / "main").stream(list(video))]
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)


@pytest.mark.hub
@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--checkpoint=hf://street/nobody", "--input=a.mp4", "--output=out"],
        [
            "export",
            "--checkpoint=hf://street/nobody",
            "--size=8x8",
            "--output=out",
            "--format=onnx",
        ],
        ["eval", "--config.init.checkpoint=hf://street/nobody", "--config.data.render=False"],
    ],
)
def test_the_command_line_asks_the_hub(fake: FakeHub, words: list[str]) -> None:
    done = in_process.called([*words, "--config=configs/demo.py"])
    assert done.returncode == 2
    assert "hf://street/nobody cannot be read: there is no street/nobody" in done.stderr


@pytest.mark.parametrize(
    "address", ["hf://", "hf://street", "hf://a/b/c", "hf://a/b@", "hf://a/b@../c", "hf://a/b c"]
)
def test_a_malformed_address_is_told(address: str) -> None:
    with pytest.raises(UserError, match=r"is no address on the hub: write hf://OWNER/NAME or"):
        files.read(address)


def test_without_the_library_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-hub\.txt"):
        files.read("hf://street/unheard-of")
