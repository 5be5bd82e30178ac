"""Brings a ledger to the schema of this code, at every start; refuses one from a newer version."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DatabaseError

from domain.errors import LedgerSchemaError, shown
from domain.sqlite import open_engine


def migrate(ledger_path: Path) -> None:
    """Create or upgrade the ledger at ``ledger_path``.

    Raises :class:`LedgerSchemaError` when a newer version has already migrated it, or when there can be no ledger here.
    """
    try:
        ledger_path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        folder = shown(str(ledger_path.parent))
        raise LedgerSchemaError(f"STORAGE_DIR = {folder} cannot be used as a folder ({error.strerror})") from None
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    engine = open_engine(ledger_path, writer=True)
    try:
        with engine.begin() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            if current == scripts.get_current_head():
                return
            known = {script.revision for script in scripts.walk_revisions()}
            if current is not None and current not in known:
                raise LedgerSchemaError(
                    f"{ledger_path.name} has schema {current!r}, which this version does not know: run the newer "
                    "version of OpenPersistentMemory that migrated it, or restore a backup from before"
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DatabaseError as error:
        raise LedgerSchemaError(f"{ledger_path.name} cannot be opened as a ledger ({error.orig})") from None
    finally:
        engine.dispose()
