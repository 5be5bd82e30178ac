"""``opm report``: one person's audit, as Markdown or HTML."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from domain.clock import Clock
from domain.errors import InvalidInput
from domain.settings import StorageSettings, load_settings
from projections.durable import replace_durably
from service.audit.report import report_of
from service.audit.report_page import as_html, as_markdown
from service.cli.moments import moment_of
from service.cli.shell import AsJson, User, err, opened_audit, print_json, user_named


def report(
    user: User,
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="From this date on (UTC; default: from the first).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="DATE", help="Before this date (UTC; default: to the last).")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="One HTML file instead of Markdown.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write (default: standard output).")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write one person's audit: what was said and remembered, each answer with what it was shown and why.

    And who corrected, who read, what was in use and what it cost. Verifies the whole ledger and says what it found. The
    file can be read by its owner only.
    """
    if output is not None and output.exists():
        raise InvalidInput("--output", str(output), "name a file that does not exist yet")
    if json and (html or output is not None):
        raise InvalidInput("--json", "with --html or --output", "ask for one form at a time")
    begin = moment_of("--since", since) if since is not None else None
    end = moment_of("--until", until) if until is not None else None
    settings = load_settings(StorageSettings)
    with opened_audit(settings) as reader:
        blocks = report_of(reader, user_named(reader, user), begin, end, Clock().now())
    if json:
        print_json([{"block": type(block).__name__.lower(), **asdict(block)} for block in blocks])
        return
    text = as_html(blocks) if html else as_markdown(blocks)
    if output is None:
        typer.echo(text, nl=False)
        return
    _write(output, text)
    err.print(f"{output}: written", markup=False)


def _write(output: Path, text: str) -> None:
    """Write a file atomically, for its owner only, whatever the umask."""
    temporary = output.with_name(f"{output.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
        replace_durably(temporary, output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidInput("--output", str(output), f"name a file that can be written ({error.strerror})") from None
