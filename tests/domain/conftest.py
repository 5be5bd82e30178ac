"""A ledger for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.ledger import Ledger
from tests.ledgers import new_ledger_file, opened


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return new_ledger_file(tmp_path)


@pytest.fixture
def ledger(ledger_path: Path) -> Iterator[Ledger]:
    with opened(ledger_path) as ledger:
        yield ledger
