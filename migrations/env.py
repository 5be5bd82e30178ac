"""Alembic's entry point: reaches the ledger through the same driver and pragmas as the service."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from domain.private_files import private_by_default
from domain.schema import METADATA
from domain.settings import StorageSettings, load_settings
from domain.sqlite import open_engine


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


def _run() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        _migrate(given)
        return
    private_by_default()
    settings = load_settings(StorageSettings)
    settings.storage_dir.mkdir(parents=True, exist_ok=True)
    engine = open_engine(settings.ledger_path, writer=True)
    try:
        with engine.begin() as connection:
            _migrate(connection)
    finally:
        engine.dispose()


_run()
