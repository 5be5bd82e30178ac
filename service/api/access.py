"""Who is asking, and for whom: a key stands for one person, or for anybody whom its client names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jwt
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from domain.errors import InvalidInput, OpmError
from domain.identity import DEFAULT_USER, check_id, nothing_kept
from service.keys import ANYBODY, Caller, KeyRing
from service.settings import ANY_USER, BODY_SOURCES, SIGNED_SOURCE, ServiceSettings

_PORT = re.compile(r":\d+$")
_PROBES = ("/health", "/health/ready")
_CLOCKS_DIFFER_S = 30
"""How far two machines' clocks may be apart."""


class AccessDenied(OpmError):
    """The caller may not do this. ``status`` is 401 for an unknown caller and 403 for one who reaches too far.

    ``key_label`` names a key that was known once.
    """

    def __init__(
        self, message: str, *, status: int, code: str, param: str | None = None, key_label: str | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.param = param
        self.key_label = key_label
        super().__init__(message)


class Person(NamedTuple):
    """For whom a request is to be answered. ``conversation`` is what its ``user`` means where that is no person."""

    user_id: str
    conversation: str | None


def caller_of(keys: KeyRing, given: str | None) -> Caller:
    """Return whom a key stands for. Where no key is asked for, everybody may name any user.

    Raises :class:`AccessDenied` for a key that is missing, unknown, revoked or expired.
    """
    if not keys.required:
        return ANYBODY
    found = keys.find(given) if given is not None else None
    if found is None:
        raise _unknown("send one of the service's API keys as `Authorization: Bearer KEY`")
    if (why := keys.ended(found)) is not None:
        raise _unknown(f"this API key {why}: `opm keys create` makes another", found.caller.key_label)
    keys.used(found)
    return found.caller


def _unknown(message: str, key_label: str | None = None) -> AccessDenied:
    return AccessDenied(message, status=401, code="invalid_api_key", key_label=key_label)


class Asker:
    """Says whose memory a request is about, from its key and from what it names.

    A key that stands for one person decides, and whatever ``user`` says beside it is a label. Any other takes the first
    person named, in the order of ``USER_FROM``. ``kept`` is as for :func:`check_id`.
    """

    def __init__(
        self,
        caller: Caller,
        headers: Headers,
        keys: KeyRing,
        settings: ServiceSettings,
        kept: Callable[[str], bool] = nothing_kept,
    ) -> None:
        self.caller = caller
        self._headers = headers
        self._keys = keys
        self._sources = settings.user_from
        self._secret = settings.openwebui_jwt_secret
        self._kept = kept

    def user(self, named: object = None) -> str:
        """Return the user of a request about memory itself, whose ``user`` is always a person.

        Raises :class:`InvalidInput` for a name that is no id, and :class:`AccessDenied` for one whose signature fails.
        """
        return self._first_named({"user": named}) or DEFAULT_USER

    def named(self, user: object = None) -> str | None:
        """Return the user whom a request is restricted to, None for a caller who may ask about anybody and names none.

        Raises as :meth:`user` does.
        """
        return self._first_named({"user": user})

    def person(self, user: object = None, safety_identifier: object = None) -> Person:
        """Return for whom a request is to be answered, from these fields of its body. Raises as :meth:`user` does."""
        if self.caller.user_is == "conversation":
            found, conversation = self._first_named({}), as_named("user", user)
        else:
            body = {"user": user, "safety_identifier": safety_identifier}
            found, conversation = self._first_named(body), None
        if found is None:
            self._keys.names_nobody(self.caller)
        return Person(found or DEFAULT_USER, conversation)

    def _first_named(self, body: Mapping[str, object]) -> str | None:
        if self.caller.owner != ANY_USER:
            return check_id("API_KEYS", self.caller.owner, self._kept)
        for source in self._sources:
            named = as_named(source, body.get(source)) if source in BODY_SOURCES else self._forwarded(source)
            if named is not None:
                return check_id(source, named, self._kept)
        return None

    def _forwarded(self, header: str) -> str | None:
        """Return the person whom a header names, None where this caller's headers do not count."""
        if not self.caller.trusts_headers:
            return None
        values = {_text_of(value) for value in self._headers.getlist(header) if value.strip()}
        if len(values) > 1:
            raise InvalidInput(header, f"{len(values)} different values", "send the header once")
        value = next(iter(values), None)
        return subject_of(value, self._secret) if value is not None and header == SIGNED_SOURCE else value


def as_named(field: str, value: object) -> str | None:
    """Return the name that a client means, None for none: an empty text is none, and a number is its digits."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InvalidInput(field, value, "send a string")
    return value


def _text_of(header: str) -> str:
    """Return a header's text: most clients send UTF-8, which HTTP reads as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def subject_of(token: str, secret: SecretStr | None) -> str:
    """Return the user whom Open WebUI's signed header names. Raises :class:`AccessDenied` where it proves nobody."""
    if secret is None:
        raise _unproved(
            "it cannot be checked: set OPENWEBUI_JWT_SECRET to the FORWARD_USER_INFO_HEADER_JWT_SECRET of Open WebUI"
        )
    try:
        claims = jwt.decode(
            token,
            secret.get_secret_value(),
            algorithms=["HS256"],
            leeway=_CLOCKS_DIFFER_S,
            options={"require": ["exp", "sub"], "verify_aud": False},
        )
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
        raise _unproved("it is not of now: send a new one, and see that the clocks of both machines agree") from None
    except jwt.InvalidSignatureError:
        raise _unproved(
            "its signature is another's: OPENWEBUI_JWT_SECRET must be FORWARD_USER_INFO_HEADER_JWT_SECRET of Open WebUI"
        ) from None
    except jwt.InvalidTokenError:
        raise _unproved("it is no token of Open WebUI") from None
    return str(claims["sub"])


def _unproved(why: str) -> AccessDenied:
    return AccessDenied(
        f"{SIGNED_SOURCE} names a person, and {why}", status=401, code="invalid_user_token", param=SIGNED_SOURCE
    )


class AnonymousGuard:
    """Middleware: without keys only this machine is answered, under the service's own names, and no other website.

    Whoever may call without a key may read every memory. So nobody from elsewhere may (``ALLOW_ANONYMOUS`` lets them).
    Another site can point its own name at this machine (DNS rebinding), and the Host header gives that name away. And
    it can make a browser ask, which costs a call of a model or leaves a turn although the site cannot read the answer;
    browsers say where a request comes from, other programs do not, and are not asked. ``CORS_ORIGINS`` are welcome.

    Probes of health call nobody and tell nothing of a person: they are open to all.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._anywhere = settings.allow_anonymous
        self._names = {host.lower() for host in settings.allowed_hosts}
        self._origins = set(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["path"].rstrip("/") or "/") not in _PROBES:
            keys: KeyRing = scope["app"].state.services.keys
            if not keys.required:
                self._check(scope, Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        if not self._anywhere and not _is_local(scope):
            raise AccessDenied(
                "without keys only this machine is answered: make one (`opm keys create`), set API_KEYS, or set "
                "ALLOW_ANONYMOUS=1 if all who reach the service may read every memory",
                status=403,
                code="key_needed",
            )
        name = _PORT.sub("", headers.get("host", "")).lower()
        # No other site can have an address for a name.
        if "*" not in self._names and name not in self._names and not (self._anywhere and _is_address(name)):
            raise AccessDenied(
                f"the service is not called {name!r}: set ALLOWED_HOSTS, or use keys",
                status=403,
                code="host_not_allowed",
                param="host",
            )
        if self._is_another_site(headers, name):
            raise AccessDenied(
                "another website asks through a browser: open the address itself, name the site in CORS_ORIGINS, or "
                "use keys",
                status=403,
                code="cross_site_request",
            )

    def _is_another_site(self, headers: Headers, name: str) -> bool:
        origin = headers.get("origin", "").lower()
        if not origin:
            return headers.get("sec-fetch-site") == "cross-site"
        if origin in self._origins or "*" in self._origins:
            return False
        if origin != "null" and not origin.startswith(("http://", "https://")):
            return False  # a program or an extension that this person installed
        theirs = _PORT.sub("", origin.partition("://")[2])
        return theirs != name and not (is_loopback(theirs) and is_loopback(name))


def _is_local(scope: Scope) -> bool:
    """Tell whether both ends of a connection are on this machine; a Unix socket has no addresses."""
    ends: Iterable[tuple[str, int] | None] = (scope.get("client"), scope.get("server"))
    return all(end is None or end[1] is None or is_loopback(end[0]) for end in ends)


def is_loopback(name: str) -> bool:
    """Tell whether a host's name or address is this machine's own, which no other machine reaches."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
