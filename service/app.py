"""``uvicorn service.app:app``: the HTTP service. ``python -m service`` starts the same on port 9000."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from domain.errors import OpmError
from domain.prompts import load_prompts
from domain.settings import load_settings
from service.api import chat, errors, health, history, memories
from service.api.access import HostGuard
from service.container import open_services
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

_ALLOCATIONS_PER_COLLECTION = 10_000
"""A turn makes some ten thousand objects and keeps few: to look through every 700, the default, takes a millisecond."""


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the application. Its parts are opened when it starts and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings) as services:
            app.state.services = services
            yield

    app = FastAPI(title="OpenPersistentMemory", version=version("openpersistentmemory"), lifespan=lifespan)
    errors.install(app)
    app.add_middleware(errors.BodyLimit, bytes_max=settings.request_bytes_max)
    if not settings.api_keys:
        app.add_middleware(HostGuard, allowed=settings.allowed_hosts)
    app.add_middleware(errors.RequestIds)
    app.add_middleware(errors.StartupErrors)
    for module in (chat, history, memories, health):
        app.include_router(module.router)
    return app


def _app_from_environment() -> FastAPI:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Their INFO lines name addresses and, on some failures, parts of what was sent.
    for noisy in ("httpx2", "httpcore2", "openai", "alembic", "faiss"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = load_settings(ServiceSettings)
        load_prompts(settings.prompts_dir)  # so that a bad one is a complaint about a setting, like the others
        app = create_app(settings)
    except OpmError as error:
        sys.exit(f"openpersistentmemory: {error}")
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    return app


def __getattr__(name: str) -> FastAPI:
    # `service.app:app` reads the environment; importing this module does not.
    if name == "app":
        return _app_from_environment()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
