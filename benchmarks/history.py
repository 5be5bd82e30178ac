"""Makes long histories quickly: through the ledger, with random unit vectors in the vector cache.

The result must measure like a history that was chatted: its events are complete, every memory has a summary and so two
vectors, and ``python -m projections.rebuild`` makes the index on disk from the cached vectors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from uuid import uuid4

import numpy as np

from domain.events import Event, NewEvent, Payload, PromptReport, SummaryRecorded, TurnRecorded, Usage
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from domain.memory import exchange_text
from migrations.runner import migrate
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import EmbeddingSpace

SHARED_WORD = "harbour"
"""Every text made here has it: the scripted gate keeps what shares a word with the question."""

_TURNS_PER_APPEND = 100
_APPENDS_IN_FLIGHT = 32
_TURNS_PER_CONVERSATION = 500
_VECTORS_PER_PUT = 4000
_START = datetime(2025, 1, 1, tzinfo=UTC)
_TOPICS = ("boats", "bread", "chess", "tides", "maps", "paint", "seeds", "trains", "violins", "winter")
_USAGE = Usage(prompt_tokens=900, completion_tokens=90, total_tokens=990)
_REPORT = PromptReport(layout="v1", system_version="v1", budget_tokens=30_000, tokens=900, counted="estimate")


def make_history(storage_dir: Path, user_id: str, memories: int, space: EmbeddingSpace, *, first: int = 0) -> None:
    """Record ``memories`` turns of one user with summaries, and put their vectors into the cache.

    Turns are numbered from ``first``, and the number is part of the text: users with other numbers share no texts.
    """
    make_histories(storage_dir, [user_id], memories, space, first=first)


def make_histories(
    storage_dir: Path, user_ids: Sequence[str], memories: int, space: EmbeddingSpace, *, first: int = 0
) -> None:
    """Do the same for several users, who all say the same things."""
    storage_dir.mkdir(parents=True, exist_ok=True)
    migrate(storage_dir / "ledger.sqlite3")
    ledger = Ledger(storage_dir / "ledger.sqlite3")
    waiting: deque[Future[tuple[Event, ...]]] = deque()
    for user_id, start in product(user_ids, range(0, memories, _TURNS_PER_APPEND)):
        stream = StreamId(user_id, f"conversation {start // _TURNS_PER_CONVERSATION}")
        numbers = range(first + start, first + min(start + _TURNS_PER_APPEND, memories))
        waiting.append(_append(ledger, stream, numbers))
        if len(waiting) > _APPENDS_IN_FLIGHT:
            waiting.popleft().result()
    for future in waiting:
        future.result()
    ledger.close()
    _fill_cache(storage_dir / "vectors.sqlite3", range(first, first + memories), space)


def _append(ledger: Ledger, stream: StreamId, numbers: range) -> Future[tuple[Event, ...]]:
    def decide(head: StreamHead) -> list[NewEvent]:
        events: list[NewEvent] = []
        for turn_id, number in enumerate(numbers, start=head.turn_id + 1):
            memory_id = str(uuid4())
            events.append(_new(_turn(number, turn_id), memory_id, None))
            events.append(_new(_summary(number, turn_id, memory_id), str(uuid4()), memory_id))
        return events

    return ledger.append(stream, decide)


def _new(payload: Payload, event_id: str, causation_id: str | None) -> NewEvent:
    return NewEvent(event_id, payload, f"chatcmpl-{event_id}", causation_id)


def _said(number: int) -> tuple[str, str]:
    topic = _TOPICS[number % len(_TOPICS)]
    user = f"Note {number}: what did the old keeper of the {SHARED_WORD} tell us about {topic} on that long evening?"
    assistant = (
        f"He said that {topic} were his whole life before the {SHARED_WORD} was built, and that he still has the book "
        f"with entry {number} in it. It lists every visitor by name, the weather, and what was brought ashore; "
        "you asked me to remember that he lends it out on Sundays if it comes back dry."
    )
    return user, assistant


def _summarised(number: int) -> str:
    return f"The keeper of the {SHARED_WORD} lends out his book about {_TOPICS[number % len(_TOPICS)]}, entry {number}."


def _turn(number: int, turn_id: int) -> TurnRecorded:
    user, assistant = _said(number)
    return TurnRecorded(
        turn_id=turn_id,
        ts=_START + timedelta(minutes=number),
        user=user,
        assistant=assistant,
        model="scripted-chat",
        parameters={},
        finish_reason="stop",
        usage=_USAGE,
        window=(),
        replayed=(),
        summarised=(),
        prompt=_REPORT,
        timings_ms={"total": 1000.0},
    )


def _summary(number: int, turn_id: int, memory_id: str) -> SummaryRecorded:
    return SummaryRecorded(
        memory_id=memory_id,
        turn_id=turn_id,
        summary=_summarised(number),
        model="scripted-chat",
        prompt_version="v1",
        usage=_USAGE,
        attempts=1,
    )


def _fill_cache(path: Path, all_numbers: range, space: EmbeddingSpace) -> None:
    cache = VectorCache(path, half=True)
    space_id = cache.space_id(space)
    random = np.random.default_rng(all_numbers.start + 7)
    for start in range(0, len(all_numbers), _VECTORS_PER_PUT // 2):
        numbers = all_numbers[start : start + _VECTORS_PER_PUT // 2]
        texts = [exchange_text(*_said(number)) for number in numbers] + [_summarised(number) for number in numbers]
        vectors = random.standard_normal((len(texts), space.dimensions), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cache.put(space_id, {text_hash(text): row for text, row in zip(texts, vectors, strict=True)})
        cache.checkpoint()
    cache.close()
