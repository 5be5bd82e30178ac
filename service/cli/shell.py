"""What the commands of ``opm`` share: output, opening a ledger, exit statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from sqlalchemy import Engine

from domain.audit_reader import AuditReader
from domain.history_reader import HistoryReader
from domain.identity import check_id
from domain.ledger import Ledger
from domain.person_reader import PersonReader
from domain.private_files import give_to_owner, tighten
from domain.reader import Reader
from domain.settings import StorageSettings, load_settings
from domain.sqlite import open_engine
from domain.verification import Finding
from migrations.runner import check_current, migrate, schema_revision

DONE, FAILED, BAD_ARGUMENTS = 0, 1, 2
"""Exit statuses: success; something differs or failed; bad arguments."""

out = Console(highlight=False, soft_wrap=True)
"""Results. People's texts are printed with ``markup=False``, because they may contain markup."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and errors."""
_PIPED_CELLS = 120
"""Width of a table that goes to a file or a pipe."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
User = Annotated[str, typer.Option("--user", "-u", metavar="U", help="Whose memory.")]


def user_named(reader: Reader, user: str) -> str:
    """Return the id that ``--user`` means; raise :class:`InvalidInput` where it means none."""
    return check_id("--user", user, reader.has_events)


def print_json(document: Any) -> None:
    """Print a result as one JSON document."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def complain(message: str) -> None:
    """Print an error on standard error, in one line."""
    err.print(f"opm: {message}", markup=False)


def fail(message: str, status: int) -> NoReturn:
    """Print an error and end; with ``--json`` it is also the one document on standard output."""
    if "--json" in sys.argv[1:]:
        print_json({"error": {"message": message, "exit_status": status}})
    complain(message)
    sys.exit(status)


def finding_line(finding: Finding) -> str:
    """Return one finding of a verification as a line."""
    where: list[str] = [finding.part]
    if finding.path is not None:
        where.append(finding.path)
    if finding.line is not None:
        where.append(f"line {finding.line}")
    if finding.position is not None:
        where.append(f"event {finding.position}")
    return f"{', '.join(where)}: {finding.what}"


@contextmanager
def opened_ledger(settings: StorageSettings | None = None) -> Iterator[Ledger]:
    """Open the ledger in ``STORAGE_DIR`` for writing and migrate it; a service may be running.

    Raises :class:`LedgerSchemaError` when there is no ledger, or a newer version has migrated it.
    """
    settings = settings or load_settings(StorageSettings)
    before, after = brought_up_to_date(settings)
    if before != after:
        err.print(f"{settings.ledger_path.name}: migrated from schema {before} to {after}", markup=False)
    tighten(settings.storage_dir)
    ledger = Ledger(settings.ledger_path)
    give_to_owner(settings.storage_dir)  # and again when the command ends, but a killed one must not lock others out
    try:
        yield ledger
    finally:
        ledger.close()


def brought_up_to_date(settings: StorageSettings) -> tuple[str, str]:
    """Migrate the ledger in ``STORAGE_DIR`` to the schema of this code; return its schema before and now."""
    before = schema_revision(settings.ledger_path)
    migrate(settings.ledger_path)
    return before, schema_revision(settings.ledger_path)


@contextmanager
def _reading(settings: StorageSettings) -> Iterator[Engine]:
    """Open the ledger in ``STORAGE_DIR`` read-only. What reads never migrates: a ledger is evidence.

    Raises :class:`LedgerSchemaError` when there is no ledger, or another version has migrated it last.
    """
    check_current(settings.ledger_path)
    engine = open_engine(settings.ledger_path, writer=False)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def opened_audit(settings: StorageSettings | None = None) -> Iterator[AuditReader]:
    """Open the ledger in ``STORAGE_DIR`` read-only.

    Raises :class:`LedgerSchemaError` when there is none, or another version has migrated it last.
    """
    with _reading(settings or load_settings(StorageSettings)) as engine:
        yield AuditReader(engine)


@contextmanager
def opened_persons(settings: StorageSettings | None = None) -> Iterator[PersonReader]:
    """Open the ledger in ``STORAGE_DIR`` read-only, to ask about a person.

    Raises :class:`LedgerSchemaError` when there is none, or another version has migrated it last.
    """
    with _reading(settings or load_settings(StorageSettings)) as engine:
        yield PersonReader(engine)


@contextmanager
def opened_history() -> Iterator[HistoryReader]:
    """Open the ledger in ``STORAGE_DIR`` read-only, to list what is kept of whom.

    Raises :class:`LedgerSchemaError` when there is none, or another version has migrated it last.
    """
    with _reading(load_settings(StorageSettings)) as engine:
        yield HistoryReader(engine)


def print_parts(parts: Iterable[RenderableType]) -> None:
    """Print texts and tables as wide as the terminal, or as wide as ``_PIPED_CELLS`` where there is none."""
    before = out.width
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = _PIPED_CELLS
    try:
        for part in parts:
            out.print(part, soft_wrap=False)
    finally:
        out.width = before
