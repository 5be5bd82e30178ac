"""What clients get slightly wrong and mean well: middlewares that read a request as it is meant."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_WITH_BODY = ("POST", "PUT", "PATCH")
_CONTENT_TYPE = b"content-type"
_BROWSERS = (b"origin", b"sec-fetch-site")
"""A browser says by one of these that a page asks; other programs send neither."""


class TrailingSlash:
    """Middleware: a path means the same with a slash at its end. A redirect would lose the body, or the key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/"):
            scope["path"] = scope["path"].rstrip("/") or "/"
        await self._app(scope, receive, send)


class JsonByDefault:
    """Middleware: a body of no stated type is JSON.

    Not where a browser asks: a page of another site may send a body without a type, but none as JSON, unless it was
    allowed to.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in _WITH_BODY:
            headers = {name: value.strip() for name, value in scope["headers"]}
            if not headers.get(_CONTENT_TYPE) and not any(name in headers for name in _BROWSERS):
                others = [header for header in scope["headers"] if header[0] != _CONTENT_TYPE]
                # Into the same scope: those who stand outside look there for the route.
                scope["headers"] = [*others, (_CONTENT_TYPE, b"application/json")]
        await self._app(scope, receive, send)
