"""The page of `whisper-max demo`, served by a process of its own and used in a real Chromium."""

from __future__ import annotations

import json
import re
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from compat_tests.demo.browser import SCREENSHOT, SECONDS, browser
from compat_tests.demo.serving import running
from compat_tests.support.recordings import audio_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a page with float32 alone, for recordings of a minute and 1 MB."""
    uploads = tmp_path_factory.mktemp("temporary")
    with running(uploads, "--max-minutes", "1", "--max-upload-mb", "1") as (_, port):
        yield f"http://127.0.0.1:{port}/"
    assert not list(uploads.glob("whisper-max-demo-*")), "uploads do not outlive the server"


@pytest.fixture
def contexts(chromium: str, tmp_path: Path) -> Iterator[list[BrowserContext]]:
    """Two visitors: browsers with nothing in common."""
    with sync_playwright() as playwright:
        opened = [browser(playwright, chromium, tmp_path / name, 1200) for name in ("one", "other")]
        yield opened
        for context in opened:
            context.close()


def _open(context: BrowserContext, server: str) -> Page:
    page = context.pages[0]
    page.goto(server)
    expect(page.locator("#compare")).to_be_visible()
    return page


def _upload(page: Page, file: Path, says: str | re.Pattern[str]) -> None:
    """Choose a file, in the place of another if there is one, and wait for what the page says."""
    clear = page.locator("#recording button[aria-label='Clear']")
    if clear.count():
        clear.first.click()
    page.locator("#recording input[type=file]").set_input_files(file)
    expect(page.locator("#status")).to_contain_text(says)


def _compare_in_vain(page: Page, says: str) -> None:
    """Press Compare for a file that is refused, and load the page anew.

    The page says the same before the answer and after it. A late answer would stand where that to
    the next file should.
    """
    with page.expect_response(lambda response: "queue/join" in response.url):
        page.locator("#compare").click()
    expect(page.locator("#status")).to_contain_text(says)
    page.reload()
    expect(page.locator("#compare")).to_be_visible()


def _figure(page: Page, side: str, name: str) -> str:
    return page.locator(f'[data-side="{side}"] [data-figure="{name}"]').inner_text()


def _number(text: str) -> float:
    return float(text.split()[0])


def _silence(path: Path, seconds: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes([128]) * int(seconds * 8000))
    return path


def _status_code(context: BrowserContext, address: str) -> int:
    return context.request.get(address).status


def test_two_backends_agree_and_visitors_are_apart(
    contexts: list[BrowserContext], server: str
) -> None:
    """The whole way of a visitor; another one sees nothing of it."""
    page = _open(contexts[0], server)
    foreign: list[str] = []
    page.on("request", lambda asked: foreign.append(asked.url))
    _upload(page, audio_file("jfk.flac"), "jfk.flac, 11.0 s")
    page.locator("#compare").click()
    expect(page.locator("#status")).to_contain_text("Done")
    sides = ("ctranslate2 · float32", "max · float32")
    shown = [page.locator(f'[data-side="{side}"] .text') for side in sides]
    for one in shown:  # a part of the page of its own, which may come after the status
        expect(one).to_contain_text("ask not what your country can do for you")
    texts = [one.inner_text() for one in shown]
    assert texts[0] == texts[1]
    for side in sides:
        assert 0 < _number(_figure(page, side, "RTF")) < 20
        assert 20 < _number(_figure(page, side, "memory")) < 4000
        assert _number(_figure(page, side, "CPU")) > 0
    assert _figure(page, sides[0], "speed-up") == "1.00 ×"
    assert _number(_figure(page, sides[1], "differing")) == 0
    expect(page.locator("#plots svg")).to_have_count(5)

    rows = page.locator("#history tbody tr")
    expect(rows).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    exported = json.loads(download.value.path().read_text())
    assert [record["text"] for record in exported] == texts
    assert {record["compute_type"] for record in exported} == {"float32"}
    assert not [url for url in foreign if not url.startswith((server, "data:", "blob:"))]

    if SCREENSHOT:
        page.set_viewport_size({"width": 1100, "height": 1200})
        page.wait_for_timeout(1.5 * SECONDS)
        page.screenshot(path=SCREENSHOT, full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    address = next(url for url in foreign if "file=" in url)
    assert "jfk.flac" in address
    assert _status_code(contexts[0], address) == 200
    other = _open(contexts[1], server)
    assert _status_code(contexts[1], address) == 404
    assert _status_code(contexts[1], f"{server}gradio_api/file={quote('/etc/passwd')}") == 404
    assert "country" not in other.content()
    expect(other.locator("#history tbody tr")).to_have_count(0)

    page.goto("about:blank")
    for _ in range(100):
        if _status_code(contexts[0], address) != 200:
            break
        time.sleep(0.1)
    assert _status_code(contexts[0], address) == 404, "the upload goes when the page is closed"


def test_bad_files_and_stopping(
    contexts: list[BrowserContext], server: str, tmp_path: Path
) -> None:
    """Each gets a message, and the page goes on."""
    page = _open(contexts[0], server)
    page.locator("#compare").click()
    expect(page.locator("#status")).to_contain_text("There is no recording yet")
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"this is no sound" * 100)
    _upload(page, noise, "cannot be read as audio")
    _compare_in_vain(page, "cannot be read as audio")
    _upload(page, _silence(tmp_path / "long.wav", 70), "at most 1 min are taken")
    _compare_in_vain(page, "at most 1 min are taken")
    page.locator("#recording input[type=file]").set_input_files(
        _silence(tmp_path / "large.wav", 200)
    )
    expect(page.locator("body")).to_contain_text(re.compile("maximum", re.I))

    page.reload()
    expect(page.locator("#compare")).to_be_visible()
    _upload(page, audio_file("alice.opus"), "alice.opus")
    other = _open(contexts[1], server)
    other.locator("#sample").click()
    expect(other.locator("#status")).to_contain_text("jfk.flac")
    page.locator("#compare").click()
    expect(page.locator("#stop")).to_be_enabled()
    other.locator("#compare").click()
    expect(other.locator("#status")).to_contain_text("before yours")
    page.locator("#stop").click()
    expect(page.locator("#status")).to_contain_text("Stopped")
    expect(page.locator("#compare")).to_be_enabled()
    expect(other.locator("#status")).to_contain_text("Done")
