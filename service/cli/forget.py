"""``opm forget``, ``opm unforget`` and ``opm edit``: forget one memory, take that back, or correct its summary."""

from __future__ import annotations

from typing import Annotated

import typer

from domain.errors import UnknownMemory
from domain.ledger import Ledger
from domain.origin import command_origin
from service.cli.shell import AsJson, opened_ledger, out, print_json, user_named
from service.memory_commands import MemoryCommands

MemoryId = Annotated[str, typer.Argument(metavar="MEMORY_ID", help="The memory, as GET /v1/memories names it.")]
Owner = Annotated[
    str | None, typer.Option("--user", "-u", metavar="U", help="The user it must belong to (default: any user).")
]


def forget(
    memory_id: MemoryId,
    user: Owner = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the ledger.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove a memory from every search, window and list. The turn stays in the ledger and the mirror."""
    with opened_ledger() as ledger:
        user_id = _owner(ledger, memory_id, user)
        changed = MemoryCommands(ledger, command_origin("opm forget")).forget(user_id, memory_id, reason)
    if as_json:
        print_json({"memory_id": memory_id, "forgotten": True, "changed": changed})
    else:
        said = "is forgotten" if changed else "had been forgotten before: nothing was recorded"
        out.print(f"{memory_id} {said}", markup=False)


def unforget(
    memory_id: MemoryId,
    user: Owner = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the ledger.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take back an `opm forget`: the memory is found again. What its conversation has left behind stays hidden."""
    with opened_ledger() as ledger:
        user_id = _owner(ledger, memory_id, user)
        changed = MemoryCommands(ledger, command_origin("opm unforget")).restore(user_id, memory_id, reason)
        place = ledger.persons.place_of(user_id, memory_id)
    if place is None:
        raise UnknownMemory(memory_id)
    if as_json:
        document = {"memory_id": memory_id, "restored": True, "changed": changed, "superseded": place.superseded}
        print_json(document)
        return
    said = "is remembered again" if changed else "was not forgotten: nothing was recorded"
    hidden = "; it stays hidden, since its conversation went on without it" if place.superseded else ""
    out.print(f"{memory_id} {said}{hidden}", markup=False)


def edit(
    memory_id: MemoryId,
    summary: Annotated[str, typer.Option("--summary", metavar="TEXT", help="What is to be remembered of the turn.")],
    user: Owner = None,
    as_json: AsJson = False,
) -> None:
    """Replace a memory's summary with your own. The previous one stays in the ledger."""
    with opened_ledger() as ledger:
        user_id = _owner(ledger, memory_id, user)
        changed = MemoryCommands(ledger, command_origin("opm edit")).edit(user_id, memory_id, summary)
    if as_json:
        print_json({"memory_id": memory_id, "changed": changed})
    else:
        said = "has the new summary" if changed else "had this summary already: nothing was recorded"
        out.print(f"{memory_id} {said}", markup=False)


def _owner(ledger: Ledger, memory_id: str, user: str | None) -> str:
    if user is not None:
        return user_named(ledger.persons, user)
    owner = ledger.persons.owner_of(memory_id)
    if owner is None:
        raise UnknownMemory(memory_id)
    return owner
