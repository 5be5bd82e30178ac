"""Who is asking: with ``API_KEYS`` set, a key stands for a user, and reaches that user's memory only."""

from __future__ import annotations

import secrets

from fastapi import Request

from domain.errors import OpmError
from domain.identity import DEFAULT_USER, check_id

ANY_USER = "*"


class AccessDenied(OpmError):
    """The caller may not do this. ``status`` is 401 for an unknown caller and 403 for one who reaches too far."""

    def __init__(self, message: str, *, status: int, param: str | None = None) -> None:
        self.status = status
        self.param = param
        super().__init__(message)


def user_of(request: Request, named: str | None, field: str = "user") -> str:
    """Return the user whose memory a request is about: the one it names, the one its key stands for, or the default.

    Raises :class:`AccessDenied` for a key that is missing, unknown, or stands for somebody else, and
    :class:`InvalidInput` for a name that is no id.
    """
    keys = request.app.state.house.settings.api_keys
    asked = check_id(field, named) if named is not None else None
    if not keys:
        return asked or DEFAULT_USER
    owner = _owner({key.get_secret_value(): user for key, user in keys.items()}, request)
    if owner is None:
        raise AccessDenied("send one of the service's API keys as `Authorization: Bearer KEY`", status=401)
    if owner == ANY_USER:
        return asked or DEFAULT_USER
    if asked is not None and asked != owner:
        raise AccessDenied(f"this API key does not stand for the {field} it names", status=403, param=field)
    return owner


def _owner(keys: dict[str, str], request: Request) -> str | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    for key, user in keys.items():
        if secrets.compare_digest(key.encode(), given.strip().encode()):
            return user
    return None
