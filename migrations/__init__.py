"""Alembic migrations: every table, trigger and view of the ledger is born here."""
