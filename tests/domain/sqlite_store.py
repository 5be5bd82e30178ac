"""Ledgers in SQLite files, for the contracts."""

from __future__ import annotations

from pathlib import Path

from domain.ledger import Ledger
from domain.sqlite import SHARES_WRITING
from tests.domain.ledger_contract import Store
from tests.ledgers import new_ledger_file


class SqliteStore(Store):
    shares_writing = SHARES_WRITING

    def create(self, folder: Path) -> Path:
        return new_ledger_file(folder)

    def open(self, place: Path) -> Ledger:
        return Ledger(place)
