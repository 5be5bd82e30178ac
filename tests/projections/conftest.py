"""A storage folder with a ledger, and a scripted embedding endpoint with two models, for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.ledger import Ledger
from tests.ledgers import new_ledger_file, opened
from tests.projections.world import MODEL, OTHER_MODEL
from tests.upstream import ScriptedUpstream


@pytest.fixture
def storage_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    new_ledger_file(folder)
    return folder


@pytest.fixture
def storage(storage_dir: Path) -> Path:
    return storage_dir


@pytest.fixture
def ledger(storage_dir: Path) -> Iterator[Ledger]:
    with opened(storage_dir / "ledger.sqlite3") as ledger:
        yield ledger


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(dims=64, embedding_models=(MODEL, OTHER_MODEL)) as upstream:
        yield upstream
