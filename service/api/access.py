"""Who is asking: with ``API_KEYS`` set, a key stands for a user, and reaches that user's memory only."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from domain.errors import OpmError
from domain.identity import DEFAULT_USER, check_id
from service.settings import ANY_USER


class AccessDenied(OpmError):
    """The caller may not do this. ``status`` is 401 for an unknown caller and 403 for one who reaches too far."""

    def __init__(self, message: str, *, status: int, code: str, param: str | None = None) -> None:
        self.status = status
        self.code = code
        self.param = param
        super().__init__(message)


def user_of(request: Request, named: str | None, field: str = "user") -> str:
    """Return the user whose memory a request is about: the one it names, the one its key stands for, or the default.

    Raises :class:`AccessDenied` for a key that is missing, unknown, or stands for somebody else, and
    :class:`InvalidInput` for a name that is no id.
    """
    owner = key_owner(request)
    asked = check_id(field, named) if named is not None else None
    if owner == ANY_USER:
        return asked or DEFAULT_USER
    if asked is not None and asked != owner:
        raise AccessDenied(
            f"this API key does not stand for the {field} it names", status=403, code="user_not_allowed", param=field
        )
    return owner


def key_owner(request: Request) -> str:
    """Return whom the request's key stands for: a user, or anybody, as it does where no keys are set.

    Raises :class:`AccessDenied` for a key that is missing or unknown.
    """
    keys = request.app.state.services.settings.api_keys
    if not keys:
        return ANY_USER
    owner = _owner({key.get_secret_value(): user for key, user in keys.items()}, request)
    if owner is None:
        raise AccessDenied(
            "send one of the service's API keys as `Authorization: Bearer KEY`", status=401, code="invalid_api_key"
        )
    return owner


class HostGuard:
    """Middleware: while no API keys are asked for, only requests to the service's own names are answered.

    A page of some other site can point a name of its own at this machine, and would then read a person's memory through
    their browser. The browser tells that name in the Host header.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = {host.lower() for host in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            name = re.sub(r":\d+$", "", host).lower()
            if name not in self._allowed and "*" not in self._allowed:
                raise AccessDenied(
                    f"the service is not called {name!r}: set ALLOWED_HOSTS, or API_KEYS",
                    status=403,
                    code="host_not_allowed",
                    param="host",
                )
        await self._app(scope, receive, send)


def _owner(keys: dict[str, str], request: Request) -> str | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    for key, user in keys.items():
        if secrets.compare_digest(key.encode(), given.strip().encode()):
            return user
    return None
