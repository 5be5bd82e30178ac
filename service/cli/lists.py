"""``opm users``, ``opm conversations`` and ``opm memories``: who and what is kept, with the ids for other commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from domain.errors import InvalidInput
from domain.memory import Memory
from domain.person_reader import PersonReader
from domain.statements import LATEST
from service.audit.explain import memory_json
from service.cli.shell import AsJson, User, opened_history, opened_persons, out, print_json, print_parts, user_named
from service.cli.texts import cell, one_line, table, utc

_PAGE = 500
_ID_CELLS = 40

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="At most so many.")]


def users(*, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List the people who have memories, who said something last first."""
    with opened_history() as reader:
        found = reader.users(limit)
    if as_json:
        print_json(
            {
                "users": [
                    {
                        "user_id": user.user_id,
                        "memories": user.memories,
                        "last_recorded_at": user.last_recorded_at.isoformat(),
                    }
                    for user in found
                ]
            }
        )
        return
    rows = table("memories", "last", "user", fill="user", right=("memories",))
    for user in found:
        rows.add_row(str(user.memories), utc(user.last_recorded_at), cell(user.user_id))
    _print_rows(rows, len(found), limit, "nobody has a memory")


def conversations(user: User, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List a user's conversations, the one used last first."""
    with opened_history() as reader:
        user_id = user_named(reader, user)
        found = reader.conversations(user_id, limit)
    if as_json:
        print_json(
            {
                "user_id": user_id,
                "conversations": [
                    {
                        "conversation_id": each.conversation_id,
                        "turns": each.turns,
                        "last_ts": each.last_ts.isoformat(),
                        "title": each.title,
                    }
                    for each in found
                ],
            }
        )
        return
    rows = table("turns", "last", "conversation", "begins", fill="begins", right=("turns",))
    for each in found:
        name = Text(one_line(each.conversation_id, _ID_CELLS))
        rows.add_row(str(each.turns), utc(each.last_ts), name, cell(each.title))
    _print_rows(rows, len(found), limit, "this user has no conversation")


def memories(
    user: User,
    *,
    query: Annotated[
        str | None, typer.Option("--query", "-q", metavar="TEXT", help="Only those that contain this text.")
    ] = None,
    limit: Limit = 20,
    full: Annotated[bool, typer.Option("--full", help="Cut no text short.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a user's memories, newest first, without hidden ones. To search by meaning, use `opm recall`."""
    if query is not None and not query.strip():
        raise InvalidInput("--query", query, "give at least one visible character, or leave it out")
    with opened_persons() as reader:
        user_id = user_named(reader, user)
        found = []
        for memory in _newest_first(reader, user_id):
            if query is None or _contains(memory, query):
                found.append(memory)
                if len(found) == limit:
                    break
    if as_json:
        print_json({"user_id": user_id, "memories": [memory_json(memory) for memory in found]})
        return
    rows = table("id", "date", "conversation", "memory")
    for memory in found:
        where = Text(f"{one_line(memory.conversation_id, 16)} {memory.turn_id}")
        rows.add_row(memory.memory_id, memory.date, where, cell(memory.line, full=full))
    _print_rows(rows, len(found), limit, "no memory of this user" + (" contains that" if query else ""))


def _newest_first(reader: PersonReader, user_id: str) -> Iterator[Memory]:
    position = LATEST
    while page := reader.memories_before(user_id, position, _PAGE):
        yield from page
        position = page[-1].position


def _contains(memory: Memory, query: str) -> bool:
    wanted = query.strip().casefold()
    return any(wanted in text.casefold() for text in (memory.user, memory.assistant, memory.summary or ""))


def _print_rows(rows: Table, found: int, limit: int, nothing: str) -> None:
    if not found:
        out.print(nothing)
        return
    print_parts([rows])
    if found == limit:
        out.print(f"the first {limit}: --limit shows more")
