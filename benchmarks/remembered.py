"""Histories of a data set as the product remembers them: recorded through the ledger, searched through its own path.

The embedding model is the one of ``EMB_BASE_URL`` and ``EMB_MODEL``, or the embedded one without those.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from benchmarks.key_sets import KeyedReader, KeySet
from domain.events import Event, NewEvent, SummaryRecorded, TurnRecorded
from domain.fusion import Fusion
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from domain.sqlite import open_engine
from domain.statements import LATEST
from migrations.runner import migrate
from projections.dense.dense_index import DenseIndex
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient
from projections.lexical.index_files import LexicalFiles
from projections.search.memory_search import MemorySearch
from projections.settings import ProjectionSettings

ROOT = Path(__file__).parents[1]
_QUERY_TIMEOUT_S = 60.0
_EMBEDDED = ("OPENAI_API_KEY", "EMB_BASE_URL", "EMB_MODEL", "EMBEDDING_DIMS")


@dataclass(frozen=True, slots=True)
class Said:
    """A turn to record: its conversation, its time, what both sides said, and its summary, if any."""

    conversation_id: str
    ts: datetime
    user: str
    assistant: str
    summary: str | None = None


@dataclass(frozen=True)
class Remembered:
    """Everything needed to search what was recorded."""

    settings: ProjectionSettings
    ledger: Ledger
    index: DenseIndex
    words: LexicalFiles

    def search(self, fusion: Fusion) -> MemorySearch:
        """Return the search of the service with the given fusion."""
        return MemorySearch(self.ledger.reader, self.index, self.words, fusion)

    async def record(self, user_id: str, said: Sequence[Said]) -> list[int]:
        """Record a history and index it; return the positions of the turns. What is already recorded stays."""
        known = self.ledger.reader.count_turns(user_id)
        if known not in {0, len(said)}:
            raise SystemExit(f"{user_id} has {known} turns, not {len(said)}: name another folder with --storage")
        if not known:
            by_conversation: dict[str, list[Said]] = {}
            for turn in said:
                by_conversation.setdefault(turn.conversation_id, []).append(turn)
            for conversation_id, turns in by_conversation.items():
                _append(self.ledger, StreamId(user_id, conversation_id), turns)
        await self.index.maintain(user_id)
        self.words.catch_up(user_id)
        newest_first = self.ledger.persons.memories_before(user_id, LATEST, len(said))
        return [memory.position for memory in reversed(newest_first)]


@asynccontextmanager
async def remembered(
    storage_dir: Path,
    environment: Mapping[str, str],
    *,
    key_set: KeySet | None = None,
    vectors: Path | None = None,
) -> AsyncIterator[Remembered]:
    """Open a storage folder, making it if there is none.

    With a ``key_set`` its texts are indexed instead of the product's; the folder then has no other use. ``vectors`` is
    a vector cache to share with other folders.
    """
    await asyncio.to_thread(storage_dir.mkdir, parents=True, exist_ok=True)
    settings = ProjectionSettings(
        storage_dir=storage_dir,
        emb_timeout_s=_QUERY_TIMEOUT_S,
        **{name.lower(): value for name, value in environment.items()},  # type: ignore[arg-type]  # checked by pydantic
    )
    migrate(settings.ledger_path)
    ledger = Ledger(settings.ledger_path)
    keyed = open_engine(settings.ledger_path, writer=False) if key_set is not None else None
    if keyed is not None and key_set is not None:
        ledger.reader = KeyedReader(keyed, key_set)
    cache = VectorCache(vectors or settings.vector_cache_path, half=settings.index_storage == "fp16")
    client = EmbeddingClient(settings)
    index = DenseIndex(ledger, client, cache, settings)
    words = LexicalFiles(ledger.reader, settings.users_dir)
    try:
        yield Remembered(settings, ledger, index, words)
    finally:
        await index.close()
        await client.close()
        words.close()
        ledger.close()
        cache.close()
        if keyed is not None:
            keyed.dispose()


def embedding_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of the embedding endpoint and model."""
    return {name: environment[name] for name in _EMBEDDED if name in environment}


@contextmanager
def embedding_endpoint() -> Iterator[dict[str, str]]:
    """Yield the settings of the endpoint that the environment names, or run the embedded model meanwhile."""
    given = embedding_settings(os.environ)
    if "EMB_BASE_URL" in given:
        yield given
        return
    with embedded_models(["embeddings"]) as announced:
        yield announced


@contextmanager
def embedded_models(wanted: Sequence[str]) -> Iterator[dict[str, str]]:
    """Run embedded models (``chat``, ``embeddings`` or both) and yield the settings of a service that uses them."""
    only = ["--only", wanted[0]] if len(wanted) == 1 else []
    process = subprocess.Popen(
        [sys.executable, "-m", "service.local_models", "--port", "0", *only],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        announced: dict[str, str] = {}
        for line in process.stdout:
            if line.strip() == "ready":
                break
            name, _, value = line.strip().partition("=")
            announced[name] = value
        else:
            raise SystemExit("the embedded models did not start")
        yield announced
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _append(ledger: Ledger, stream: StreamId, said: Sequence[Said]) -> None:
    def turns(head: StreamHead) -> list[NewEvent]:
        return [
            NewEvent(str(uuid4()), _turn(turn_id, turn)) for turn_id, turn in enumerate(said, start=head.turn_id + 1)
        ]

    events = ledger.append(stream, turns).result()
    summaries = [
        NewEvent(str(uuid4()), _summary(event, turn.summary), causation_id=event.event_id)
        for event, turn in zip(events, said, strict=True)
        if turn.summary is not None
    ]
    if summaries:
        ledger.append(stream, lambda _head: summaries).result()


def _summary(event: Event, summary: str) -> SummaryRecorded:
    assert isinstance(event.payload, TurnRecorded)
    return SummaryRecorded(
        memory_id=event.event_id,
        turn_id=event.payload.turn_id,
        summary=summary,
        model="imported",
        prompt_version="imported",
        usage=None,
        attempts=1,
    )


def _turn(turn_id: int, said: Said) -> TurnRecorded:
    return TurnRecorded(
        turn_id=turn_id,
        ts=said.ts,
        user=said.user,
        assistant=said.assistant,
        model="imported",
        parameters={},
        finish_reason="stop",
        usage=None,
        window=(),
        replayed=(),
        summarised=(),
        imported_from="benchmark",
        prompt=None,
        timings_ms={},
    )
