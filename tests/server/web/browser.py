"""A real browser, when there is one: Chromium by its usual names, driven by Playwright, allowed to see nothing but this machine."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SKIPPED = "no Chromium on this machine (looked for chromium, chromium-browser and google-chrome)"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=SKIPPED)


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


def watched_page(chromium: Browser, complaints: list[str], *, dark: bool = False, phone: bool = False) -> Page:
    """A new page; whatever it complains of, and whatever it asks of another host, is put into `complaints`."""
    size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 860}
    page = chromium.new_context(viewport=size, color_scheme="dark" if dark else "light", has_touch=phone).new_page()  # type: ignore[arg-type]
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if "//127.0.0.1:" in request.url or request.url.startswith("data:") else complaints.append(request.url),
    )
    page.set_default_timeout(15_000)
    return page
