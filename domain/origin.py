"""Who asked for what an event tells, and by which way."""

from __future__ import annotations

import getpass
import os
from importlib.metadata import version

from pydantic import BaseModel, ConfigDict

IMPORT_COMMAND = "opm import"
"""The route of what was imported. The audit views look for it too."""
_PACKAGE = "openpersistentmemory"


class Origin(BaseModel):
    """Who asked for what an event tells, and by which way.

    ``actor`` names a key of the service, or the account that ran a command; None where no keys are set. ``client`` is
    the client's name and version as it gave them. The request's id is also in the answer and in the log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: str | None = None
    route: str | None = None
    client: str | None = None
    request_id: str | None = None
    reason: str | None = None


def command_origin(command: str, reason: str | None = None) -> Origin:
    """Return the origin of what a command does: the account that runs it."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        account = str(os.getuid())
    return Origin(actor=f"account:{account}", route=command, client=f"opm {version(_PACKAGE)}", reason=reason)


def is_imported(origin: Origin | None) -> bool:
    """Tell whether an event was brought along from elsewhere: what it says did not happen here."""
    return origin is not None and origin.route == IMPORT_COMMAND
