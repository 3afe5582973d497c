"""Chromium without a window, as the tests of pages drive it."""

import contextlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium(*flags: str) -> "Iterator[Chrome]":
    """A browser that keeps its logs."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def fetch_axe(folder: Path) -> str:
    """The program of axe-core, which says what of a page people cannot use."""
    command = ["npm", "pack", "axe-core@4.10.3", "--silent"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    with tarfile.open(folder / done.stdout.strip()) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def barriers(page: "Chrome", axe: str) -> list[str]:
    """What axe-core finds serious or critical."""
    page.execute_script(axe)
    found = page.execute_async_script("axe.run().then(arguments[0])")["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def requests(page: "Chrome") -> list[str]:
    """Addresses that were asked for since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in page.get_log("performance"))
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
