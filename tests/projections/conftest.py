"""A scripted embedding endpoint with two models, and an empty ledger in a storage folder, for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledgers import new_ledger_file
from tests.projections.world import MODEL, OTHER_MODEL
from tests.upstream import ScriptedUpstream


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(dims=64, embedding_models=(MODEL, OTHER_MODEL)) as upstream:
        yield upstream


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    new_ledger_file(folder)
    return folder
