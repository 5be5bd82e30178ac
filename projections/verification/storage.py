"""Compares everything in ``STORAGE_DIR`` with the ledger, and the ledger with its own hashes, for ``opm verify``.

It only reads and may run beside a service, whose work is told apart from damage: every part is checked up to the head
that the ledger had at first, events not mirrored yet are behind, not different, and when an erasure comes in between,
it is read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine

from domain.errors import IndexUnavailable, LedgerReadFailed
from domain.ledger_reader import Erasures, LedgerReader
from domain.settings import StorageSettings
from domain.sqlite import DRIVER, in_use, open_engine, reason_of
from domain.verification import UNREADABLE, Finding, LedgerHead, damage_among, unread, verified_events
from migrations.runner import objects_of_revision, schema_objects, schema_revision
from projections.embedding.cache import VectorCache
from projections.verification.lexical import verified_lexical
from projections.verification.mirror import MirrorState, verified_mirror
from projections.verification.snapshots import verified_snapshots
from projections.verification.vectors import verified_vectors

FINDINGS_MAX = 100
"""For each part. After the first one little can be trusted anyway."""
_ATTEMPTS = 3
_ERASURE_S = 0.5
"""How long to wait for an erasure in progress before the ledger is read again."""

Checked = TypeVar("Checked")


@dataclass(frozen=True, slots=True)
class Verified:
    """The head that was reached, the state of the mirror, everything that differs, and what to do about it.

    ``advice`` is None where nothing is wrong with the ledger.
    """

    head: LedgerHead
    mirror: MirrorState
    findings: tuple[Finding, ...] = ()
    advice: str | None = None


def verify_storage(settings: StorageSettings, since: LedgerHead | None = None, *, deep: bool = False) -> Verified:
    """Verify the ledger of a storage folder and its projections.

    Raises :class:`LedgerSchemaError` when there is no ledger, or one from a newer version.
    """
    path = settings.ledger_path
    head, in_ledger = verify_ledger_file(path, since, deep=deep)
    engine = open_engine(path, writer=False)
    try:
        mirror, elsewhere = _undisturbed(
            LedgerReader(engine), lambda reader: _of_projections(reader, settings, head.position)
        )
    finally:
        engine.dispose()
    damage = damage_among(in_ledger)
    return Verified(head, mirror, (*in_ledger, *elsewhere), _advice(damage, mirror) if damage else None)


def _of_projections(reader: LedgerReader, settings: StorageSettings, head: int) -> tuple[MirrorState, list[Finding]]:
    mirror = MirrorState()
    findings: list[Finding] = []

    def running() -> bool:
        return in_use(settings.ledger_path)

    try:
        findings += islice(
            verified_mirror(reader, settings.storage_dir, mirror, head=head, running=running), FINDINGS_MAX
        )
        with _cache_of(settings, findings) as cache:
            findings += verified_vectors(cache)
            findings += islice(verified_snapshots(reader, settings.users_dir, cache), FINDINGS_MAX)
        findings += islice(verified_lexical(reader, settings.users_dir), FINDINGS_MAX)
    except UNREADABLE as error:
        findings.append(Finding("ledger", f"{unread(error)}: mirror and indices were not all checked against it"))
    return mirror, findings


def _undisturbed(
    reader: LedgerReader, check: Callable[[LedgerReader], tuple[Checked, list[Finding]]]
) -> tuple[Checked, list[Finding]]:
    """Check again while an erasure moves events out of their conversations: that is not damage."""
    for attempt in range(_ATTEMPTS):
        before = _erasures(reader)
        checked, findings = check(reader)
        after = _erasures(reader)
        undisturbed = before == after and not (after is not None and after.unfinished)
        if not findings or undisturbed or attempt == _ATTEMPTS - 1:
            break
        time.sleep(_ERASURE_S)
    return checked, findings


def _erasures(reader: LedgerReader) -> Erasures | None:
    """Return how many erasures there were, None where the ledger cannot tell."""
    try:
        return reader.erasures()
    except LedgerReadFailed:
        return None


def _advice(in_ledger: list[Finding], mirror: MirrorState) -> str:
    """Say how to get back what was written, without a step that could destroy the last good copy."""
    first = "stop the service and copy STORAGE_DIR as it is"
    if {finding.part for finding in in_ledger} == {"schema"}:
        return f"the events are as they were written, but not what guards them: {first}, then find out who changed it"
    if mirror.damaged or not mirror.lines:
        return (
            f"the ledger and the mirror are both not as they were written: {first}. Then `opm restore PATH` puts a "
            "backup in its place, and `opm verify FILE` tells beforehand whether that is sound"
        )
    return (
        f"the ledger was changed, and the mirror is as it was written: {first}, and delete nothing in users/ and "
        "system/. Then `opm restore --from-mirror` makes the ledger again of these files; it checks them first, and "
        "changes nothing unless they hold a whole one"
    )


@contextmanager
def _cache_of(settings: StorageSettings, findings: list[Finding]) -> Iterator[VectorCache | None]:
    """Open the vector cache if there is one; one that is damaged is a finding, and is not used."""
    path = settings.storage_dir / "vectors.sqlite3"
    said = _said_of(path, "quick_check") if path.exists() else []
    findings += [
        Finding(
            "index",
            f"SQLite says: {each}: stop the service and delete it; its texts are embedded again",
            path=path.name,
        )
        for each in said[:1]
    ]
    if said or not path.exists():
        yield None
        return
    try:
        cache = VectorCache(path, half=True)
    except IndexUnavailable as error:
        findings.append(Finding("index", f"{error}: the indices were checked without it", path=path.name))
        yield None
        return
    with closing(cache):
        yield cache


def head_of(path: Path) -> LedgerHead:
    """Return the head of a ledger. Raises what :func:`verify_storage` raises."""
    schema_revision(path)
    engine = open_engine(path, writer=False)
    try:
        return LedgerHead(*LedgerReader(engine).head())
    finally:
        engine.dispose()


def verify_ledger_file(
    path: Path, since: LedgerHead | None = None, *, deep: bool = False
) -> tuple[LedgerHead, list[Finding]]:
    """Verify a ledger alone: its schema, its file (with ``deep`` also indexes against rows) and its hash chain.

    Returns the head that was reached, and at most :data:`FINDINGS_MAX` findings for each part. Raises what
    :func:`verify_storage` raises.
    """
    revision = schema_revision(path)
    findings = list(_schema_findings(path, revision))
    engine = open_engine(path, writer=False)
    # SQLite reads the file without Python's interpreter, which hashes events meanwhile.
    with ThreadPoolExecutor(1, "file-check") as beside:
        of_file = beside.submit(lambda: list(islice(_file_findings(path, deep=deep), FINDINGS_MAX)))
        head, in_chain = _chain_of(engine, since)
        return head, [*findings, *of_file.result(), *in_chain]


def _chain_of(engine: Engine, since: LedgerHead | None) -> tuple[LedgerHead, list[Finding]]:
    try:
        return _undisturbed(LedgerReader(engine), lambda reader: _chain_findings(reader, since))
    except LedgerReadFailed as error:
        return LedgerHead(0, ""), [Finding("ledger", str(error))]
    finally:
        engine.dispose()


def _chain_findings(reader: LedgerReader, since: LedgerHead | None) -> tuple[LedgerHead, list[Finding]]:
    findings: list[Finding] = []
    head = LedgerHead(0, "")
    for found in verified_events(reader, since):
        if isinstance(found, LedgerHead):
            head = found
        elif len(findings) < FINDINGS_MAX:
            findings.append(found)
    return head, sorted(findings, key=lambda finding: finding.position or 0)


def _schema_findings(path: Path, revision: str) -> Iterator[Finding]:
    expected, present = objects_of_revision(revision), schema_objects(path)
    for (kind, name), sql in expected.items():
        if (kind, name) not in present:
            yield Finding("schema", f"the {kind} {name} is missing: events could be changed, or are read slowly")
        elif present[kind, name] != sql:
            yield Finding("schema", f"the {kind} {name} is not the one that the migrations make")
    for kind, name in present.keys() - expected.keys():
        if kind == "trigger":
            yield Finding("schema", f"the trigger {name} was not made by the migrations")


def _file_findings(path: Path, *, deep: bool) -> Iterator[Finding]:
    for said in _said_of(path, "integrity_check" if deep else "quick_check"):
        yield Finding("file", f"SQLite says: {said}")


def _said_of(path: Path, check: str) -> list[str]:
    """Return what SQLite's own check finds wrong with a file, which it only reads."""
    try:
        with closing(DRIVER.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=10, uri=True)) as connection:
            return [said for (said,) in connection.execute(f"PRAGMA {check}") if said != "ok"]
    except DRIVER.DatabaseError as error:
        return [reason_of(error)]
