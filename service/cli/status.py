"""``opm status``: one look at a storage, without asking the service."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.table import Table
from rich.text import Text

from domain.identity import SYSTEM_ID
from domain.settings import StorageSettings, load_settings
from domain.sqlite import in_use, wal_bytes
from migrations.runner import schema_revision
from projections.backup.known_backups import known_backups
from service.cli.shell import AsJson, opened_audit, opened_persons, print_json, print_parts

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Status:
    """What is in a storage. Sizes are in bytes."""

    version: str
    storage_dir: str
    schema: str
    in_use: bool
    events: int
    head: str
    last_event_at: str | None
    users: int
    memories: int
    erasures_unfinished: int
    embedding_model: str | None
    retention_days: int
    ledger_bytes: int
    wal_bytes: int
    vectors_bytes: int
    disk_free_bytes: int
    backups: int
    backups_missing: int
    last_backup_at: str | None
    events_since_backup: int | None


def status(*, as_json: AsJson = False) -> None:
    """Show how much is kept, whether the storage is in use, and when it was last backed up. It only reads.

    Whether everything is as it was written, `opm verify` tells; what a running service can do, its /health/ready.
    """
    found = _status_of(load_settings(StorageSettings))
    if as_json:
        print_json(asdict(found))
    else:
        print_parts([_rendered(found)])


def _status_of(settings: StorageSettings) -> Status:
    path = settings.ledger_path
    schema = schema_revision(path)
    backups = known_backups(settings.storage_dir)
    there = [backup for backup in backups if Path(backup.path).exists()]
    # What a restore put aside is a copy too, but nobody's backup.
    made = [backup for backup in there if Path(backup.path).is_file()]
    newest = max(made, key=lambda backup: backup.made_at, default=None)
    with opened_audit(settings) as reader, opened_persons(settings) as persons:
        position, digest = reader.head()
        recorded_at = reader.recorded_at(position) if position else None
        active = reader.active_embedding_model(SYSTEM_ID)
        return Status(
            version=version("openpersistentmemory"),
            storage_dir=str(settings.storage_dir.absolute()),
            schema=schema,
            in_use=in_use(path),
            events=position,
            head=f"{position}:{digest}",
            last_event_at=recorded_at.isoformat() if recorded_at is not None else None,
            users=sum(1 for _ in reader.all_users()),
            memories=reader.count_memories(None),
            erasures_unfinished=reader.erasures().unfinished + len(persons.parts_begun()),
            embedding_model=active.model if active is not None else None,
            retention_days=settings.retention_days,
            ledger_bytes=path.stat().st_size,
            wal_bytes=wal_bytes(path),
            vectors_bytes=_bytes_of(settings.storage_dir / "vectors.sqlite3"),
            disk_free_bytes=shutil.disk_usage(settings.storage_dir).free,
            backups=len(there),
            backups_missing=len(backups) - len(there),
            last_backup_at=newest.made_at.astimezone(UTC).isoformat() if newest is not None else None,
            events_since_backup=position - newest.position if newest is not None else None,
        )


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _rendered(found: Status) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_column(overflow="fold")
    sizes = f"{_mib(found.ledger_bytes)} (WAL {_mib(found.wal_bytes)}, vectors {_mib(found.vectors_bytes)})"
    lines = {
        "version": f"{found.version}, schema {found.schema}",
        "storage": f"{found.storage_dir}, {'in use' if found.in_use else 'not in use'}",
        "kept": f"{found.memories} memories of {found.users} people in {found.events} events",
        "last event": _moment(found.last_event_at) or "none",
        "head": found.head,
        "ledger": f"{sizes}, {_mib(found.disk_free_bytes)} free on the disk",
        "embedding model": found.embedding_model or "none yet",
        "retention": f"{found.retention_days} days" if found.retention_days else "everything is kept",
        "last backup": _backup_line(found),
    }
    if found.erasures_unfinished:
        lines["erasures"] = f"{found.erasures_unfinished} not finished: the next start of the service goes on"
    for label, value in lines.items():
        rows.add_row(Text(label), Text(value))
    return rows


def _backup_line(found: Status) -> str:
    missing = f"; {found.backups_missing} known ones are not where they were" if found.backups_missing else ""
    if found.last_backup_at is None:
        return f"none is known here: see `opm backup`{missing}"
    return f"{_moment(found.last_backup_at)}, {found.events_since_backup} events ago{missing}"


def _moment(iso: str | None) -> str | None:
    return None if iso is None else f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S} UTC"


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"
