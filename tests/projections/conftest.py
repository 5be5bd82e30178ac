"""A storage folder with a ledger for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.ledger import Ledger
from tests.ledgers import new_ledger_file, opened


@pytest.fixture
def storage_dir(tmp_path: Path) -> Path:
    new_ledger_file(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(storage_dir: Path) -> Iterator[Ledger]:
    with opened(storage_dir / "ledger.sqlite3") as ledger:
        yield ledger
