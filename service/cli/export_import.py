"""``opm export`` and ``opm import``: write a user's memory to a file, and read conversations from one.

An import is read completely before the ledger is opened, so a file that cannot be read makes no ledger.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from domain.clock import iso
from domain.errors import InvalidInput
from domain.identity import check_id
from domain.ledger import Ledger
from domain.ledger_reader import LedgerReader
from domain.origin import IMPORT_COMMAND, command_origin
from domain.person_reader import PersonReader
from domain.settings import StorageSettings, load_settings, new_ledger_notice
from migrations.runner import migrate
from projections.durable import replace_durably
from projections.mirror.event_file import line_of
from service.cli.shell import (
    FAILED,
    AsJson,
    User,
    complain,
    err,
    opened_audit,
    opened_ledger,
    opened_persons,
    out,
    print_json,
    user_named,
)
from service.cli.texts import one_line
from service.importing.chatgpt import read_chatgpt
from service.importing.claude import read_claude
from service.importing.deepseek import read_deepseek
from service.importing.exchanges import Conversation, ParsedImport
from service.importing.formats import Format, format_of
from service.importing.librechat import read_librechat
from service.importing.mem0 import read_mem0
from service.importing.old_layout import read_old_layout, user_folder
from service.importing.open_webui import read_open_webui
from service.importing.openai_messages import read_openai
from service.importing.own_export import Export, as_exchanges, read_export
from service.importing.record import (
    Recorded,
    count_conversation,
    count_export,
    record_conversation,
    record_export,
)

_PAGE = 500
_LEFT_OUT = ("summaries", "forgotten memories", "superseded turns", "failed turns", "decisions")
"""What a list of messages cannot say."""
_END = datetime.max.replace(tzinfo=UTC)
_READERS: Mapping[Format, Callable[[Path], ParsedImport]] = {
    Format.OPENAI: read_openai,
    Format.CHATGPT: read_chatgpt,
    Format.CLAUDE: read_claude,
    Format.DEEPSEEK: read_deepseek,
    Format.OPENWEBUI: read_open_webui,
    Format.LIBRECHAT: read_librechat,
    Format.MEM0: read_mem0,
}


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
    if as_json and output is None:
        raise InvalidInput("--json", "without --output", "name a file: the lines themselves are JSON already")
    if output is not None and output.exists():
        raise InvalidInput("--output", str(output), "name a file that does not exist yet")
    with opened_persons() as persons, opened_audit() as reader:
        user_id = user_named(persons, user)
        if not persons.extent_of(user_id)[0]:
            raise InvalidInput("--user", user_id, "name a user of whom something is kept")
        events = kind is ExportFormat.EVENTS
        lines = _event_lines(persons, user_id) if events else _message_lists(reader, user_id)
        count = _write_file(output, lines) if output is not None else _write_lines(sys.stdout, lines)
    if as_json and output is not None:
        left_out = {} if events else {"left_out": _LEFT_OUT}
        print_json({"path": str(output), "format": kind, "lines": count, **left_out})
        return
    err.print(f"{count} lines", markup=False)
    if not events:
        err.print(f"left out: {', '.join(_LEFT_OUT)}: --format events has all", markup=False)


def import_(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A file, a ZIP, or a folder with an export or of the earlier layout.")
    ],
    user: User,
    kind: Annotated[Format, typer.Option("--format", help="Its format (default: detected from the content).")] = (
        Format.AUTO
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count, but write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import conversations for a user. Importing the same twice changes nothing. The service may be running.

    Reads exports of ChatGPT, Claude, DeepSeek, Open WebUI and LibreChat, mem0's get_all, OpenAI messages, and
    `opm export`. A conversation that cannot be read is named and left out; the exit status is 1 then.
    """
    user_id = check_id("--user", user)
    known = format_of(path, user_id) if kind is Format.AUTO else kind
    if not path.exists():
        raise InvalidInput("PATH", str(path), "give a file or folder that exists")
    source = _read(path, user_id, known)
    settings = load_settings(StorageSettings)
    absent = not settings.ledger_path.exists()
    if dry_run:
        if absent:
            err.print(
                f"there is no ledger at {settings.ledger_path.absolute()}: an import would make one", markup=False
            )
        with nullcontext() if absent else opened_persons(settings) as reader:
            user_id = user_named(reader, user) if reader is not None else user_id
            recorded, parsed = _counted(reader, user_id, source)
    else:
        if absent and migrate(settings.ledger_path):
            err.print(new_ledger_notice(settings), markup=False)
        with opened_ledger(settings) as ledger:
            recorded, parsed = _recorded(ledger, user_named(ledger.persons, user), source)
    _tell(known, recorded, parsed, dry_run=dry_run, new_ledger=absent, as_json=as_json)
    if parsed.unread:
        raise typer.Exit(FAILED)


