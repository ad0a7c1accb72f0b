"""A real browser without a window, and what a person would read and click in it."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = None if CHROMIUM and DRIVER else "needs chromium and chromedriver (Debian: apt install chromium-driver)"
FLAGS = (
    "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync disable-dev-shm-usage window-size=1500,1300"
)
PATIENCE_S = 60.0


class Browser:
    """Wraps a Selenium driver; every wait polls and gives up after `PATIENCE_S`."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self.requests: list[tuple[str, str]] = []

    def open(self, url: str, *expected: str) -> str:
        """Load a page afresh and return its text once it holds everything expected."""
        self.driver.get("about:blank")  # else only the part after the # changes
        self.driver.get(url)
        return self.read(*expected)

    def read(self, *expected: str) -> str:
        """Return the visible text once it holds everything expected."""
        self.wait(lambda: all(words in self.text for words in expected), expected)
        return self.text

    @property
    def text(self) -> str:
        return self.driver.execute_script("return document.body ? document.body.innerText : ''")

    def click(self, words: str) -> None:
        """Click the visible element whose own text is `words`."""
        script = """
            const own = node => [...node.childNodes].filter(child => child.nodeType === 3)
                .map(child => child.textContent).join('').trim();
            return [...document.querySelectorAll('body *')]
                .find(node => own(node) === arguments[0] && node.offsetParent !== null)
        """
        self._click(lambda: self.driver.execute_script(script, words), words)

    def press(self, label: str) -> None:
        """Click the element that screen readers call `label`."""
        script = "return document.querySelector(`[aria-label='${arguments[0]}']`)"
        self._click(lambda: self.driver.execute_script(script, label), label)

    def _click(self, find: Callable, words: str) -> None:
        from selenium.common.exceptions import WebDriverException

        def click() -> bool:
            element = find()
            try:
                return bool(element and (element.click() or True))
            except WebDriverException:  # redrawn or covered in this moment
                return False

        self.wait(click, [words])

    def link(self, words: str, towards: str = "") -> str:
        """Return where the link with these words leads, among those whose address contains `towards`."""
        script = """
            return [...document.links].find(link =>
                link.innerText.trim() === arguments[0] && link.href.includes(arguments[1]))?.href
        """
        return self.wait(lambda: self.driver.execute_script(script, words, towards), [words])

    def widest_image(self) -> int:
        """Return the width in px of the largest picture that has arrived."""
        return self.driver.execute_script(
            "return Math.max(0, ...[...document.images].filter(i => i.complete).map(i => i.naturalWidth))"
        )

    def wait(self, condition: Callable, expected) -> object:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{self.driver.current_url} does not show {expected}; it shows:\n{self.text}")

    def asked(self) -> list[tuple[str, str]]:
        """Return (method, address) of everything that the pages have asked for over the network so far."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                request = message["params"]["request"]
                self.requests.append((request["method"], request["url"]))
        own = ("chrome:", "chrome-untrusted:", "chrome-search:", "data:", "blob:", "about:")
        return [(method, url) for method, url in self.requests if not url.startswith(own)]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile; nothing is downloaded."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"user-data-dir={profile}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
