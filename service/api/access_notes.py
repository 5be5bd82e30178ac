"""Tell the access log of calls that were refused and, where it keeps them, of reads of what is kept about a person."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.clock import iso
from service.access_log import AccessEntry
from service.api.dependencies import client_named
from service.container import Services

_REFUSED = (401, 403)


class AccessNotes:
    """Middleware. It stands outside the one that gives requests their ids and turns errors into answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._note(scope, status)

    def _note(self, scope: Scope, status: int) -> None:
        services: Services | None = getattr(scope["app"].state, "services", None)
        if services is None or services.access_log.kept == "off":
            return
        state = scope["state"]
        reads = scope["method"] == "GET" and "user_id" in state and services.access_log.kept == "reads"
        if status not in _REFUSED and not reads:
            return
        route = scope.get("route")
        services.access_log.note(
            AccessEntry(
                at=iso(services.ledger.clock.now()),
                request_id=state["request_id"],
                actor=state.get("key_label"),
                client=client_named(dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")),
                route=f"{scope['method']} {route.path if route is not None else '(none)'}",
                status=status,
                user_id=state.get("user_id"),
            )
        )
