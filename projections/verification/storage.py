"""Compares everything in ``STORAGE_DIR`` with the ledger, and the ledger with its own hashes, for ``opm verify``.

It only reads and may run beside a service, whose work is told apart from damage: events not mirrored yet are behind,
not different, and when an erasure comes in between, the ledger is read again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from domain.errors import LedgerReadFailed
from domain.ledger_reader import LedgerReader
from domain.settings import StorageSettings
from domain.sqlite import DRIVER, in_use, open_engine
from domain.verification import Finding, LedgerHead, verified_events
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


@dataclass(frozen=True, slots=True)
class Verified:
    """The head that was reached, the state of the mirror, and everything that differs."""

    head: LedgerHead
    mirror: MirrorState = field(default_factory=MirrorState)
    findings: tuple[Finding, ...] = ()


def verify_storage(settings: StorageSettings, since: LedgerHead | None = None, *, deep: bool = False) -> Verified:
    """Verify the ledger of a storage folder and its projections.

    Raises :class:`LedgerSchemaError` when there is no ledger, or one from a newer version.
    """
    path = settings.ledger_path
    head, findings = verify_ledger_file(path, since, deep=deep)
    engine = open_engine(path, writer=False)
    mirror = MirrorState()
    try:
        reader = LedgerReader(engine)
        running = in_use(path)
        found = verified_mirror(reader, settings.storage_dir, mirror, running=running)
        findings += islice(found, FINDINGS_MAX)
        with _cache_of(settings) as cache:
            findings += verified_vectors(cache)
            findings += islice(verified_snapshots(reader, settings.users_dir, cache), FINDINGS_MAX)
        findings += islice(verified_lexical(reader, settings.users_dir), FINDINGS_MAX)
    except LedgerReadFailed as error:
        findings.append(Finding("ledger", f"{error}: mirror and indices were not checked against it"))
    finally:
        engine.dispose()
    return Verified(head, mirror, tuple(findings))


@contextmanager
def _cache_of(settings: StorageSettings) -> Iterator[VectorCache | None]:
    """Open the vector cache if there is one."""
    path = settings.storage_dir / "vectors.sqlite3"
    if not path.exists():
        yield None
        return
    with closing(VectorCache(path, half=True)) as cache:
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
    findings += islice(_file_findings(path, deep=deep), FINDINGS_MAX)
    engine = open_engine(path, writer=False)
    try:
        reader = LedgerReader(engine)
        for attempt in range(_ATTEMPTS):
            before = reader.erasures()
            head, in_chain = _chain_findings(reader, since)
            after = reader.erasures()
            # An erasure moves events out of their conversations while they are read: that is not damage.
            if not in_chain or (before == after and not after.unfinished) or attempt == _ATTEMPTS - 1:
                break
            time.sleep(_ERASURE_S)
    except LedgerReadFailed as error:
        head, in_chain = LedgerHead(0, ""), [Finding("ledger", str(error))]
    finally:
        engine.dispose()
    return head, findings + in_chain


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
    with closing(DRIVER.connect(path, timeout=10)) as connection:
        try:
            for (said,) in connection.execute(f"PRAGMA {'integrity_check' if deep else 'quick_check'}"):
                if said != "ok":
                    yield Finding("file", f"SQLite says: {said}")
        except DRIVER.DatabaseError as error:
            yield Finding("file", f"SQLite says: {error}")
