"""What the commands of ``opm`` share: where they print, how they open a ledger, what their exit statuses mean."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from domain.audit_reader import AuditReader
from domain.ledger import Ledger
from domain.settings import StorageSettings, load_settings
from domain.sqlite import open_engine
from domain.verification import Finding
from migrations.runner import migrate, schema_revision

DONE, FAILED, BAD_ARGUMENTS = 0, 1, 2
"""Exit statuses: done and all is well; something differs or failed; bad arguments."""

out = Console(highlight=False, soft_wrap=True)
"""Results. Text of people is printed with ``markup=False``, since it may hold what looks like markup."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and complaints."""
_PIPED_CELLS = 120
"""As wide are tables that go to a file or a pipe, where nothing says how wide."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
User = Annotated[str, typer.Option("--user", "-u", metavar="U", help="Whose memory.")]


def print_json(document: Any) -> None:
    """Print a result as one JSON document."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def complain(message: str) -> None:
    """Say on standard error what went wrong, in one line."""
    err.print(f"opm: {message}", markup=False)


def finding_line(finding: Finding) -> str:
    """Return a finding of a verification as one line."""
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
    """Open the ledger of ``STORAGE_DIR``, beside a running service or without one, in the schema of this code.

    Raises :class:`LedgerSchemaError` when there is none, or one that a newer version has migrated.
    """
    settings = settings or load_settings(StorageSettings)
    schema_revision(settings.ledger_path)
    migrate(settings.ledger_path)
    ledger = Ledger(settings.ledger_path)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def opened_audit(settings: StorageSettings | None = None) -> Iterator[AuditReader]:
    """Open the ledger of ``STORAGE_DIR`` to be asked only: nothing can be written through it.

    Raises :class:`LedgerSchemaError` as :func:`opened_ledger` does.
    """
    settings = settings or load_settings(StorageSettings)
    schema_revision(settings.ledger_path)
    engine = open_engine(settings.ledger_path, writer=False)
    try:
        yield AuditReader(engine)
    finally:
        engine.dispose()


@contextmanager
def wide() -> Iterator[None]:
    """Within it, tables are as wide as the terminal, or of a fixed width where there is none."""
    if out.is_terminal or "COLUMNS" in os.environ:
        yield
        return
    before = out.width
    out.width = _PIPED_CELLS
    try:
        yield
    finally:
        out.width = before
