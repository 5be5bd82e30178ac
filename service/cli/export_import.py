"""``opm export`` and ``opm import``: write a user's memory to a file, and read conversations from one."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from domain.errors import InvalidInput
from domain.identity import check_id
from domain.ledger import Ledger
from domain.ledger_reader import LedgerReader
from domain.person_reader import PersonReader
from domain.settings import StorageSettings, load_settings
from migrations.runner import migrate
from projections.durable import replace_durably
from projections.mirror.event_file import line_of
from service.cli.shell import AsJson, User, err, opened_ledger, out, print_json, user_named
from service.importing.chatgpt import read_chatgpt
from service.importing.formats import Format, format_of
from service.importing.old_layout import read_old_layout, user_folder
from service.importing.openai_messages import read_openai
from service.importing.own_export import as_exchanges, read_export
from service.importing.record import Recorded, record_conversation, record_export

_PAGE = 500


class ExportFormat(StrEnum):
    """What an export contains: every event, or only the messages that are remembered."""

    EVENTS = "events"
    OPENAI = "openai"


def export(
    user: User,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write (default: standard output).")
    ] = None,
    kind: Annotated[
        ExportFormat, typer.Option("--format", help="Every event, or a list of messages for each conversation.")
    ] = ExportFormat.EVENTS,
    as_json: AsJson = False,
) -> None:
    """Write everything stored about a user as JSONL: every event of the ledger, one on each line."""
    if output is not None and output.exists():
        raise InvalidInput("--output", str(output), "name a file that does not exist yet")
    with opened_ledger() as ledger:
        user_id = user_named(ledger.persons, user)
        if not ledger.persons.extent_of(user_id)[0]:
            raise InvalidInput("--user", user_id, "name a user of whom something is kept")
        events = kind is ExportFormat.EVENTS
        lines = _event_lines(ledger.persons, user_id) if events else _message_lists(ledger.reader, user_id)
        count = _write_file(output, lines) if output is not None else _write_lines(sys.stdout, lines)
    if as_json and output is not None:
        print_json({"path": str(output), "format": kind, "lines": count})
    else:
        err.print(f"{count} lines", markup=False)


def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a folder of the earlier layout.")],
    user: User,
    kind: Annotated[Format, typer.Option("--format", help="Its format (default: detected from the content).")] = (
        Format.AUTO
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count, but record nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import conversations for a user. Importing the same twice changes nothing. The service may be running."""
    user_id = check_id("--user", user)
    known = format_of(path, user_id) if kind is Format.AUTO else kind
    if not path.exists():
        raise InvalidInput("PATH", str(path), "give a file or folder that exists")
    settings = load_settings(StorageSettings)
    migrate(settings.ledger_path)  # creates the ledger if there is none
    with opened_ledger(settings) as ledger:
        user_id = user_named(ledger.persons, user)
        recorded, skipped, notes = _imported(ledger, path, user_id, known, dry_run=dry_run)
    if as_json:
        print_json({"format": known, "dry_run": dry_run, **asdict(recorded), "skipped": skipped, "notes": notes})
        return
    would = "would be " if dry_run else ""
    out.print(
        f"{known}: {recorded.turns} turns and {recorded.summaries} summaries {would}imported, "
        f"{recorded.known} turns were there already",
        markup=False,
    )
    for what, count in sorted(skipped.items()):
        if count:
            out.print(f"left out: {count} {what}", markup=False)
    for note in notes:
        out.print(f"note: {note}", markup=False)


def _imported(
    ledger: Ledger, path: Path, user_id: str, kind: Format, *, dry_run: bool
) -> tuple[Recorded, Counter[str], list[str]]:
    if kind is Format.EXPORT:
        export = read_export(user_folder(path, user_id) if path.is_dir() else path)
        owners = set(ledger.persons.owners_of_events(export.event_ids).values())
        if owners <= {user_id}:
            return record_export(ledger, user_id, export, dry_run=dry_run), export.skipped, []
        parsed = as_exchanges(export)
        parsed.notes.append(
            "the ids in this export are taken in this ledger, by another user or one who was erased: its turns were "
            "imported under new ids"
        )
    elif kind is Format.CHATGPT:
        parsed = read_chatgpt(path)
    elif kind is Format.OPENAI:
        parsed = read_openai(path)
    else:
        parsed = read_old_layout(path, user_id)
    recorded = Recorded()
    for conversation in parsed.conversations:
        recorded += record_conversation(ledger, user_id, conversation, parsed.source, dry_run=dry_run)
    return recorded, +parsed.skipped, parsed.notes


def _event_lines(reader: PersonReader, user_id: str) -> Iterator[str]:
    position = 0
    while rows := reader.stored_of_user(user_id, position, _PAGE):
        yield from map(line_of, rows)
        position = rows[-1].position


def _message_lists(reader: LedgerReader, user_id: str) -> Iterator[str]:
    for stream in reader.streams_of(user_id):
        messages = []
        for memory in reader.recent_turns(stream, -1):
            messages.append({"role": "user", "content": memory.user})
            if memory.assistant:
                messages.append({"role": "assistant", "content": memory.assistant})
        if messages:
            yield json.dumps({"conversation_id": stream.conversation_id, "messages": messages}, ensure_ascii=False)


def _write_lines(file: TextIO, lines: Iterator[str]) -> int:
    count = 0
    for line in lines:
        file.write(f"{line}\n")
        count += 1
    return count


def _write_file(output: Path, lines: Iterator[str]) -> int:
    """Write a file atomically; return the number of lines."""
    temporary = output.with_name(f"{output.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            count = _write_lines(file, lines)
        replace_durably(temporary, output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidInput("--output", str(output), f"name a file that can be written ({error.strerror})") from None
    return count
