"""``opm recall``: what memory returns for a question, now or at an earlier position of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from domain.clock import iso
from domain.errors import InvalidInput, SettingsError
from domain.events import JsonObject
from domain.settings import load_settings
from projections.settings import ProjectionSettings
from service.audit.explain import change_json, memory_json
from service.audit.recall import Recollection
from service.audit.recall import recall as recollect
from service.cli import moments
from service.cli.shell import AsJson, User, opened_audit, out, print_json, wide
from service.cli.texts import one_line, scored

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
        if not reader.has_events(user):
            raise InvalidInput("--user", user, "name a user who has memories")
        position = moments.position_of(reader, "--at", at) if at is not None else None
        with tqdm(desc="memories embedded", unit="text", disable=None, delay=1.0) as progress:
            found = asyncio.run(
                recollect(reader, settings, user, query, count=count, at=position, on_embedded=progress.update)
            )
    if as_json:
        print_json(_as_json(found))
        return
    with wide():
        for part in _told(found, full=full):
            out.print(part, soft_wrap=False)


def _as_json(found: Recollection) -> JsonObject:
    return {
        "user_id": found.user_id,
        "query": found.query,
        "position": found.position,
        "recorded_at": found.moment.isoformat() if found.moment is not None else None,
        "head": found.head,
        "mode": found.mode,
        "embedding_model": found.space.model if found.space is not None else None,
        "dimensions": found.space.dimensions if found.space is not None else None,
        "notes": list(found.notes),
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
            for item in found.found
        ],
    }


def _endpoint_settings() -> ProjectionSettings:
    try:
        return load_settings(ProjectionSettings)
    except SettingsError as error:
        raise SettingsError(f"{error}; or search by words alone with --no-embed") from None


def _told(found: Recollection, *, full: bool) -> Iterator[Text | Table]:
    when = f", recorded {iso(found.moment)[:19].replace('T', ' ')} UTC" if found.moment is not None else ""
    now = " (now)" if found.position == found.head else f" of {found.head}"
    yield Text(f"Memory of {one_line(found.user_id, 60)} at position {found.position}{now}{when}", "bold")
    how = f"by vectors of {found.space.model} and by words" if found.space is not None else "by words"
    yield Text(one_line(how), "dim")
    for note in found.notes:
        yield Text(note, "yellow")
    if not found.found:
        yield Text("Nothing was found.")
        return
    table = Table(box=None, pad_edge=True, header_style="dim", padding=(0, 1))
    for name in ("#", "score", *(("vectors",) if found.space is not None else ()), "words", "date", "conversation"):
        table.add_column(name, no_wrap=True)
    table.add_column("since", no_wrap=True)
    table.add_column("memory", ratio=1, min_width=24)
    for item in found.found:
        candidate, memory = item.candidate, item.candidate.memory
        table.add_row(
            str(candidate.rank),
            f"{candidate.score:.3f}",
            *((scored(candidate.dense_score, candidate.dense_rank),) if found.space is not None else ()),
            scored(candidate.lexical_score, candidate.lexical_rank),
            memory.date,
            Text(f"{one_line(memory.conversation_id, None if full else 16)} {memory.turn_id}"),
            Text(f"{item.since.what} at {item.since.position}" if item.since is not None else "", "yellow"),
            Text(one_line(memory.note), no_wrap=not full, overflow="fold" if full else "ellipsis"),
        )
    yield table
