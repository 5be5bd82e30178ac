"""``opm keys``: make, list and revoke the keys with which people and programs call the service.

A running service knows of it within seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from domain.api_keys import NewKey, keys_in, make_key, revoke_key
from domain.clock import iso
from domain.errors import InvalidInput
from domain.key_reader import StoredKey
from domain.origin import command_origin
from domain.settings import StorageSettings, load_settings, new_ledger_notice
from migrations.runner import migrate, schema_revision
from service.cli.moments import moment_of
from service.cli.shell import AsJson, err, opened_ledger, out, print_json, print_parts, user_named
from service.cli.texts import cell, one_line, table, utc

_NAME_CHARS_MAX = 100
_NAME_CELLS = 24
_SPAN = re.compile(r"([1-9][0-9]{0,4})([dh])")


class UserIs(StrEnum):
    """What the client means by the user of a request."""

    PERSON = "person"
    CONVERSATION = "conversation"


def create(
    *,
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="U", help="The one person whom the key stands for.")
    ] = None,
    anybody: Annotated[bool, typer.Option("--any", help="The key stands for whomever its client names.")] = False,
    trust_headers: Annotated[
        bool, typer.Option("--trust-headers", help="With --any: headers may name the person too, see USER_FROM.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Read and recall only: nothing is recorded or changed.")
    ] = False,
    user_is: Annotated[
        UserIs, typer.Option("--user-is", help="What the client sends as `user`: Home Assistant, the conversation.")
    ] = UserIs.PERSON,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="WHEN", help="A date or time (UTC), or a span: 90d, 12h.")
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the key is for, to know it again.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: this once, since only a hash of it is kept. From then on the service asks for a key."""
    if (user is None) is not anybody:
        raise InvalidInput("--user", user, "give either --user U, or --any for a program that names its people")
    if trust_headers and not anybody:
        raise InvalidInput("--trust-headers", True, "leave it out: a key with --user stands for that person only")
    settings = load_settings(StorageSettings)
    now = datetime.now(UTC)
    named, until = _checked_name(name), _expiry(expires, now) if expires is not None else None
    if not settings.ledger_path.exists() and migrate(settings.ledger_path):
        err.print(new_ledger_notice(settings), markup=False)
    with opened_ledger(settings) as ledger:
        wanted = NewKey(
            user_id=user_named(ledger.persons, user) if user is not None else None,
            name=named,
            trust_headers=trust_headers,
            read_only=read_only,
            user_is="conversation" if user_is is UserIs.CONVERSATION else "person",
            expires_at=until,
        )
        key, kept = make_key(ledger, wanted, _account("opm keys create"))
    if as_json:
        print_json({"key": key, **_as_json(kept, now)})
        return
    out.print(key, markup=False)
    err.print(f"{kept.key_id} {_whom(kept)}: keep the key now, it is not shown again", markup=False)


def list_(*, as_json: AsJson = False) -> None:
    """List every key that was ever made here, without the keys themselves. Those of API_KEYS are not among them."""
    found, now = _all_keys(load_settings(StorageSettings)), datetime.now(UTC)
    if as_json:
        print_json({"keys": [_as_json(key, now) for key in found]})
        return
    if not found:
        out.print("no key was made here: `opm keys create` makes one")
        return
    rows = table("id", "name", "state", "made", "last used", "for", fill="for")
    for key in found:
        used = _to_the_minute(key.last_used_at) if key.last_used_at is not None else "never"
        told = (key.key_id, one_line(key.name, _NAME_CELLS), _state(key, now), _to_the_minute(key.created_at), used)
        rows.add_row(*told, cell(_whom(key), full=True))
    print_parts([rows])


def revoke(
    key: Annotated[
        str, typer.Argument(metavar="KEY_ID", help="The key's id or its name, as `opm keys list` shows it.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Revoke a key. A running service refuses it within seconds."""
    with opened_ledger() as ledger:
        stored = _named(ledger.keys.all(), key)
        changed = revoke_key(ledger, stored.key_id, _account("opm keys revoke"))
        none_left = all(each.revoked_at is not None for each in ledger.keys.all())
    if as_json:
        print_json({"key_id": stored.key_id, "revoked": True, "changed": changed})
        return
    said = "is revoked" if changed else "had been revoked before: nothing was changed"
    out.print(f"{stored.key_id} {said}", markup=False)
    if none_left:
        err.print(
            "this was the last key, and the service still asks for one: make another, or set ALLOW_ANONYMOUS=1 to let "
            "everybody in"
        )


def _all_keys(settings: StorageSettings) -> list[StoredKey]:
    schema_revision(settings.ledger_path)
    return keys_in(settings.ledger_path)


def _named(keys: list[StoredKey], given: str) -> StoredKey:
    wanted = given.strip().removeprefix("key:")
    found = [key for key in keys if key.key_id == wanted] or [key for key in keys if key.name == wanted]
    if len(found) > 1:  # of several with one name, those that are good for something are meant
        found = [key for key in found if key.revoked_at is None] or found[:1]
    if not found:
        raise InvalidInput("KEY_ID", given, "no key has this id or name, see `opm keys list`")
    if len(found) > 1:
        ids = ", ".join(key.key_id for key in found)
        raise InvalidInput("KEY_ID", given, f"{len(found)} keys have this name, say which by its id: {ids}")
    return found[0]


def _checked_name(name: str) -> str:
    name = name.strip()
    if len(name) > _NAME_CHARS_MAX or not name.isprintable():
        raise InvalidInput("--name", name, f"give at most {_NAME_CHARS_MAX} visible characters")
    return name


def _expiry(given: str, now: datetime) -> datetime:
    span = _SPAN.fullmatch(given.strip().lower())
    if span is not None:
        count = int(span[1])
        return now + (timedelta(days=count) if span[2] == "d" else timedelta(hours=count))
    moment = moment_of("--expires", given, "give a span such as 90d, or a date").astimezone(UTC)
    if moment <= now:
        raise InvalidInput("--expires", given, "give a moment that is still to come")
    return moment


def _account(command: str) -> str:
    return command_origin(command).actor or ""


def _state(key: StoredKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "active"
    return "expired" if key.ended(now) else f"until {_to_the_minute(key.expires_at)}"


def _to_the_minute(moment: datetime) -> str:
    return utc(moment)[:16]


def _whom(key: StoredKey) -> str:
    """Say for whom a key stands and how far it goes."""
    told = [key.user_id if key.user_id is not None else "anybody"]
    told += ["by headers too"] if key.trust_headers else []
    told += ["read only"] if key.read_only else []
    told += ["user is the conversation"] if key.user_is == "conversation" else []
    return ", ".join(told)


def _as_json(key: StoredKey, now: datetime) -> dict[str, Any]:
    def moment(at: datetime | None) -> str | None:
        return iso(at) if at is not None else None

    return {
        "key_id": key.key_id,
        "actor": key.label,
        "name": key.name,
        "user_id": key.user_id,
        "trust_headers": key.trust_headers,
        "read_only": key.read_only,
        "user_is": key.user_is,
        "active": key.ended(now) is None,
        "created_at": moment(key.created_at),
        "created_by": key.created_by,
        "expires_at": moment(key.expires_at),
        "revoked_at": moment(key.revoked_at),
        "revoked_by": key.revoked_by,
        "last_used_at": moment(key.last_used_at),
    }
