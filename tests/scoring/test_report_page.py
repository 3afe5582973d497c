"""The report page in a real browser, as its reader uses it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.browser import barriers, chromium, fetch_axe, requests
from tests.made.small_reports import NUM_FRAMES, assessment_of, street
from tmanet_jax.scoring import report_page as report_page_module
from tmanet_jax.scoring.report import write_report
from tmanet_jax.training.loggers import CSV

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
    curves = CSV(workdir, 0)
    for step in (2, 4, 6):
        curves.scalars(step, {"train/loss": 9 - step, "IoU/road": step / 10})
    curves.close()
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


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fetch_axe(tmp_path_factory.mktemp("axe"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report.html", "curves.html"])
def test_nothing_shuts_people_out(
    browser: "Chrome", report_page: Path, axe: str, name: str, scheme: str
) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(report_page.with_name(name).as_uri())
    assert barriers(browser, axe) == []


@pytest.mark.parametrize("share", [0.01, 0.3, 0.45, 0.6, 0.65, 0.7, 0.99])
def test_shares_of_the_confusion_can_be_read(browser: "Chrome", axe: str, share: float) -> None:
    cell = report_page_module._cell(share, "road taken for car")
    page = f"<html lang=en><title>t</title><main><h1>t</h1><table><tr>{cell}</tr></table></main>"
    browser.get("data:text/html," + quote(page))
    assert barriers(browser, axe) == []


def test_a_click_on_a_heading_sorts_its_table(page: "Chrome") -> None:
    table = page.find_elements("css selector", "table.sortable")[1]

    def column() -> list[str]:
        cells = table.find_elements("css selector", "tbody td:nth-child(3)")
        return [cell.text for cell in cells if cell.text != "-"]

    table.find_element("css selector", "th:nth-child(3) button").click()
    values = [float(text) for text in column()]
    assert len(values) > 3 and values == sorted(values, reverse=True)
    table.find_element("css selector", "th:nth-child(3) button").click()
    assert [float(text) for text in column()] == sorted(values)


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
