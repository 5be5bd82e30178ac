"""The page in a real browser, whatever service is behind it.

`running_page(backend_url)` starts Streamlit as a user does; `chromium()` starts a browser; `ChatBrowser` does
with the page what a person does, by the names a person sees (in English).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
NO_CHROMIUM = (
    "no Chromium: `apt-get install chromium` (Debian) or `playwright install chromium`, or set CHROMIUM_PATH to one"
)
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Nothing but the page: no updates, no sync, no calls home.
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)
# Ten frames, since what a click sets moving does not move at once. What moves for ever is a sign of work going on.
UNTIL_NOTHING_MOVES = """() => new Promise(resolve => {
    let stillFrames = 0;
    const look = () => {
        const moves = document.getAnimations().some(
            it => it.playState === 'running' && it.effect.getComputedTiming().endTime !== Infinity);
        stillFrames = moves ? 0 : stillFrames + 1;
        if (stillFrames < 10) requestAnimationFrame(look); else resolve();
    };
    look();
})"""
# For a page that hangs; a small model behind it, on a busy machine, may take most of it.
PATIENCE_S = 120.0


def chromium_path() -> str | None:
    """Where a Chromium is: `CHROMIUM_PATH`, the system's, or playwright's own; None if there is none."""
    found = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found:
        return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def required_chromium() -> str:
    """Return `chromium_path()`; without a Chromium, skip the test, or fail it where `CI=true`.

    A developer may have none. In CI a skip would hide that the page was never drawn.
    """
    path = chromium_path()
    if path is not None:
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(NO_CHROMIUM)
    pytest.skip(NO_CHROMIUM)


@contextmanager
def chromium(executable_path: str) -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable_path, args=list(CHROMIUM_ARGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def running_page(backend_url: str, log: Path) -> Iterator[str]:
    """Run `streamlit run frontend/app.py` before this service, as the README says; gives the page's address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "frontend" / "app.py")]
    options = ["--server.port", str(port), "--server.headless", "true"]
    # Not from the repository's folder: the page must find its package and its settings from anywhere.
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            cwd=log.parent,
            env=os.environ | {"BACKEND_URL": backend_url},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


class ChatBrowser:
    """A tab with the chat page open."""

    def __init__(self, page: Page, url: str) -> None:
        page.set_default_timeout(PATIENCE_S * 1000)
        expect.set_options(timeout=PATIENCE_S * 1000)
        self.page = page
        page.goto(url)
        expect(self.box).to_be_visible()

    @property
    def box(self) -> Locator:
        """The message box."""
        return self.page.get_by_test_id("stChatInputTextArea")

    @property
    def questions(self) -> Locator:
        """The person's messages."""
        return self.page.get_by_label("Chat message from user")

    @property
    def answers(self) -> Locator:
        """The assistant's messages, each with what is under it."""
        return self.page.get_by_label("Chat message from assistant")

    def button(self, name: str) -> Locator:
        """A button by the words on it."""
        return self.page.get_by_role("button", name=name)

    def unfold(self, header: Locator) -> None:
        """Click the header of what is folded up, and wait until it has stopped moving: a click meanwhile would miss."""
        header.click()
        self.page.evaluate(UNTIL_NOTHING_MOVES)

    def ask(self, text: str) -> None:
        """Type a message and send it."""
        expect(self.box).to_be_enabled()
        self.box.fill(text)
        self.box.press("Enter")

    def wait_for_answer(self, number: int) -> Locator:
        """The answer of this number (from 0), once it has ended."""
        expect(self.answers).to_have_count(number + 1)
        expect(self.button("Stop")).to_have_count(0)
        return self.answers.nth(number)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"streamlit ended with {process.returncode} before it served {url}")
        try:
            if httpx2.get(f"{url}/_stcore/health", trust_env=False).status_code == httpx2.codes.OK:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    raise TimeoutError(f"streamlit did not serve {url} within {PATIENCE_S:.0f} s")
