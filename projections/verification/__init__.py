"""Compares projections with the ledger, and names where they differ."""
