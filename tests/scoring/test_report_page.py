"""The report page in a real browser, as its reader uses it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import chromium, requests
from tests.made.small_reports import NUM_FRAMES, assessment_of, street
from tmanet_jax.scoring.report import write_report

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> "Iterator[Chrome]":
    with chromium("--disable-gpu", "--window-size=1200,1600") as driver:
        yield driver


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("report")
    write_report(assessment_of(street()), workdir)
    return workdir / "report.html"


@pytest.fixture
def page(browser: "Chrome", report_page: Path) -> "Chrome":
    browser.get(report_page.as_uri())
    return browser


def shown(page: "Chrome") -> str:
    return page.find_element("id", "name").text


def source(page: "Chrome", selector: str) -> str:
    return page.find_element("css selector", selector).get_attribute("src") or ""


def test_the_page_loads_alone_and_without_errors(page: "Chrome") -> None:
    assert page.find_element("css selector", "h1").text == "Evaluation of a network"
    requested = requests(page)
    assert requested
    assert all(url.startswith(("file:", "data:")) for url in requested), requested
    assert page.get_log("browser") == []
    widths = page.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert widths and all(widths)


def test_a_click_on_the_slider_shows_another_frame(page: "Chrome") -> None:
    from selenium.webdriver import ActionChains

    assert shown(page).startswith(f"1 of {NUM_FRAMES}")
    before = source(page, "#under img"), source(page, "#over .mask")
    slider = page.find_element("id", "place")
    right = slider.size["width"] // 2 - 4
    ActionChains(page).move_to_element_with_offset(slider, right, 0).click().perform()
    assert shown(page).startswith(f"{NUM_FRAMES} of {NUM_FRAMES}")
    assert source(page, "#under img") != before[0]
    assert source(page, "#over .mask") != before[1]


def test_the_divider_follows_a_drag_on_the_picture(page: "Chrome") -> None:
    from selenium.webdriver import ActionChains

    stage = page.find_element("id", "stage")
    quarter = stage.size["width"] // 4
    ActionChains(page).move_to_element(stage).click_and_hold().move_by_offset(
        -quarter, 0
    ).release().perform()
    divider = page.execute_script("return Number(document.getElementById('divider').value)")
    assert divider == pytest.approx(25, abs=1)
    over = page.find_element("id", "over")
    assert "75%" in over.value_of_css_property("clip-path")


def test_keys_move_through_the_frames_and_the_choice_changes_what_is_compared(
    page: "Chrome",
) -> None:
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import Select

    body = page.find_element("css selector", "body")
    body.send_keys(Keys.ARROW_RIGHT)
    assert shown(page).startswith("2 of")
    body.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert shown(page).startswith(f"{NUM_FRAMES} of")
    assert source(page, "#under .mask") != source(page, "#over .mask")
    right = Select(page.find_element("id", "right"))
    right.select_by_visible_text("labels")
    assert source(page, "#under .mask") == source(page, "#over .mask")
    right.select_by_visible_text("frame")
    assert not page.find_element("css selector", "#under .mask").is_displayed()
    page.find_element("id", "play").click()
    assert page.find_element("id", "play").text == "Pause"


def test_without_frames_there_is_no_player(browser: "Chrome", tmp_path: Path) -> None:
    report = assessment_of(street(1))
    evaluation = dataclasses.replace(report.evaluation, shown=())
    write_report(dataclasses.replace(report, evaluation=evaluation, player=(), worst=()), tmp_path)
    browser.get((tmp_path / "report.html").as_uri())
    assert not browser.find_element("id", "player").is_displayed()
    assert browser.get_log("browser") == []
