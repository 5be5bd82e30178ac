"""Errors in OpenAI's shape, and the request id that finds each of them in the log; the middlewares for both."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.errors import (
    InvalidInput,
    LedgerError,
    OpmError,
    UnknownMemory,
    UnknownModel,
    UnknownResponse,
    UpstreamError,
    shown,
)
from service.api.access import AccessDenied
from service.api.responses import ErrorAnswer
from service.turn_recorder import STOPPED

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,80}")


def error_body(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> ErrorAnswer:
    """Return an error as OpenAI clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def service_stopped() -> ErrorAnswer:
    """Return what a client is told whose request the end of the service cut off."""
    return error_body("the service was stopped: ask again", kind="server_error", code=STOPPED)


def body_of(error: Exception) -> tuple[int, ErrorAnswer, dict[str, str]]:
    """Return the status, body and headers that tell a client about ``error``, and nothing internal."""
    if isinstance(error, InvalidInput):
        return 400, error_body(str(error), kind="invalid_request_error", param=error.field, code="invalid_value"), {}
    if isinstance(error, UpstreamError):
        kind = {400: "invalid_request_error", 429: "rate_limit_error"}.get(error.status, "upstream_error")
        headers = {"retry-after": f"{error.retry_after_s:.0f}"} if error.retry_after_s is not None else {}
        return error.status, error_body(str(error), kind=kind, code=error.code), headers
    if isinstance(error, AccessDenied):
        kind = "authentication_error" if error.status == 401 else "permission_error"
        return error.status, error_body(str(error), kind=kind, param=error.param, code=error.code), {}
    if isinstance(error, UnknownMemory):
        body = error_body(str(error), kind="invalid_request_error", param="memory_id", code="memory_not_found")
        return 404, body, {}
    if isinstance(error, UnknownModel):
        return 404, error_body(str(error), kind="invalid_request_error", param="model", code="model_not_found"), {}
    if isinstance(error, UnknownResponse):
        previous = error.field == "previous_response_id"
        code = "previous_response_not_found" if previous else "response_not_found"
        status = 400 if previous else 404
        return status, error_body(str(error), kind="invalid_request_error", param=error.field, code=code), {}
    if isinstance(error, LedgerError):
        return 503, error_body(str(error), kind="server_error", code="ledger_unavailable"), {}
    if isinstance(error, OpmError):
        return 503, error_body(str(error), kind="server_error", code="unavailable"), {}
    message = "an internal error; the log has it under the id in the x-request-id header"
    return 500, error_body(message, kind="server_error", code="internal_error"), {}


def log_error(error: Exception, request_id: str) -> None:
    """Log what an operator needs: where an unexpected error came from, and never a person's text."""
    if isinstance(error, InvalidInput):
        log.info("request %s: refused, %s", request_id, error.field)
    elif isinstance(error, UnknownMemory):
        log.info("request %s: refused, no such memory", request_id)
    elif isinstance(error, UnknownModel):
        log.info("request %s: refused, no such model", request_id)
    elif isinstance(error, UnknownResponse):
        log.info("request %s: refused, no such response", request_id)
    elif isinstance(error, UpstreamError):
        log.warning("request %s: %s (%d)", request_id, error.code, error.status)
    elif isinstance(error, OpmError):
        log.warning("request %s: %s", request_id, error)
    else:
        log.error("request %s: %s\n%s", request_id, type(error).__name__, _frames(error))


def _frames(error: BaseException) -> str:
    """Return the places of a traceback, without the message, which may quote a person."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"  {code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return "\n".join(lines)


class RequestIds:
    """Middleware: each request has an id, from the client or made here, and each answer carries it.

    The log gets a line for each answer, with the route instead of the address: a query names the user, and a mistyped
    path may be anything. Unexpected errors end here: the log gets the places of the traceback, the client gets the id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID.encode(), b"").decode("latin-1")
        request_id = given if _GIVEN_ID.fullmatch(given) else f"req-{uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                route = getattr(scope.get("route"), "path", "(no such route)")
                log.info("request %s: %s %s %d", request_id, scope["method"], route, message["status"])
                message["headers"] = [*message["headers"], (REQUEST_ID.encode(), request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # Only a server that stops cancels a request, and would log the whole traceback of it.
            log.warning("request %s: cut off, the service was stopped", request_id)
            if not begun:
                await JSONResponse(service_stopped(), 503)(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - the outermost loop of a request
            log_error(error, request_id)
            if not begun:
                status, body, headers = body_of(error)
                await JSONResponse(body, status, headers=headers)(scope, receive, send_with_id)


class StartupErrors:
    """Middleware: a known error at the start is one line in the log instead of a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def plain(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, OpmError):
                message["message"] = f"openpersistentmemory: {error}"
            await send(message)

        await self._app(scope, receive, plain if scope["type"] == "lifespan" else send)


class BodyLimit:
    """Middleware: refuse a body larger than ``bytes_max`` before it is in memory."""

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._bytes_max:
                # FastAPI hides every error but an HTTPException while it reads a body.
                raise HTTPException(413, f"the body has more than {self._bytes_max} bytes: send less")
            return message

        await self._app(scope, limited, send)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` in OpenAI's shape."""

    @app.exception_handler(OpmError)
    async def _own(request: Request, error: OpmError) -> JSONResponse:
        return _respond(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _respond(request, _as_invalid_input(error.errors()))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        log.info("request %s: refused with %d", request.state.request_id, error.status_code)
        message = f"{request.method} {request.url.path}: {error.detail}"
        body = error_body(message, kind="invalid_request_error", code=f"http_{error.status_code}")
        return JSONResponse(body, error.status_code, headers=dict(error.headers or {}))


def _respond(request: Request, error: Exception) -> JSONResponse:
    log_error(error, request.state.request_id)
    status, body, headers = body_of(error)
    return JSONResponse(body, status, headers=headers)


def _as_invalid_input(errors: Sequence[Any]) -> InvalidInput:
    first = errors[0]
    path = [str(part) for part in first["loc"] if part not in {"body", "query"}]
    if first["type"] == "json_invalid":
        return InvalidInput("body", "not JSON", f"send a JSON object ({first['ctx']['error']})")
    if not path:
        return InvalidInput("body", "no JSON object", "send one, with the header Content-Type: application/json")
    field = ".".join(path)
    fix = str(first["msg"]).removeprefix("Value error, ")
    value = first["input"] if path and first["type"] != "missing" else "(missing)"
    # A whole object would make a long message in which nobody recognises the value.
    if isinstance(value, dict | list):
        value = f"{type(value).__name__} with {len(value)} entries"
    return InvalidInput(field, value, fix[:1].lower() + fix[1:] if shown(value) else fix)
