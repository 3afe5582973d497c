"""What a frame reads from its memory, as numbers, as a picture and as a page."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from run import main
from tests.browser import barriers, chromium, fetch_axe
from tests.made.small_networks import untrained
from tests.made.tiny_weights import write_weights
from tmanet_jax.errors import UserError
from tmanet_jax.inference import explain
from tmanet_jax.inference.attention import read_of_memory
from tmanet_jax.models.normalize import normalize
from tmanet_jax.models.resnet import ResNetConfig
from tmanet_jax.models.tma_head import TMAHead, TMAHeadConfig
from tmanet_jax.models.tmanet import ModelConfig, TMANet
from tmanet_jax.protocol import Protocol

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SIZE = (40, 56)
BACKBONE = ResNetConfig(depth=18, width=4, blocks=(1, 1, 1, 1))


def network(
    num_memory: int = 2, scale_scores: bool = False, neighbourhood: int | None = None
) -> TMANet:
    head = TMAHeadConfig(
        num_classes=5,
        num_memory=num_memory,
        key_channels=6,
        value_channels=10,
        channels=14,
        scale_scores=scale_scores,
        neighbourhood=neighbourhood,
    )
    return untrained(ModelConfig(BACKBONE, head))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, *SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("scale_scores", "neighbourhood"), [(False, None), (True, None), (True, 1), (False, 0)]
)
def test_the_weights_are_those_that_the_network_reads_with(
    clip: np.ndarray, scale_scores: bool, neighbourhood: int | None
) -> None:
    model = network(scale_scores=scale_scores, neighbourhood=neighbourhood)
    protocol = Protocol(neighbourhood=neighbourhood)
    read = read_of_memory(network(scale_scores=scale_scores), clip, protocol)
    t, h, w = read.shape
    assert (t, h, w) == (2, 5, 7)
    assert (read.position_of((0, 0)), read.position_of((39, 24))) == ((0, 0), (4, 3))
    positions_Px2 = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), -1)
    maps_NxTxhxw = read.attention(positions_Px2.reshape(-1, 2))
    np.testing.assert_allclose(maps_NxTxhxw.sum((1, 2, 3)), 1, rtol=1e-5)
    stages = model.encode(normalize(jnp.asarray(clip[None]))[0])
    head = model.head
    assert isinstance(head, TMAHead)
    *memory, query = (jax.tree.map(lambda x, s=s: x[s : s + 1], stages) for s in range(3))
    encoded = [head.remember(one, place, train=False) for place, one in enumerate(memory)]
    joined = head.attend(head.query_encoder(query.stage4, train=False), encoded)
    values_MxV = np.concatenate([one.value for one in encoded]).reshape(-1, 10)
    expected_NxV = np.asarray(joined)[0, ..., 10:].reshape(h * w, 10)
    found_NxV = maps_NxTxhxw.reshape(h * w, -1) @ values_MxV
    np.testing.assert_allclose(found_NxV, expected_NxV, rtol=1e-4, atol=1e-5)
    weights_NxM = maps_NxTxhxw.reshape(h * w, -1).astype(np.float64)
    entropy_N = -(weights_NxM * np.log(np.maximum(weights_NxM, 1e-300))).sum(1) / np.log(t * h * w)
    np.testing.assert_allclose(read.entropy().ravel(), entropy_N, atol=1e-5)


def test_labels_are_the_networks_with_the_memory_and_alone(clip: np.ndarray) -> None:
    model = network()
    read = read_of_memory(model, clip)
    assert read.labels_HxW.shape == SIZE
    alone = read_of_memory(model, np.repeat(clip[-1:], 3, axis=0))
    np.testing.assert_array_equal(alone.labels_HxW, read.labels_alone_HxW)
    np.testing.assert_array_equal(alone.labels_alone_HxW, read.labels_alone_HxW)
    assert (read.labels_HxW != read.labels_alone_HxW).any()
    assert ((read.memory_share_hxw > 0) & (read.memory_share_hxw < 1)).all()


def test_what_has_no_memory_and_clips_of_another_length_are_refused(
    clip: np.ndarray,
) -> None:
    with pytest.raises(UserError, match="has no memory that a TMA head reads"):
        read_of_memory(network(num_memory=0), clip[:1])
    with pytest.raises(UserError, match="3 frames are needed, found 2"):
        read_of_memory(network(), clip[1:])


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, clip: np.ndarray) -> list[str]:
    folder = tmp_path_factory.mktemp("explained")
    write_weights(folder / "tiny.safetensors")
    for number, frame_HxWx3 in enumerate(clip):
        cv2.imwrite(str(folder / f"{number}.png"), frame_HxWx3)
    return [
        *("run.py", "explain", "--config=configs/demo.py", f"--input={folder}/*.png"),
        *(f"--checkpoint={folder}/tiny.safetensors", f"--output={folder}/out"),
    ]


def test_the_command_writes_a_picture_and_a_page(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    spied = mock.patch.object(explain, "read_of_memory", wraps=read_of_memory)
    with spied as look:
        assert main([*words, "--frame=1", "--pixel=39,55", "--config.eval.neighbourhood=1"]) == 0
    assert look.call_args.args[-1].neighbourhood == 1
    assert "of what the classifier gets" in capsys.readouterr().out
    output = Path(words[-1].removeprefix("--output="))
    picture = cv2.imread(str(output / "explain.png"))
    assert picture is not None and picture.shape[1] > 3 * 512
    assert 'id="map1"' in (output / "explain.html").read_text()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--frame=3", "has no frame 3"),
        ("--pixel=40,0", "--pixel=40,0 lies outside: frames have 40 rows and 56 columns"),
        ("--pixel=1", "is no pixel Y,X"),
        ("--input=other.mp4", "needs one --input"),
    ],
)
def test_what_is_not_there_is_told(
    words: list[str], option: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, option]) == 2
    assert told in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser() -> "Iterator[Chrome]":
    with chromium("--disable-gpu", "--window-size=1200,900") as driver:
        yield driver


@pytest.mark.browser
def test_the_page_follows_the_mouse(words: list[str], browser: "Chrome", tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    assert main([*words, "--frame=2"]) == 0
    output = Path(words[-1].removeprefix("--output="))
    browser.get((output / "explain.html").as_uri())
    drawn = "return document.getElementById('map0').toDataURL()"
    before, cross = browser.execute_script(drawn), browser.find_element("id", "cross")
    frame = browser.find_element("id", "query")
    ActionChains(browser).move_to_element_with_offset(frame, -frame.size["width"] // 3, 9).perform()
    assert browser.execute_script(drawn) != before
    left = cross.location["x"]
    frame.send_keys(Keys.ARROW_RIGHT)
    assert cross.location["x"] - left == pytest.approx(frame.size["width"] / 7, abs=2)
    shares = [browser.find_element("id", f"share{t}").text for t in range(2)]
    assert sum(int(share.rstrip(" %")) for share in shares) in (99, 100, 101)
    assert browser.get_log("browser") == []
    assert barriers(browser, fetch_axe(tmp_path)) == []
