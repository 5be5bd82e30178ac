"""A ledger that any released version has written is opened, verified, searched and rebuilt by the newest code."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.errors import LedgerSchemaError
from domain.events import Erased, MemoryEdited, RerankDecided, RetrievalRecorded, TurnRecorded
from domain.identity import StreamId
from domain.settings import StorageSettings
from domain.sqlite import DRIVER
from domain.verification import LedgerHead, parse_head
from migrations.runner import migrate, objects_of_revision, schema_objects, schema_revision
from projections.backup.restore import restore_backup, restore_from_mirror
from projections.dense.projection import DenseProjection
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient
from projections.mirror.mirror import Mirror
from projections.rebuild.generation import rebuild
from projections.verification.storage import verify_ledger_file, verify_storage
from tests.golden.make import ASKED, EXPECTED_COUNT, MODELS
from tests.ledgers import ROOT, STREAM, opened, record_turn
from tests.projections.world import opened as world_opened
from tests.projections.world import settings_for
from tests.upstream import ScriptedUpstream

FOLDER = ROOT / "tests" / "golden"
REVISIONS = sorted(path.stem.removeprefix("ledger-") for path in FOLDER.glob("ledger-*.sqlite3"))
USERS = ("ann", "用户/一")
KITCHEN = StreamId("ann", "kitchen")


@dataclass(frozen=True)
class Golden:
    """A copy of a golden ledger in a storage of its own, and what the code that wrote it knew of it."""

    revision: str
    storage: Path
    expected: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.storage / "ledger.sqlite3"

    @property
    def head(self) -> LedgerHead:
        return parse_head(self.expected["head"])

    def rows(self) -> list[tuple[Any, ...]]:
        with closing(DRIVER.connect(self.path)) as connection:
            rows: list[tuple[Any, ...]] = connection.execute("SELECT * FROM events ORDER BY position").fetchall()
            return rows


@pytest.fixture(params=REVISIONS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    revision = str(request.param)
    storage = tmp_path / "storage"
    storage.mkdir()
    (storage / "ledger.sqlite3").write_bytes((FOLDER / f"ledger-{revision}.sqlite3").read_bytes())
    return Golden(revision, storage, json.loads((FOLDER / f"ledger-{revision}.json").read_text("utf-8")))


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(embedding_models=MODELS) as upstream:
        yield upstream


def test_every_schema_has_a_small_golden_ledger() -> None:
    assert REVISIONS[:2] == ["0001", "0003"]
    assert all((FOLDER / f"ledger-{revision}.sqlite3").stat().st_size < 300_000 for revision in REVISIONS)


def test_it_verifies_as_it_is(golden: Golden) -> None:
    assert schema_revision(golden.path) == golden.revision
    assert verify_ledger_file(golden.path, golden.head, deep=True) == (golden.head, [])


def test_the_migrations_of_then_were_not_changed_since(golden: Golden) -> None:
    assert schema_objects(golden.path) == objects_of_revision(golden.revision)


def test_an_upgrade_leaves_every_row_as_it_was(golden: Golden) -> None:
    rows = golden.rows()
    migrate(golden.path)
    assert golden.rows() == rows
    assert verify_ledger_file(golden.path, golden.head, deep=True) == (golden.head, [])
    with opened(golden.path) as ledger:
        assert record_turn(ledger, STREAM).position == golden.head.position + 1
    assert verify_ledger_file(golden.path, golden.head)[1] == []


def test_every_event_reads_in_its_newest_shape(golden: Golden) -> None:
    migrate(golden.path)
    with opened(golden.path) as ledger:
        events = ledger.reader.events_after(0, 1000)
        types = Counter(
            event.payload.event_type if isinstance(event.payload, Erased) else event.payload.type for event in events
        )
        assert types == golden.expected["types"]
        payloads = [event.payload for event in events]
        turns = [payload for payload in payloads if isinstance(payload, TurnRecorded)]
        assert any(turn.replayed for turn in turns)
        searched = [payload for payload in payloads if isinstance(payload, RetrievalRecorded)]
        assert {payload.outcome for payload in searched} == {"ok", "degraded"}
        for payload in searched:
            # A search that degraded has a mode where words alone could still answer.
            assert payload.mode is not None or (payload.outcome == "degraded" and not payload.candidates)
            scores = [candidate.score for candidate in payload.candidates]
            assert scores == sorted(scores, reverse=True)
            assert [candidate.rank for candidate in payload.candidates] == list(range(1, len(scores) + 1))
        reranked = [payload for payload in payloads if isinstance(payload, RerankDecided)]
        for decided in reranked:
            assert bool(decided.scores) == (decided.strategy == "endpoint" and decided.outcome == "ok")
        if golden.revision != "0001":  # what only later schemas can say
            assert any(decided.scores for decided in reranked)
            assert any(turn.imported_from == "openai" and turn.prompt is None for turn in turns)
            assert any(found.lexical_rank for payload in searched for found in payload.candidates)
            assert any(isinstance(payload, Erased) for payload in payloads)
        summaries = [memory.summary for memory in ledger.reader.recent_turns(KITCHEN, 50)]
        assert all(summaries)
        edits = [payload for payload in payloads if isinstance(payload, MemoryEdited)]
        assert all(edit.summary in summaries for edit in edits)


async def test_rebuild_and_follow_find_what_was_found_then(
    golden: Golden, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    migrate(golden.path)
    settings = settings_for(golden.storage, upstream, emb_model=MODELS[1])
    followed: dict[str, list[tuple[int, float]]] = {}
    async with world_opened(settings) as world:
        follower = DenseProjection(world.ledger, world.index, world.cache)
        while await follower.advance():
            pass
        for user, _, text in ASKED:
            await world.index.maintain(user)
            followed[text] = await world.found(user, text, EXPECTED_COUNT)
    assert {text: [position for position, _ in hits] for text, hits in followed.items()} == golden.expected["found"]
    elsewhere = tmp_path / "rebuilt"
    elsewhere.mkdir()
    (elsewhere / "ledger.sqlite3").write_bytes(golden.path.read_bytes())
    again = settings_for(elsewhere, upstream, emb_model=MODELS[1])
    async with world_opened(again) as world:
        cache = VectorCache(elsewhere / "other-vectors.sqlite3", half=True)
        client = EmbeddingClient(again)
        with closing(cache):
            done = await rebuild(world.ledger, client, cache, again, user_id=None)
        await client.close()
        assert done.users == len(USERS)
        for user, _, text in ASKED:
            assert await world.found(user, text, EXPECTED_COUNT) == followed[text]


async def test_it_is_mirrored_and_comes_back_from_its_mirror(golden: Golden) -> None:
    migrate(golden.path)
    rows = golden.rows()
    with opened(golden.path) as ledger:
        mirror = Mirror(ledger.reader, golden.storage)
        while await mirror.advance():
            pass
    settings = StorageSettings(storage_dir=golden.storage)
    assert verify_storage(settings, golden.head).findings == ()
    golden.path.unlink()
    restored = await asyncio.to_thread(restore_from_mirror, settings, golden.head)
    assert restored.head == golden.head
    assert golden.rows() == rows


def test_it_is_restored_as_a_backup(golden: Golden, tmp_path: Path) -> None:
    settings = StorageSettings(storage_dir=tmp_path / "new")
    assert restore_backup(settings, golden.path).head == golden.head
    migrate(settings.ledger_path)
    assert verify_ledger_file(settings.ledger_path, golden.head)[1] == []


def test_an_upgrade_that_is_killed_leaves_the_old_schema_or_the_new_one(golden: Golden, tmp_path: Path) -> None:
    newest = objects_of_revision("head")
    rows = golden.rows()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "tests.migrating", str(golden.path), str(scratch)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    statements = int(ran.stdout)
    assert statements >= (3 if schema_objects(golden.path) == newest else 8)  # the revision is asked for in any case
    killed = [path for path in scratch.glob("*.sqlite3") if path.stem != "whole"]
    assert scratch / f"{statements - 1}.sqlite3" in killed
    old = schema_objects(golden.path)
    assert [golden_at(path) for path in killed] == [(old, rows)] * len(killed)
    last = scratch / f"{statements - 1}.sqlite3"
    migrate(last)  # the next start brings it up
    assert golden_at(last) == (newest, rows)
    assert golden_at(scratch / "whole.sqlite3") == (newest, rows)


def golden_at(path: Path) -> tuple[dict[tuple[str, str], str], list[tuple[Any, ...]]]:
    """Return the schema and the rows of a ledger."""
    with closing(DRIVER.connect(path)) as connection:
        return schema_objects(path), connection.execute("SELECT * FROM events ORDER BY position").fetchall()


class TestFromANewerVersion:
    """In one line, by whoever opens it, and it is left as it was."""

    @pytest.fixture
    def newer(self, golden: Golden) -> Golden:
        with closing(DRIVER.connect(golden.path, isolation_level=None)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        return golden

    @pytest.mark.parametrize(
        "program",
        [
            ["uvicorn", "service.app:app", "--port", "0"],
            ["projections.rebuild"],
            ["service.cli", "verify"],
            ["service.cli", "backup", "copy.sqlite3"],
        ],
    )
    @pytest.mark.parametrize("golden", REVISIONS[-1:], indirect=True)
    def test_it_is_refused(self, newer: Golden, tmp_path: Path, program: list[str]) -> None:
        rows = newer.rows()
        environment = {
            "PYTHONPATH": str(ROOT),
            "STORAGE_DIR": str(newer.storage),
            "LLM_BASE_URL": "http://127.0.0.1:9/v1",
            "LLM_MODEL": "m",
            "EMB_BASE_URL": "http://127.0.0.1:9/v1",
            "EMB_MODEL": "m",
        }
        ran = subprocess.run(
            [sys.executable, "-m", *program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode != 0
        said = [line for line in ran.stderr.splitlines() if "9999" in line]
        assert len(said) == 1
        assert "run the newer version of OpenPersistentMemory" in said[0]
        assert "Traceback" not in ran.stderr
        assert newer.rows() == rows
        assert not (tmp_path / "copy.sqlite3").exists()
        with pytest.raises(LedgerSchemaError, match="9999"):
            migrate(newer.path)
