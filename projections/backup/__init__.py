"""Backups of the ledger, and how one is put back."""
