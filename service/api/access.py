"""Who is asking: with ``API_KEYS`` set, a key stands for a user and reaches that user's memory only."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from domain.errors import OpmError
from domain.identity import DEFAULT_USER, check_id, nothing_kept
from service.settings import ANY_USER

_LABEL_SALT = b"openpersistentmemory: label of an API key"
_PROBES = ("/health", "/health/ready")
_PORT = re.compile(r":\d+$")


class AccessDenied(OpmError):
    """The caller may not do this. ``status`` is 401 for an unknown caller and 403 for one who reaches too far."""

    def __init__(self, message: str, *, status: int, code: str, param: str | None = None) -> None:
        self.status = status
        self.code = code
        self.param = param
        super().__init__(message)


class Caller(NamedTuple):
    """Whom a request's key stands for, one user or any user, and the label of that key; None where no keys are set."""

    owner: str
    key_label: str | None


@cache
def label_of(key: str) -> str:
    """Return a key's label, by which the ledger names it.

    Whoever reads labels may try to guess the keys, and people choose short ones: so a guess takes as long as this does,
    some 50 ms, and the result is kept.
    """
    derived = hashlib.scrypt(key.encode(), salt=_LABEL_SALT, n=2**14, r=8, p=1, dklen=4)
    return f"key:{derived.hex()}"


def caller_of(keys: Mapping[SecretStr, str], given: str | None) -> Caller:
    """Return whom a key stands for. Where no keys are set, everybody may name any user.

    Raises :class:`AccessDenied` for a key that is missing or unknown.
    """
    if not keys:
        return Caller(ANY_USER, None)
    if given is not None:
        for key, owner in keys.items():
            if secrets.compare_digest(key.get_secret_value().encode(), given.encode()):
                return Caller(owner, label_of(key.get_secret_value()))
    raise AccessDenied(
        "send one of the service's API keys as `Authorization: Bearer KEY`", status=401, code="invalid_api_key"
    )


def user_of(owner: str, named: str | None, kept: Callable[[str], bool] = nothing_kept) -> str:
    """Return the user whose memory a request is about: the one it names, its key's owner, or the default user.

    ``kept`` is as for :func:`check_id`.

    Raises :class:`AccessDenied` where the key does not stand for the named user, and :class:`InvalidInput` where the
    name is not a valid id.
    """
    asked = check_id("user", named, kept) if named is not None else None
    if owner == ANY_USER:
        return asked or DEFAULT_USER
    owner = check_id("API_KEYS", owner, kept)
    if asked is not None and asked != owner:
        raise AccessDenied(
            "this API key does not stand for the user it names", status=403, code="user_not_allowed", param="user"
        )
    return owner


class CrossSiteGuard:
    """Middleware: no GET that another website makes a browser send is worked for.

    The site cannot read the answer, but a call of a model costs all the same: an image's address is enough to start
    one. Browsers say where a request comes from; other programs do not, and are not asked. ``/health`` and
    ``/health/ready``, which call nobody, are open to all.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str] = ()) -> None:
        """``allowed`` are the origins whose pages may ask, see ``CORS_ORIGINS``."""
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and _works(scope["path"]):
            headers = dict(scope["headers"])
            origin = headers.get(b"origin", b"").decode("latin-1").lower()
            own = _PORT.sub("", headers.get(b"host", b"").decode("latin-1").lower())
            elsewhere = bool(origin) and _PORT.sub("", origin.partition("://")[2]) != own
            allowed = bool(origin) and not self._allowed.isdisjoint((origin, "*"))
            if not allowed and (elsewhere or headers.get(b"sec-fetch-site") == b"cross-site"):
                raise AccessDenied(
                    "another website asks through a browser: open the address itself, or ask without a browser",
                    status=403,
                    code="cross_site_request",
                )
        await self._app(scope, receive, send)


def _works(path: str) -> bool:
    return path.startswith(("/v1/", "/health/")) and path != "/health/ready"


class HostGuard:
    """Middleware: without API keys, only requests to the service's own host names are answered.

    Another site can point its own name at this machine (DNS rebinding) and read a person's memory through their
    browser. The Host header gives that name away. ``/health`` and ``/health/ready`` tell of nobody, and probes ask by
    an address.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = {host.lower() for host in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self._allowed and scope["path"] not in _PROBES:
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            name = _PORT.sub("", host).lower()
            if name not in self._allowed:
                raise AccessDenied(
                    f"the service is not called {name!r}: set ALLOWED_HOSTS, or API_KEYS",
                    status=403,
                    code="host_not_allowed",
                    param="host",
                )
        await self._app(scope, receive, send)
