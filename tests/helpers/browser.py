"""The page, served by a process of its own, and a real browser without a screen that visits it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT

START = 300  # seconds, on a busy machine
PATIENCE = 120  # seconds
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1280,1500"),
)


@contextmanager
def served(arguments: Sequence[str], folder: Path) -> Iterator[str]:
    """Run ``tools/web_demo.py`` with these arguments on a free port, and yield its address."""
    command = [sys.executable, str(ROOT / "tools" / "web_demo.py"), *arguments]
    file = folder / "web_demo.log"
    with file.open("w") as log:
        server = subprocess.Popen(
            [*command, "--device", "cpu"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(5 * START):
            if found := re.search(r"open (http\S+)", file.read_text()):
                break
            assert server.poll() is None, file.read_text()[-2000:]
            time.sleep(0.2)
        assert found, file.read_text()[-2000:]
        yield found[1]
    finally:
        server.terminate()
        server.wait(30)


def find_browser() -> tuple[str, str] | None:
    """Chromium or Chrome, and its driver; None where they are not installed."""
    driver = shutil.which("chromedriver")
    for name in ("chromium", "chromium-browser", "google-chrome"):
        browser = shutil.which(name)
        if browser and driver:
            return browser, driver
    return None


class Visitor:
    """One user of the page.

    Args:
        url: The page.
        profile: An empty folder for the browser.
    """

    def __init__(self, url: str, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        found = find_browser()
        assert found, "neither Chromium nor Chrome is installed"
        browser, driver = found
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        self.profile = profile
        downloads = {"download.default_directory": str(profile / "downloads")}
        options.add_experimental_option("prefs", downloads)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(driver))
        self.driver.get(url)
        self.wait_for(lambda: self.all("#segment"))

    def resize(self, width: int, height: int = 1500) -> None:
        """Give the page a size in pixels, also one below a window's smallest."""
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def fits(self) -> bool:
        """Whether the page is no wider than its window."""
        return self.driver.execute_script("return document.body.scrollWidth <= innerWidth")

    def wait_for(self, ready: Callable[[], Any]) -> Any:
        """Wait until something is true, and return it."""
        from selenium.common import exceptions
        from selenium.webdriver.support.ui import WebDriverWait

        moving = [  # the page is still being laid out
            exceptions.StaleElementReferenceException,
            exceptions.ElementClickInterceptedException,
        ]
        wait = WebDriverWait(self.driver, PATIENCE, 0.2, ignored_exceptions=moving)
        return wait.until(lambda _: ready())

    def all(self, css: str) -> list[Any]:
        """The elements that a CSS selector finds."""
        return self.driver.find_elements("css selector", css)

    def one(self, css: str) -> Any:
        """The first such element, as soon as it is there."""
        return self.wait_for(lambda: self.all(css))[0]

    def press(self, css: str) -> None:
        """Click on an element, wherever it is on the page."""
        element = self.one(css)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.wait_for(lambda: element.click() or True)

    def source(self, result: str = "#result") -> str:
        """The source of the result image; empty before there is one."""
        images = self.all(f"{result} img")
        return images[0].get_attribute("src") if images else ""

    def after(self, act: Callable[[], object]) -> None:
        """Do something that changes the result, and wait until it has."""
        before = self.source()
        act()
        self.wait_for(lambda: self.source() not in ("", before))

    def type_names(self, text: str) -> None:
        """Replace the class names."""
        area = self.one("#names textarea")
        area.clear()
        area.send_keys(text)

    def upload(self, file: Path) -> None:
        """Choose a file of one's own, in place of the last one."""
        for button in self.all("#upload button[aria-label='Clear']"):
            button.click()
        self.one("#upload input[type=file]").send_keys(str(file))

    def click_at(self, x: float, y: float) -> None:
        """Click in the result, at a place in 0..1 of its width and height."""
        from selenium.webdriver import ActionChains

        image = self.one("#result img")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        size = image.size
        offsets = round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])
        ActionChains(self.driver).move_to_element_with_offset(image, *offsets).click().perform()

    def texts(self, css: str) -> list[str]:
        """The texts of the elements."""
        return [element.text for element in self.all(css)]

    def message(self) -> str:
        """What the page says is wrong, as soon as it does."""
        return self.wait_for(lambda: " ".join(self.texts(".toast-body.warning")).strip())

    def place(self) -> list[int]:
        """The column and row of the image of which the page tells the classes."""
        head = self.wait_for(lambda: [text for text in self.texts("#best h4") if text])[0]
        return [int(part) for part in head.split("(")[1].rstrip(")").split(", ")]
