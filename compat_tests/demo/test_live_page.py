"""The tab Live of `whisper-max demo` in a real Chromium, whose microphone plays a recording."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from compat_tests.demo.browser import SCREENSHOT, SECONDS, browser
from compat_tests.demo.serving import kept, running
from compat_tests.support.recordings import SAMPLING_RATE, load, write_wav

END = "what you can do for your country"

pytestmark = pytest.mark.slow

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(chromium: str, temporary: Path) -> Iterator[str]:
    """Address of a page where one visitor may speak."""
    with running(temporary, "--max-speakers", "1") as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def visit(chromium: str, server: str, tmp_path: Path) -> Iterator[Visit]:
    """The tab Live in a browser of its own, with a microphone or without."""
    recording = tmp_path / "recording.wav"
    write_wav(recording, np.concatenate([load("jfk"), np.zeros(3 * SAMPLING_RATE, np.float32)]))
    with_microphone = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}%noloop",
    )
    opened: list[BrowserContext] = []
    with sync_playwright() as playwright:

        def visited(microphone: bool = True) -> Page:
            flags = with_microphone if microphone else ()
            context = browser(playwright, chromium, tmp_path / str(len(opened)), 640, *flags)
            opened.append(context)
            page = context.pages[0]
            page.goto(server)
            page.get_by_role("tab", name="Live").click()
            return page

        yield visited
        for context in opened:
            context.close()


def press(page: Page, name: str) -> None:
    page.locator("#microphone").get_by_role("button", name=name).click()


def load_model(page: Page) -> None:
    """Speak for the first time."""
    press(page, "Start")
    expect(page.locator("#words .committed")).to_contain_text(re.compile(r"\w+"))
    press(page, "Stop")
    expect(page.locator("#live-status")).to_contain_text("Done.")


def test_words_come_while_a_visitor_speaks(visit: Visit, server: str, temporary: Path) -> None:
    load_model(visit())
    page = visit()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    committed, tentative = page.locator("#words .committed"), page.locator("#words .tentative")
    press(page, "Start")
    expect(committed).to_contain_text(re.compile(r"\w+"))
    text = committed.inner_text()
    dimmed = ""
    began = time.monotonic()
    while END not in text:
        assert time.monotonic() - began < 120, page.locator("#live").inner_text()
        page.wait_for_timeout(0.2 * SECONDS)
        before, text = text, committed.inner_text()
        assert text.startswith(before), "committed words stay"
        if len(text) > 50 and len(tentative.inner_text()) > len(dimmed):
            dimmed = tentative.inner_text()
            if SCREENSHOT:
                page.screenshot(path=Path(SCREENSHOT).with_name("demo-live.png"))
    assert dimmed
    opacity = "element => getComputedStyle(element).opacity"
    assert float(tentative.evaluate(opacity)) < float(committed.evaluate(opacity))
    expect(page.locator("#live-status")).to_contain_text(
        re.compile(r"\d+ s heard, \d\.\d s behind")
    )
    expect(page.locator("#delays svg")).to_have_count(1)
    press(page, "Stop")
    expect(page.locator("#live-status")).to_contain_text("Done.")
    expect(committed).to_contain_text(text)
    expect(page.locator("#microphone .start")).to_be_enabled()
    assert not [url for url in asked if not url.startswith((server, "data:", "blob:"))]
    assert not [url for url in asked if "upload" in url]
    assert not kept(temporary)

    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")
    press(page, "Clear")
    expect(committed).to_have_count(0)


def test_one_speaks_and_another_waits_for_room(visit: Visit) -> None:
    page, other = visit(), visit()
    press(page, "Start")
    expect(page.locator("#live-status")).to_contain_text("heard")
    press(other, "Start")
    status = other.locator("#live-status")
    expect(status).to_contain_text("No more than 1 may speak")
    expect(other.locator("#microphone .start")).to_be_enabled()
    page.goto("about:blank")
    other.wait_for_timeout(2 * SECONDS)
    press(other, "Start")
    expect(status).to_contain_text("heard")


def test_no_microphone_is_told(visit: Visit) -> None:
    page = visit(microphone=False)
    press(page, "Start")
    expect(page.locator("#microphone [role=alert]")).to_contain_text("There is no microphone")
    expect(page.locator("#microphone .start")).to_be_enabled()
