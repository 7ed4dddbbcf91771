"""The site's pages as a browser shows them, on a desk and on a phone."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.browser import Browser

DESK, PHONE = (1280, 900), (390, 844)

# What is cut off at the right edge: too wide, and in nothing that scrolls. A phone's browser makes room by zooming out,
# and so its own idea of the window's width is of no use.
_CUT_OFF = """
(width => {
  const scrolls = e => e && (["auto", "scroll"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const isCutOff = e => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement);
  return [...document.querySelectorAll("article *")].filter(isCutOff).map(e => e.outerHTML.slice(0, 80));
})(%d)
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start Chromium; without it, skip, or fail where it has to be there."""
    from tests.support.browser import PROGRAMS, browser

    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing and os.environ.get("LAMBDA_DBCONN_REQUIRE_BROWSER"):
        pytest.fail(f"required and not here: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"no {', '.join(missing)}: Debian's package chromium-driver has both")
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


def faults(browser: Browser, page: Path, window: tuple[int, int]) -> list[str]:
    """Say what is wrong with a page in such a window."""
    browser.resize(*window)
    browser.open(page)
    width = browser.evaluate("document.documentElement.scrollWidth")
    images = browser.evaluate("[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)")
    loaded = browser.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    found = browser.complaints()
    if width > window[0]:
        found.append(f"scrolls sideways: {width} of {window[0]} pixels")
    found += [f"cut off: {element}" for element in browser.evaluate(_CUT_OFF.strip() % window[0])]
    found += [f"no image: {image}" for image in images]
    found += [f"from another host: {address}" for address in loaded if not address.startswith(("file:", "data:"))]
    return [f"{page.name}: {fault}" for fault in found]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("window", [DESK, PHONE], ids=["desk", "phone"])
def test_no_page_scrolls_sideways_complains_or_lacks_an_image(
    browser: Browser, site: Path, window: tuple[int, int]
) -> None:
    pages = sorted(set(site.rglob("*.html")) - {site / "index.html"})  # which leads on at once
    assert len(pages) > 40
    assert [fault for page in pages for fault in faults(browser, page, window)] == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<div style="width: 500px">wide</div>', "scrolls sideways"),
        ('<article style="overflow: hidden"><p style="width: 500px">wide</p></article>', "cut off: <p"),
        ('<img src="nowhere.svg">', "no image"),
        ("<script>console.error('oh')</script>", '"oh"'),
        ("<script>nowhere()</script>", "nowhere is not defined"),
        ('<script src="http://127.0.0.1:9/x.js"></script>', "from another host: http://127.0.0.1:9/x.js"),
    ],
)
def test_a_page_with_a_fault_is_found(browser: Browser, tmp_path: Path, body: str, fault: str) -> None:
    head = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    page = tmp_path / "faulty.html"
    page.write_text(f"<!DOCTYPE html><html><head>{head}</head><body style='margin: 0'>{body}</body></html>")
    assert fault in "\n".join(faults(browser, page, PHONE))


def test_on_a_phone_the_navigation_opens_and_leads_to_a_page(browser: Browser, site: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.resize(*PHONE)
    browser.open(site / "docs" / "index.html")
    link = browser.driver.find_element(By.CSS_SELECTOR, ".sidebar-tree a[href='how-to/time-limits.html']")
    is_in_view = "document.querySelector('.sidebar-drawer').getBoundingClientRect().left >= 0"
    assert not browser.evaluate(is_in_view)
    browser.driver.find_element(By.CSS_SELECTOR, ".mobile-header .nav-overlay-icon").click()
    WebDriverWait(browser.driver, 10).until(lambda _: browser.evaluate(is_in_view))
    link.click()
    assert browser.evaluate("location.pathname").endswith("/how-to/time-limits.html")
