"""What the page started as the README says lets in and out: nobody from other machines, no requests to other hosts."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.sync_api import expect

from tests.frontend.chat_browser import ChatBrowser, chromium, required_chromium, running_page
from tests.frontend.scripted_backend import ScriptedBackend

CONNECT_S = 5.0
EVERYWHERE = '[server]\naddress = "0.0.0.0"\n'

# Ways to write an image, or something else that a browser loads by itself, round a filter; URL is the foreign host.
HOSTILE = (
    "![a](URL)",
    "\\![a](URL)",
    "\\\\![a](URL)",
    "\\\\\\![a](URL)",
    "![a][ref]\n\n[ref]: URL",
    "![ref]\n\n[ref]: URL",
    "![a](<URL>)",
    '![a](URL "title")',
    "![a\nb](URL)",
    "![](URL)",
    "!\\[a](URL) ![b](URL)",
    "[![a](URL)](URL)",
    "> ![a](URL)",
    "| a |\n|---|\n| ![a](URL) |",
    "# ![a](URL)",
    "a ` b\n\n![a](URL)\n\nc ` d",
    "a `` b\n\n![a](URL)\n\nc `` d",
    "```\n\nx\n   ```x\n```\n![a](URL)",
    "- a\n\n  ```\n  x\n  ```\n\n  ![a](URL)\n\n```\n",
    "- ```\n  x\n- ![a](URL)\n  ```",
    "> ```\n![a](URL)\n> ```",
    "~~~ a ~~~\n~~~\n![a](URL)",
    "\\`![a](URL)\\`",
    "\\```\n![a](URL)\n\\```",
    "    code\n\n![a](URL)",
    '<img src="URL">',
    "<svg><image href='URL'/></svg>",
    '<div style="background: url(URL)">x</div>',
    "<style>body { background: url(URL) }</style>",
    "<style>@import url(URL);</style>",
    '<link rel="prefetch" href="URL"><link rel="stylesheet" href="URL">',
    '<iframe src="URL"></iframe><object data="URL"></object><embed src="URL">',
    '<video poster="URL" src="URL" autoplay></video><audio src="URL" autoplay></audio>',
    '<script src="URL"></script><body onload="fetch(\'URL\')">',
    '<meta http-equiv="refresh" content="0; url=URL">',
    "$$\\includegraphics{URL}$$ $\\href{URL}{x}$",
    "&#33;[a](URL) !&#91;a](URL)",
    "x[^1]\n\n[^1]: ![a](URL)",
)


class ForeignHost:
    """A web server of somebody else; ``asked`` has each request's path and the address it says it comes from."""

    def __init__(self) -> None:
        asked: list[tuple[str, str | None]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, self.headers["referer"]))
                self.send_response(200)
                self.send_header("content-type", "image/svg+xml")
                self.end_headers()
                self.wfile.write(b'<svg xmlns="http://www.w3.org/2000/svg"/>')

            def log_message(self, *_: object) -> None:
                pass

        self.asked = asked
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def foreign() -> Iterator[ForeignHost]:
    host = ForeignHost()
    thread = Thread(target=host.server.serve_forever)
    thread.start()
    yield host
    host.server.shutdown()
    thread.join()
    host.server.server_close()


def other_addresses() -> set[str]:
    """Addresses of this machine other than the one that everybody calls loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: an address kept for examples
        except OSError:
            return {"127.0.0.2"}
        return {"127.0.0.2", probe.getsockname()[0]}


@pytest.mark.parametrize("folder_says", ["", EVERYWHERE])
def test_it_listens_on_loopback_from_whichever_folder(
    backend: ScriptedBackend, tmp_path: Path, folder_says: str
) -> None:
    if folder_says:
        (tmp_path / ".streamlit").mkdir()
        (tmp_path / ".streamlit" / "config.toml").write_text(folder_says)
    with running_page(backend.url, tmp_path / "streamlit.log") as url:
        port = urlsplit(url).port
        assert port is not None
        for address in other_addresses():
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, port), CONNECT_S)
        assert _handshake(url, "localhost") == 101
        # A name that its owner has let point to this machine.
        assert _handshake(url, "rebound.example") == 403


@pytest.mark.browser
def test_the_page_itself_needs_no_other_host(backend: ScriptedBackend, tmp_path: Path) -> None:
    with (
        running_page(backend.url, tmp_path / "streamlit.log") as url,
        chromium(required_chromium()) as browser,
    ):
        page = browser.new_page()
        asked: set[str] = set()
        complaints: list[str] = []
        page.on("request", lambda request: asked.add(request.url.partition("?")[0]))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        chat = ChatBrowser(page, f"{url}/?user=ada")
        chat.ask("It is $5, or $x^2$.")
        chat.wait_for_answer(0)
        expect(page.locator("link[rel~=icon]")).to_have_attribute("href", re.compile(r"^data:image/svg"))
        own = urlsplit(url).netloc
        assert {urlsplit(address).netloc for address in asked if not address.startswith(("data:", "blob:"))} == {own}
        assert complaints == []


@pytest.mark.browser
def test_no_answer_makes_the_browser_ask_another_host(
    backend: ScriptedBackend, foreign: ForeignHost, tmp_path: Path
) -> None:
    for number, written in enumerate(HOSTILE):
        backend.remember("ada", "images", f"Question {number}", written.replace("URL", f"{foreign.url}/{number}"))
    # Streamed, piece by piece, it is drawn many times, half written.
    backend.pieces = ["\\", "\\!", "[a]", f"({foreign.url}/live)", f" and [a link]({foreign.url}/link)"]
    with (
        running_page(backend.url, tmp_path / "streamlit.log") as url,
        chromium(required_chromium()) as browser,
    ):
        chat = ChatBrowser(browser.new_page(), f"{url}/?user=ada&conversation=images")
        expect(chat.answers).to_have_count(len(HOSTILE))
        chat.ask("And live")
        answer = chat.wait_for_answer(len(HOSTILE))
        # Otherwise nothing here would get past the page's Markdown, and the policy would not be tested.
        assert chat.page.evaluate("[...document.images].filter(image => image.src.startsWith('http')).length") > 0
        chat.page.wait_for_function("[...document.images].every(image => image.complete)")
        assert foreign.asked == []
        with chat.page.expect_popup() as opened:
            answer.get_by_role("link", name="a link").click()
        opened.value.wait_for_load_state()
        assert [asked for asked in foreign.asked if asked[0] != "/favicon.ico"] == [("/link", None)]


def _handshake(url: str, host: str) -> int:
    """The status with which the page's WebSocket answers a browser that calls it by this name."""
    port = urlsplit(url).port
    headers = {
        "host": f"{host}:{port}",
        "origin": f"http://{host}:{port}",
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with httpx2.stream("GET", f"{url}/_stcore/stream", headers=headers, trust_env=False) as response:
        return response.status_code
