"""Checks the built site: links without a network, and every page in a real browser.

python -m sphinx -W -b html docs docs/_build/html && python tools/site.py docs/_build/html

Needs Chromium with its driver, and selenium. At the widths of a phone and of a desktop no page
scrolls sideways, prints an error to the console or has a broken picture, and the search finds a
word. With ``--pictures FOLDER`` it keeps a picture of each page at both widths.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

WIDTHS = {"phone": (390, 844), "desktop": (1440, 900)}
WORD = "peephole"
# What sticks out, for the message; what scrolls by itself may be as wide as it likes.
SIDEWAYS = """
const root = document.documentElement, wide = root.scrollWidth - root.clientWidth;
if (wide <= 0) return null;
const scrolls = e =>
  e && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
const out = [...document.body.querySelectorAll('*')].filter(
  e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e.parentElement));
const names = out.slice(0, 3).map(e => e.tagName + ' ' + e.textContent.slice(0, 40));
return wide + ' px too wide: ' + names.join('; ');
"""
PICTURES = (
    "return [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"
)


class Page(HTMLParser):
    """The ids of a page, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element is called and refers to."""
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name == "src" or (name == "href" and tag == "link"):
                self.sources.append(value or "")
            elif name == "href":
                self.links.append(value or "")


def broken_links(folder: Path, pages: list[Path]) -> Iterator[str]:
    """Yield each link to what is not there, and each source that is loaded from elsewhere."""
    parsed = {page: Page(page.read_text(encoding="utf-8")) for page in pages}
    for page, found in parsed.items():
        name = page.relative_to(folder)
        for kind, links in (("source", found.sources), ("link", found.links)):
            for link in links:
                parts = urlsplit(link)
                if parts.scheme or parts.netloc:
                    if kind == "source" and parts.scheme != "data":
                        yield f"{name}: {link} is loaded from elsewhere"
                    continue
                target = page.parent / unquote(parts.path) if parts.path else page
                target = target.resolve()
                if not target.is_file():
                    yield f"{name}: {link} is not there"
                    continue
                ids = parsed[target].ids if target in parsed else None
                if parts.fragment and ids is not None and unquote(parts.fragment) not in ids:
                    yield f"{name}: {link} has no such anchor"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the address of a server of the folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def browser() -> Iterator[Any]:
    """Yield Chromium without a window, with a new profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        sys.exit("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for each in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "no-proxy-server",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{each}")
        driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
        try:
            yield driver
        finally:
            driver.quit()


def resize(driver: Any, width: int, height: int) -> None:
    """Give the page a width, below a window's least one too."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def faults(driver: Any, address: str, name: str, pictures: Path | None) -> Iterator[str]:
    """Yield what is wrong with a page."""
    driver.get(urljoin(address, name))
    for place, size in WIDTHS.items():
        resize(driver, *size)
        if wide := driver.execute_script(SIDEWAYS):
            yield f"{name} on a {place}: {wide}"
        if pictures:
            driver.save_screenshot(str(pictures / f"{name.replace('/', '-')}.{place}.png"))
    for source in driver.execute_script(PICTURES):
        yield f"{name}: the picture {source} is broken"
    for entry in driver.get_log("browser"):
        if entry["level"] in ("SEVERE", "ERROR"):
            yield f"{name}: console: {entry['message']}"


def search_finds(driver: Any, address: str, word: str) -> bool:
    """Type a word where a reader would, and say whether a result has it."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver.get(urljoin(address, "index.html"))
    resize(driver, *WIDTHS["desktop"])
    driver.find_element(By.CSS_SELECTOR, "input[name=q]").send_keys(word, Keys.ENTER)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        # results come one by one, their summaries later
        script = "return [...document.querySelectorAll('#search-results li')].map(e => e.innerText)"
        if any(word in text.lower() for text in driver.execute_script(script)):
            return True
        time.sleep(0.1)
    return False


def main() -> None:
    """Check, print what is wrong, and exit with 1 if something is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path, help="keep a picture of each page here")
    options = parser.parse_args()
    folder = options.folder.resolve()
    pages = sorted(folder.rglob("*.html"))
    if not (folder / "index.html").is_file():
        sys.exit(f"{folder} has no index.html")
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    found = list(broken_links(folder, pages))
    with served(folder) as address, browser() as driver:
        for page in pages:
            name = page.relative_to(folder).as_posix()
            found += faults(driver, address, name, options.pictures)
        if not search_finds(driver, address, WORD):
            found.append(f"the search does not find {WORD!r}")
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(pages)} pages, {len(found)} faults")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
