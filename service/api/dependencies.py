"""What a handler asks FastAPI for: the parts of the service, and whose memory a request is about."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.access import owner_of, user_of
from service.container import Services

_API_KEY = HTTPBearer(auto_error=False, description="One of `API_KEYS`; none is needed while that is empty.")


# All of these are `async`, since FastAPI hands a plain function to a thread.
async def services_of(request: Request) -> Services:
    """Return the parts of the running service."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def key_owner(
    services: ServicesDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_API_KEY)]
) -> str:
    """Return whom the request's key stands for; raise :class:`AccessDenied` for a missing or unknown key."""
    return owner_of(services.settings.api_keys, given.credentials.strip() if given is not None else None)


OwnerDep = Annotated[str, Depends(key_owner)]


async def queried_user(services: ServicesDep, owner: OwnerDep, user: str | None = None) -> str:
    """Return the user whom the query names, or whom the key stands for."""
    return user_of(owner, user, services.ledger.persons.has_events)


UserDep = Annotated[str, Depends(queried_user)]
