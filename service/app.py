"""The HTTP service, for ``uvicorn service.app:app`` and ``python -m service``."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from domain.errors import OpmError
from domain.prompts import load_prompts
from domain.settings import load_settings
from service.api import chat, docs, errors, health, history, memories, models, passed_through, responses_api
from service.api.access import AnonymousGuard
from service.api.access_notes import AccessNotes
from service.api.lenient import JsonByDefault, TrailingSlash
from service.api.responses import ERRORS, ChatCompletionChunk
from service.api.slow_requests import LIMITS, BodyDeadline, RequestLimits, allowed_connections
from service.container import open_services
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

_ALLOCATIONS_PER_COLLECTION = 10_000
"""A turn makes thousands of objects and keeps few, so that collecting at the default of 700 is mostly wasted work."""


_CORS_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
_CORS_EXPOSED = ("X-Request-Id", "Retry-After", "*")
"""A browser reads ``*`` as every header while no cookies are sent, and this service takes none."""


class _App(FastAPI):
    """Describes the chunks of a stream too: FastAPI knows one model for each status."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = super().openapi()
        chunk = ChatCompletionChunk.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= chunk.pop("$defs") | {ChatCompletionChunk.__name__: chunk}
        return document


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the application, which opens the services when it starts and closes them when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        connections = allowed_connections(settings.connections_max)
        async with open_services(settings) as services:
            app.state.services = services
            yield {LIMITS: RequestLimits(settings.request_timeout_s, connections)}

    app = _App(
        title="OpenPersistentMemory",
        version=version("openpersistentmemory"),
        lifespan=lifespan,
        openapi_url=None,  # FastAPI's own would answer without a key: `docs` does it
        redirect_slashes=False,
    )
    errors.install(app)
    app.add_middleware(errors.BodyLimit, bytes_max=settings.request_bytes_max)
    app.add_middleware(BodyDeadline, seconds=settings.request_timeout_s)
    app.add_middleware(JsonByDefault)
    app.add_middleware(AnonymousGuard, settings=settings)
    app.add_middleware(errors.RequestIds)
    app.add_middleware(AccessNotes)
    app.add_middleware(TrailingSlash)
    if settings.cors_origins:
        # Outside of what refuses, so that a page is told the reason.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=_CORS_METHODS,
            allow_headers=["*"],
            expose_headers=_CORS_EXPOSED,
            allow_private_network=True,
        )
    app.add_middleware(errors.StartupErrors)
    for module in (chat, responses_api, models, passed_through, history, memories, health, docs):
        app.include_router(module.router, responses=ERRORS)
    return app


def _app_from_environment() -> FastAPI:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _keep_addresses_out_of_the_log()
    # Their INFO lines name addresses, and on some failures quote what was sent.
    for noisy in ("httpx2", "httpcore2", "openai", "alembic", "faiss"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = load_settings(ServiceSettings)
        load_prompts(settings.prompts_dir)  # report a bad prompt like a bad setting
        app = create_app(settings)
    except OpmError as error:
        sys.exit(f"openpersistentmemory: {error}")
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    return app


def _keep_addresses_out_of_the_log() -> None:
    """Silence uvicorn where it writes whole addresses: their queries name users. `RequestIds` logs each request."""
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False
    # A refused WebSocket is not an access to it.
    logging.getLogger("uvicorn.error").addFilter(lambda record: '"WebSocket ' not in str(record.msg))


def __getattr__(name: str) -> FastAPI:
    # `service.app:app` reads the environment; importing this module does not.
    if name == "app":
        return _app_from_environment()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
