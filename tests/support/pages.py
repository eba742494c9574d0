"""Pages in a real Chromium, and axe-core, which finds barriers in them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

WIDTHS = (1280, 390)  # pixels: a desktop, a telephone
SCHEMES = ("light", "dark")
VIEWS = [(width, scheme) for width in WIDTHS for scheme in SCHEMES]
HEIGHTS = {1280: 800, 390: 844}
EVERYTHING = {"resultTypes": ["violations"]}
PATIENT_MS = 60_000  # a busy machine needs longer than playwright waits by default


@dataclass
class Pages:
    """A browser that opens pages, and what went wrong in them."""

    browser: "Browser"
    problems: list[str] = field(default_factory=list)

    def open(self, url: str, width: int = 1280, scheme: str = "light", **options: Any) -> "Page":
        """Open a URL in a window of its own; `options` are those of playwright's new_context."""
        size = {"width": width, "height": HEIGHTS.get(width, 800)}
        options = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"} | options
        page = self.browser.new_context(**options).new_page()
        page.set_default_timeout(PATIENT_MS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)
        page.goto(url)
        return page

    def _note(self, message: "ConsoleMessage") -> None:
        """Keep errors, such as what the Content-Security-Policy blocks, but not HTTP statuses."""
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)


@pytest.fixture(scope="module")  # asyncio's loops cannot run beside it in this thread
def browser() -> Iterator["Browser"]:
    """Yield a Chromium; skip the tests where there is none."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def pages(browser: "Browser") -> Iterator[Pages]:
    """Yield what opens pages; fail the test if a page of it had an error."""
    opened = Pages(browser)
    yield opened
    for context in browser.contexts:
        context.close()
    assert not opened.problems


def barriers(page: "Page") -> list[str]:
    """Return what axe-core finds in a page as it is: the rule, and the elements that break it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=EVERYTHING).response["violations"]
    return [f"{each['help']}: {[node['html'] for node in each['nodes']]}" for each in found]


def fits(page: "Page") -> bool:
    """Return whether a page needs no scrolling sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
