"""``opm recall``: what memory returns for a question, now or as of an earlier position of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from datetime import tzinfo
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from domain.errors import InvalidInput, SettingsError
from domain.events import JsonObject
from domain.settings import StorageSettings, load_settings
from domain.temporal.zones import in_zone, zone_named
from projections.settings import ProjectionSettings
from service.audit.explain import change_json, memory_json
from service.audit.recall import RecallResult, recall_memories
from service.cli import moments
from service.cli.shell import AsJson, User, opened_audit, print_json, print_parts, user_named
from service.cli.texts import cell, one_line, scored, table, utc

_COUNT_MAX = 1000


def recall(
    query: Annotated[str, typer.Argument(help="The question.")],
    *,
    user: User,
    at: Annotated[str | None, typer.Option("--at", metavar="POSITION|DATE", help=f"As of {moments.HELP}.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=_COUNT_MAX, help="How many memories.")] = 10,
    embed: Annotated[
        bool, typer.Option("--embed/--no-embed", help="Search by vectors, or by words alone without any endpoint.")
    ] = True,
    full: Annotated[bool, typer.Option("--full", help="Cut no text short.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which memories a question finds now, or would have found then. Nothing is written to the ledger."""
    settings = _endpoint_settings() if embed else None
    if not query.strip():
        raise InvalidInput("QUERY", query, "give at least one visible character")
    with opened_audit(settings) as reader:
        user = user_named(reader, user)
        if not reader.has_events(user):
            raise InvalidInput("--user", user, "name a user who has memories")
        position = moments.position_of(reader, "--at", at) if at is not None else None
        zone = zone_named((settings or load_settings(StorageSettings)).timezone_of(user))
        with tqdm(desc="memories embedded", unit="text", disable=None, delay=1.0) as progress:
            result = asyncio.run(
                recall_memories(
                    reader,
                    settings,
                    user,
                    query,
                    count=count,
                    at=position,
                    zone=zone,
                    on_embedded=progress.update,
                )
            )
    if as_json:
        print_json(_as_json(result))
    else:
        print_parts(_render(result, zone, full=full))


def _as_json(result: RecallResult) -> JsonObject:
    return {
        "user_id": result.user_id,
        "query": result.query,
        "position": result.position,
        "recorded_at": result.recorded_at.isoformat() if result.recorded_at is not None else None,
        "head": result.head,
        "mode": result.mode,
        "embedding_model": result.space.model if result.space is not None else None,
        "dimensions": result.space.dimensions if result.space is not None else None,
        "notes": list(result.notes),
        "memories": [
            {
                "rank": item.candidate.rank,
                "score": item.candidate.score,
                "scores": asdict(item.candidate.scores),
                "ranks": {"dense": item.candidate.dense_rank, "lexical": item.candidate.lexical_rank},
                "matched": item.candidate.matched,
                **memory_json(item.candidate.memory),
                "since": change_json(item.since),
            }
            for item in result.found
        ],
    }


def _endpoint_settings() -> ProjectionSettings:
    try:
        return load_settings(ProjectionSettings)
    except SettingsError as error:
        raise SettingsError(f"{error}; or search by words alone with --no-embed") from None


def _render(result: RecallResult, zone: tzinfo, *, full: bool) -> Iterator[Text | Table]:
    when = f", recorded {utc(result.recorded_at)}" if result.recorded_at is not None else ""
    now = " (now)" if result.position == result.head else f" of {result.head}"
    yield Text(f"Memory of {one_line(result.user_id, 60)} at position {result.position}{now}{when}", "bold")
    by_vectors = result.space is not None
    how = f"by vectors of {result.space.model} and by words" if result.space is not None else "by words"
    yield Text(one_line(f"{how}; days of {zone}"), "dim")
    for note in result.notes:
        yield Text(note, "yellow")
    if not result.found:
        yield Text("Nothing was found.")
        return
    vectors = ("vectors",) if by_vectors else ()
    rows = table("#", "score", *vectors, "words", "date", "conversation", "since", "memory")
    for item in result.found:
        candidate, memory = item.candidate, item.candidate.memory
        rows.add_row(
            str(candidate.rank),
            f"{candidate.score:.3f}",
            *((scored(candidate.dense_score, candidate.dense_rank),) if by_vectors else ()),
            scored(candidate.lexical_score, candidate.lexical_rank),
            in_zone(memory.ts, zone).date().isoformat(),
            Text(f"{one_line(memory.conversation_id, None if full else 16)} {memory.turn_id}"),
            Text(f"{item.since.what} at {item.since.position}" if item.since is not None else "", "yellow"),
            cell(memory.line, full=full),
        )
    yield rows
