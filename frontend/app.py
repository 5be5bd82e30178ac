"""The chat page as a program: `streamlit run frontend/app.py` serves what `frontend/page.py` draws.

What a browser may load is said here, in a header, and not by looking through answers. A model under prompt injection
can leak a memory in the address of an image, and there are more ways to write one in Markdown than can be found in its
text; the browser asks no host but this one, however it is written. Links stay: somebody has to click them.
"""

from __future__ import annotations

from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.starlette import App

POLICY = "; ".join(
    (
        "default-src 'self'",
        # Streamlit writes styles and a script of its own into the page, and compiles WebAssembly to draw some elements.
        "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    # The page's address names the user and the conversation.
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class PolicyHeaders:
    """Middleware: every answer tells the browser what the page may load."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_policy)


app = App(Path(__file__).with_name("page.py"), middleware=[Middleware(PolicyHeaders)])
