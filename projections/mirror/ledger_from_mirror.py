"""Builds a ledger from the JSONL files alone: the same events with the same hashes.

Lines are collected in a scratch database and read in the order of their positions, so memory stays bounded. Every hash
is checked as in a ledger. Only when nothing is missing are the events inserted, through the triggers of a new ledger.
One loss cannot be seen here: files whose events were the very last. A head noted earlier (``since``) reveals it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple, fields
from itertools import islice
from pathlib import Path
from typing import Any

from domain.errors import OpmError
from domain.identity import StreamId
from domain.reader import StoredEvent
from domain.sqlite import DRIVER
from domain.verification import ChainCheck, Finding, LedgerHead, hash_of, verified_since
from migrations.runner import migrate
from projections.mirror.event_file import MirrorLineCorrupt, event_of
from projections.mirror.mirror import mirror_files, mirror_path

_COLUMNS = [field.name for field in fields(StoredEvent)]
_FINDINGS_MAX = 100


class MirrorIncomplete(OpmError):
    """The mirror does not hold a whole ledger; ``findings`` name what is missing or changed."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("the mirror does not give a whole ledger: nothing was written")


def ledger_from_mirror(storage_dir: Path, target: Path, since: LedgerHead | None = None) -> LedgerHead:
    """Write a ledger with all events of the mirror to ``target``, a new file; return its head.

    ``since`` is a head that was noted earlier and must be in the ledger. Raises :class:`MirrorIncomplete`.
    """
    migrate(target)
    scratch = target.with_name(f"{target.name}-lines")
    scratch.unlink(missing_ok=True)
    try:
        with closing(DRIVER.connect(target, isolation_level=None)) as connection:
            # Neither file is of use before it is complete; the caller waits for the disk before it uses the ledger.
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("ATTACH ? AS scratch", (str(scratch),))
            connection.execute("PRAGMA scratch.journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA scratch.synchronous=OFF")
            head = _collected(connection, storage_dir, since)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"INSERT INTO main.events ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} "  # noqa: S608
                               "FROM scratch.lines ORDER BY position")  # fmt: skip
            connection.execute("COMMIT")
    finally:
        scratch.unlink(missing_ok=True)
    return head


def _collected(connection: Any, storage_dir: Path, since: LedgerHead | None) -> LedgerHead:
    """Put every line into ``scratch.lines`` and check the lines as a ledger is checked."""
    others = ", ".join(_COLUMNS[1:])
    connection.execute(f"CREATE TABLE scratch.lines (position INTEGER PRIMARY KEY, {others})")
    findings: list[Finding] = []
    connection.execute("BEGIN")
    for path in mirror_files(storage_dir):
        if path.suffix == ".jsonl":  # not what a crash left of a replacement
            findings += islice(_inserted(connection, storage_dir, path), _FINDINGS_MAX)
    connection.execute("COMMIT")
    check = ChainCheck()
    with closing(connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM scratch.lines ORDER BY position")) as rows:  # noqa: S608
        found = (finding for row in rows for finding in verified_since(check, StoredEvent(*row), since))
        findings += islice(found, _FINDINGS_MAX)
    findings += check.finish(since)
    if not findings and not check.head.position:
        findings.append(Finding("mirror", "there is no event in any file of the mirror"))
    if findings:
        raise MirrorIncomplete(findings)
    return check.head


def _inserted(connection: Any, storage_dir: Path, path: Path) -> Iterator[Finding]:
    """Insert the lines of one file into the scratch table; yield those that are not events of its conversation."""
    shown = str(path.relative_to(storage_dir))
    marks = ", ".join("?" * len(_COLUMNS))
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                yield Finding("mirror", "the file ends within this line: its event is lost", None, shown, number)
                return
            event = _event(line)
            if event is None:
                yield Finding("mirror", "the line is not an event as it was written", None, shown, number)
                continue
            if mirror_path(storage_dir, StreamId(event.user_id, event.conversation_id)) != path:
                what = "the event belongs to another conversation than the file"
                yield Finding("mirror", what, event.position, shown, number)
                continue
            try:
                connection.execute(f"INSERT INTO scratch.lines VALUES ({marks})", astuple(event))  # noqa: S608
            except DRIVER.IntegrityError:
                yield Finding("mirror", "another line has this position too", event.position, shown, number)


def _event(line: bytes) -> StoredEvent | None:
    """Return the event of a line, None if the line is none or one of its hashes does not match what it says."""
    try:
        event = event_of(line.decode())
    except (MirrorLineCorrupt, UnicodeError):
        return None
    return event if hash_of(event) == event.hash else None
