"""What a handler asks FastAPI for: the parts of the service, and whose memory a request is about."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from domain.origin import Origin
from service.api.access import Caller, caller_of, user_of
from service.container import Services

_CLIENT_CHARS_MAX = 200
_API_KEY = HTTPBearer(auto_error=False, description="One of `API_KEYS`; none is needed while that is empty.")


# All of these are `async`, since FastAPI hands a plain function to a thread.
async def services_of(request: Request) -> Services:
    """Return the parts of the running service."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def key_caller(
    request: Request, services: ServicesDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_API_KEY)]
) -> Caller:
    """Return whom the request's key stands for; raise :class:`AccessDenied` for a missing or unknown key."""
    caller = caller_of(services.settings.api_keys, given.credentials.strip() if given is not None else None)
    request.state.key_label = caller.key_label  # for the access log, which stands outside
    return caller


CallerDep = Annotated[Caller, Depends(key_caller)]


async def key_owner(caller: CallerDep) -> str:
    """Return the user whom the request's key stands for."""
    return caller.owner


OwnerDep = Annotated[str, Depends(key_owner)]


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


async def queried_user(request: Request, services: ServicesDep, owner: OwnerDep, user: str | None = None) -> str:
    """Return the user whom the query names, or whom the key stands for."""
    request.state.user_id = user_of(owner, user, services.ledger.persons.has_events)
    return str(request.state.user_id)


UserDep = Annotated[str, Depends(queried_user)]
