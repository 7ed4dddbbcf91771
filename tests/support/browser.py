"""A real browser without a screen: Debian's Chromium, driven by its own driver."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("chromium", "chromedriver")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # which Chromium does not have as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # containers have little of it
)


class Browser:
    """A browser's one window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def resize(self, width: int, height: int) -> None:
        """Make the window's inside so large; a narrow one is a phone's, which a window cannot be made as small as."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, page: Path) -> None:
        """Open a page, and wait until all that it loads is there."""
        self.driver.get(page.as_uri())
        assert self.evaluate("document.readyState") == "complete"

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in JavaScript."""
        return self.driver.execute_script(f"return {expression}")

    def complaints(self) -> list[str]:
        """Return what the console says since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start it with an empty profile, and end it after.

    Args:
        profile: A folder for its files.
    """
    options = webdriver.ChromeOptions()
    program, driver_program = (shutil.which(name) for name in PROGRAMS)
    options.binary_location = program or ""
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