def _read(path: Path, user_id: str, kind: Format) -> ParsedImport | Export:
    if kind is Format.EXPORT:
        return read_export(user_folder(path, user_id) if path.is_dir() else path)
    if kind is Format.OPENPERSISTENTMEMORY:
        return read_old_layout(path, user_id)
    return _READERS[kind](path)


def _usable(reader: PersonReader | None, user_id: str, source: ParsedImport | Export) -> ParsedImport | Export:
    """Return what was read; an export whose ids are taken becomes plain exchanges."""
    if not isinstance(source, Export) or reader is None:
        return source
    if set(reader.owners_of_events(source.event_ids).values()) <= {user_id}:
        return source
    parsed = as_exchanges(source)
    parsed.notes.append(
        "the ids in this export are taken in this ledger, by another user or one who was erased: its turns were "
        "imported under new ids"
    )
    return parsed


def _counted(
    reader: PersonReader | None, user_id: str, source: ParsedImport | Export
) -> tuple[Recorded, ParsedImport | Export]:
    source = _usable(reader, user_id, source)
    if isinstance(source, Export):
        return count_export(reader, source), source
    counts = [count_conversation(reader, user_id, each, source.source) for each in source.conversations]
    return sum(counts, Recorded()), source


def _recorded(ledger: Ledger, user_id: str, source: ParsedImport | Export) -> tuple[Recorded, ParsedImport | Export]:
    source, origin = _usable(ledger.persons, user_id, source), command_origin(IMPORT_COMMAND)
    if isinstance(source, Export):
        return record_export(ledger, user_id, source, origin), source
    # What is shown of memory stands in the order of the ledger, and some exports begin with the newest.
    in_order = sorted(source.conversations, key=_begun)
    recorded = (record_conversation(ledger, user_id, each, source.source, origin) for each in in_order)
    return sum(recorded, Recorded()), source


def _begun(conversation: Conversation) -> datetime:
    return next((exchange.ts for exchange in conversation.exchanges if exchange.ts is not None), _END)


def _tell(
    kind: Format, recorded: Recorded, source: ParsedImport | Export, *, dry_run: bool, new_ledger: bool, as_json: bool
) -> None:
    unread, notes = source.unread, source.notes if isinstance(source, ParsedImport) else []
    skipped = +source.skipped
    would = "would be " if dry_run else ""
    if as_json:
        counts = {"format": kind, "dry_run": dry_run, "new_ledger": new_ledger, **asdict(recorded)}
        print_json({**counts, "skipped": skipped, "unread": unread, "notes": notes})
    else:
        out.print(
            f"{kind}: {recorded.turns} turns and {recorded.summaries} summaries {would}imported, "
            f"{recorded.known} turns were there already",
            markup=False,
        )
        if recorded.forgotten:
            out.print(f"forgotten, and stay so: {recorded.forgotten} of these", markup=False)
        if recorded.again:
            out.print(
                f"note: {recorded.again} turns {would or 'were '}imported with a new answer to a known question; "
                "the earlier answers stay memories too, `opm forget` removes one",
                markup=False,
            )
        for what, count in sorted(skipped.items()):
            out.print(f"left out: {count} {what}", markup=False)
        for what in unread:
            out.print(f"could not be read: {one_line(what)}", markup=False)
        for note in notes:
            out.print(f"note: {note}", markup=False)
    if unread:
        what = "lines" if isinstance(source, Export) else "conversations"
        complain(f"{len(unread)} of the {what} could not be read, see above; the rest {would or 'was '}imported")


def _event_lines(reader: PersonReader, user_id: str) -> Iterator[str]:
    position = 0
    while rows := reader.stored_of_user(user_id, position, _PAGE):
        # Of an erased event nothing is left that could be taken along.
        yield from (line_of(row) for row in rows if row.salt)
        position = rows[-1].position


def _message_lists(reader: LedgerReader, user_id: str) -> Iterator[str]:
    for stream in reader.streams_of(user_id):
        messages = []
        for memory in reader.recent_turns(stream, -1):
            ts = iso(memory.ts)
            messages.append({"role": "user", "content": memory.user, "ts": ts})
            if memory.assistant:
                messages.append({"role": "assistant", "content": memory.assistant, "ts": ts})
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
