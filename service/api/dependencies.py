"""What a handler asks FastAPI for: the parts of the service, and whose memory a request is about."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from domain.origin import Origin
from service.api.access import AccessDenied, Asker, caller_of
from service.container import Services
from service.keys import Caller

_CLIENT_CHARS_MAX = 200
_API_KEY = HTTPBearer(auto_error=False, description="A key; none is needed while there are no keys.")
_READS = ("GET", "HEAD")
RECALLS = frozenset({"/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions"})
"""Routes that record nothing for a key that may only read."""


# All of these are `async`, since FastAPI hands a plain function to a thread.
async def services_of(request: Request) -> Services:
    """Return the parts of the running service."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def key_caller(
    request: Request, services: ServicesDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_API_KEY)]
) -> Caller:
    """Return whom the request's key stands for.

    Raises :class:`AccessDenied` for a missing or unknown key, and for one that may not write where this would.
    """
    # The label is for the access log, which stands outside.
    try:
        caller = caller_of(services.keys, given.credentials.strip() if given is not None else None)
    except AccessDenied as denied:
        request.state.key_label = denied.key_label
        raise
    request.state.key_label = caller.key_label
    if caller.read_only and request.method not in _READS and request.scope["route"].path not in RECALLS:
        raise AccessDenied(
            "this API key may read and recall, and change nothing: use one that was made without --read-only",
            status=403,
            code="read_only_key",
        )
    return caller


CallerDep = Annotated[Caller, Depends(key_caller)]


async def asker_of(request: Request, services: ServicesDep, caller: CallerDep) -> Asker:
    """Return what says whose memory the request is about."""
    return Asker(caller, request.headers, services.keys, services.settings, services.ledger.persons.has_events)


AskerDep = Annotated[Asker, Depends(asker_of)]


def client_named(user_agent: str) -> str | None:
    """Return a client's name and version as it gives them."""
    return user_agent[:_CLIENT_CHARS_MAX] or None


async def origin_of(request: Request, caller: CallerDep) -> Origin:
    """Return who asks and by which way, as the events that come of it say."""
    return Origin(
        actor=caller.key_label,
        route=f"{request.method} {request.scope['route'].path}",
        client=client_named(request.headers.get("user-agent", "")),
        request_id=request.state.request_id,
    )


OriginDep = Annotated[Origin, Depends(origin_of)]


async def queried_user(request: Request, asker: AskerDep, user: str | None = None) -> str:
    """Return the user whom the key stands for or, if it stands for any, whom the query or a header names."""
    request.state.user_id = asker.user(user)
    return str(request.state.user_id)


UserDep = Annotated[str, Depends(queried_user)]
