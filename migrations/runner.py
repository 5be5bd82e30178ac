"""Migrate a ledger to the schema of this code, at every start; refuse one from a newer version."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from domain.errors import LedgerSchemaError, shown
from domain.sqlite import WriterLock, open_engine


def migrate(ledger_path: Path, revision: str = "head") -> bool:
    """Create or upgrade the ledger at ``ledger_path``, all or nothing; return True if there was none.

    Raises :class:`LedgerSchemaError` when a newer version has already migrated it or no ledger can be made here, and
    :class:`LedgerLocked` as :class:`Ledger` does.
    """
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    with usable(ledger_path.parent):
        ledger_path.parent.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(ledger_path)
    engine = open_engine(ledger_path, writer=True)
    try:
        with engine.begin() as connection:
            current = _known_revision(connection, scripts, ledger_path.name)
            if current == scripts.get_current_head():
                return False
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            return current is None
    except DatabaseError as error:
        raise LedgerSchemaError(f"{ledger_path.name} cannot be opened as a ledger ({error.orig})") from None
    finally:
        engine.dispose()
        lock.release()


@contextmanager
def usable(storage_dir: Path) -> Iterator[None]:
    """Raise :class:`LedgerSchemaError` where the block cannot use a file in ``STORAGE_DIR``, with its name and why."""
    try:
        yield
    except OSError as error:
        file = Path(error.filename).name if isinstance(error.filename, str) else ""
        name = f": {file}" if file not in {"", storage_dir.name} else ""
        folder = shown(str(storage_dir))
        raise LedgerSchemaError(
            f"STORAGE_DIR = {folder} cannot be used as a folder ({error.strerror}{name}): it must be one that this "
            "user may write, with space left"
        ) from None


def schema_revision(ledger_path: Path, name: str | None = None) -> str:
    """Return the revision of a ledger without changing it; error messages call it ``name``.

    Raises :class:`LedgerSchemaError` when there is no ledger, or a newer version has migrated it.
    """
    name = name or ledger_path.name
    if not ledger_path.is_file():
        raise LedgerSchemaError(
            f"there is no ledger at {ledger_path}: set STORAGE_DIR to the folder that the service uses"
        )
    if ledger_path.stat().st_size == 0:
        raise LedgerSchemaError(f"{name} is empty: start the service once, or restore a backup")
    engine = open_engine(ledger_path, writer=False)
    try:
        with engine.connect() as connection:
            revision = _known_revision(connection, ScriptDirectory.from_config(_config()), name)
    except DatabaseError as error:
        raise LedgerSchemaError(f"{name} cannot be opened as a ledger ({error.orig})") from None
    finally:
        engine.dispose()
    if revision is None:
        raise LedgerSchemaError(f"{name} is a database of something else: no migration of a ledger ever ran on it")
    return revision


def newest_revision() -> str:
    """Return the revision of the schema that this code reads and writes."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None
    return newest


def check_current(ledger_path: Path) -> None:
    """Raise :class:`LedgerSchemaError` as :func:`schema_revision` does, and for a ledger of an older version."""
    revision, newest = schema_revision(ledger_path), newest_revision()
    if revision != newest:
        raise LedgerSchemaError(
            f"{ledger_path.name} is of an older version (schema {revision}, this version reads {newest}): bring it up "
            "to date with `opm migrate`, or a copy of it where it must stay as it is"
        )


def schema_objects(ledger_path: Path) -> dict[tuple[str, str], str]:
    """Return a ledger's schema: the SQL of each table, index, trigger and view by kind and name."""
    engine = open_engine(ledger_path, writer=False)
    try:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
            return {(row.type, row.name): row.sql for row in rows}
    except DatabaseError as error:
        raise LedgerSchemaError(f"{ledger_path.name} cannot be opened as a ledger ({error.orig})") from None
    finally:
        engine.dispose()


@cache
def objects_of_revision(revision: str) -> Mapping[tuple[str, str], str]:
    """Return the schema that the migrations give a ledger of that revision."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        migrate(path, revision)
        return schema_objects(path)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _known_revision(connection: Connection, scripts: ScriptDirectory, name: str) -> str | None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise LedgerSchemaError(
            f"{name} has schema {current!r}, which this version does not know: run the newer "
            "version of OpenPersistentMemory that migrated it, or restore a backup from before"
        )
    return current
