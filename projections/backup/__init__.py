"""Backups of the ledger, and how to restore one."""
