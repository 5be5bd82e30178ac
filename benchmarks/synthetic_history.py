"""Makes the ledger of a service used by several people for many months: answers, failures and corrections.

Everything goes through :meth:`Ledger.append`, so hashes, versions and schemas are the product's own. The texts are made
of a few phrases, but each decision is complete and agrees with the others: the candidates of an answer are earlier
memories of its user, the gate gives a verdict on each that is not in the window, the rerank orders the kept ones, and
the turn names what it was given. A few in a hundred fail, as in real use.

With a ``seed`` and ``in_flight`` 0, two runs make the same events except for the salts and so the hashes.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from uuid import UUID

from benchmarks.synthetic_decisions import EMBEDDING_MODEL, FALLBACK_SHARES, RECENT_TURNS, PastTurn, SyntheticDecisions
from domain.clock import Clock
from domain.events import (
    EmbeddingModelActivated,
    Event,
    MemoryEdited,
    MemoryForgotten,
    NewEvent,
    Payload,
    PromptReport,
    PromptsActivated,
    SettingsActivated,
    SummaryFailed,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
)
from domain.identity import SYSTEM_STREAM, StreamId
from domain.ledger import Ledger, StreamHead
from domain.origin import Origin
from migrations.runner import migrate

START = datetime(2025, 1, 1, 8, tzinfo=UTC)
_NAMES = ("ann", "bob", "chen", "dina", "emil", "fay", "gus", "hana", "ivo", "jo")
_THINGS = (
    ("cat", "Miso eats nothing but tuna"),
    ("boat", "the Alma lies at pier seven"),
    ("flat", "the lease of the flat ends in March"),
    ("sister", "Ruth moved to Porto"),
    ("knee", "the left knee must not run before May"),
    ("garden", "the quince is to be cut back hard"),
    ("thesis", "chapter four still lacks its proof"),
    ("bread", "the starter wants rye, fed at noon"),
    ("violin", "the E string is a Pirastro"),
    ("car", "the winter tyres are in the cellar"),
)
_PADDING = "It was said in passing, with more around it than anybody needs, as people talk. "
_ANSWERS_PER_CONVERSATION = 40
_EVENTS_PER_ANSWER = 4.9
_BUDGET = 30_000
_FAILED_SHARE = 0.02
_CORRECTED_SHARE = 0.02
_NO_SUMMARY_SHARE = 0.01


@dataclass(slots=True)
class _Person:
    user_id: str
    memories: list[PastTurn] = field(default_factory=list)
    window: deque[PastTurn] = field(default_factory=lambda: deque(maxlen=RECENT_TURNS))
    answers: int = 0

    @property
    def stream(self) -> StreamId:
        return StreamId(self.user_id, f"talk {self.answers // _ANSWERS_PER_CONVERSATION + 1}")


def make_ledger(
    folder: Path,
    events: int,
    *,
    users: int = 40,
    seed: int = 7,
    candidates: tuple[int, int] = (10, 60),
    days: int = 540,
    in_flight: int = 200,
    progress: Callable[[int], None] = lambda _events: None,
) -> Path:
    """Write a ledger of at least ``events`` events into ``folder`` and return its path.

    ``users`` share them unevenly: the busiest of forty has five times the average. ``candidates`` are the fewest and
    the most memories that a search proposes. The events spread over ``days``. At most ``in_flight`` appends wait for
    their commit at a time; with 0 each append is awaited.
    """
    path = folder / "ledger.sqlite3"
    migrate(path)
    maker = _Maker(path, events, users, seed, candidates, days, in_flight)
    maker.run(events, progress)
    return path


class _Maker:
    def __init__(
        self, path: Path, events: int, users: int, seed: int, candidates: tuple[int, int], days: int, in_flight: int
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a reproducible history, not a secret
        self._now = START
        self._span = timedelta(days=days)
        self._step = self._span / max(events / _EVENTS_PER_ANSWER, 1)
        self._ledger = Ledger(path, Clock(now=lambda: self._now, new_id=self._new_id))
        self._people = [_Person(_name(number)) for number in range(users)]
        self._shares = list(accumulate(1 / (number + 3) for number in range(users)))
        self._decisions = SyntheticDecisions(self._random, candidates)
        self._in_flight = in_flight
        self._waiting: deque[tuple[Future[tuple[Event, ...]], Callable[[Sequence[Event]], None]]] = deque()
        self._written = 0

    def run(self, events: int, progress: Callable[[int], None]) -> None:
        try:
            self._begin()
            while self._written + len(self._waiting) < events:
                self._now += self._step * self._random.uniform(0.5, 1.5)
                person = self._people[bisect_right(self._shares, self._random.random() * self._shares[-1])]
                self._answer(person)
                if person.memories and self._random.random() < _CORRECTED_SHARE:
                    self._correct(person)
                if len(self._waiting) > self._in_flight:
                    self._settle_all()  # all: the ledger checkpoints its WAL only when nothing waits
                    progress(self._written)
            self._settle_all()
            progress(self._written)
        finally:
            self._ledger.close()

    def _begin(self) -> None:
        prompts = PromptsActivated(versions={"CHAT_SYSTEM": "1"}, texts={"CHAT_SYSTEM": "Be kind and brief."})
        model = EmbeddingModelActivated(
            model=EMBEDDING_MODEL, dimensions=1024, passage_prefix="", memories=0, vectors=0, ledger_position=0
        )
        settings = SettingsActivated(settings={"gate": "llm", "gate_keep_max": 12, "retrieve_k": 5})
        self._append(SYSTEM_STREAM, [prompts, model, settings], None, None)
        for person in self._people:
            self._import(person)

    def _import(self, person: _Person) -> None:
        """Bring along a turn from elsewhere, with its summary; nothing was asked or paid for it here."""
        thing, fact = self._random.choice(_THINGS)
        stream, ts = StreamId(person.user_id, "earlier"), self._now - timedelta(days=400)
        origin = Origin(actor="account:opm", route="opm import", client="opm 1")

        def turn(head: StreamHead) -> TurnRecorded:
            return TurnRecorded(
                turn_id=head.turn_id + 1,
                ts=ts,
                user=f"Please remember about my {thing}: {fact}.",
                assistant=f"I have noted that {fact}.",
                model="imported",
                parameters={},
                finish_reason="stop",
                usage=None,
                window=(),
                replayed=(),
                summarised=(),
                imported_from="chatgpt",
                prompt=None,
                timings_ms={},
            )

        self._append(stream, [turn], None, None, origin=origin)

    def _answer(self, person: _Person) -> None:
        person.answers += 1
        if person.answers % _ANSWERS_PER_CONVERSATION == 0:
            person.window.clear()
        model = self._model()
        correlation_id = f"chatcmpl-{self._new_id().replace('-', '')}"
        thing, fact = self._random.choice(_THINGS)
        tells = self._random.random() < 0.5
        user = f"Please remember about my {thing}: {fact}." if tells else f"What do you know about my {thing}?"
        user += " " + _PADDING * self._random.randint(0, 4)
        decided = self._decisions.decide(user, person.memories, person.window, model, hybrid=self._hybrid)
        before = (decided.retrieval, decided.gate, decided.rerank)
        timings = {"window": 0.4, "retrieve": 14.0, "gate": decided.gate.latency_ms, "prompt": 0.7}
        ts, origin = self._now, self._asked_by(person, "POST /v1/chat/completions")
        if self._random.random() < _FAILED_SHARE:
            timed_out = self._random.random() < 0.7
            failed = TurnFailed(
                ts=ts,
                user=user,
                partial_assistant="",
                model=model,
                error="the chat endpoint gave no answer in time"
                if timed_out
                else "the chat endpoint cannot be reached",
                code="upstream_timeout" if timed_out else "upstream_unreachable",
                status=504 if timed_out else 502,
                timings_ms={**timings, "total": 120_000.0 if timed_out else 40.0},
            )
            self._append(person.stream, [*before, failed], correlation_id, None, origin=origin)
            return
        assistant = f"I have noted that {fact}." if tells else f"You told me that {fact}."
        assistant += " " + _PADDING * self._random.randint(1, 8)
        answer_ms = self._decisions.milliseconds(2500)
        usage = self._decisions.usage(1800, 180)
        window = tuple(memory.memory_id for memory in person.window)

        def turn(head: StreamHead) -> TurnRecorded:
            return TurnRecorded(
                turn_id=head.turn_id + 1,
                ts=ts,
                user=user,
                assistant=assistant,
                model=model,
                parameters={"temperature": 0.7},
                finish_reason="stop",
                usage=usage,
                window=window,
                replayed=decided.replayed,
                summarised=decided.summarised,
                client_system="",
                prompt=PromptReport(
                    layout="system-replay-window-1",
                    system_version="1",
                    budget_tokens=_BUDGET,
                    tokens=usage.prompt_tokens,
                    counted="exact",
                    left_out=decided.left_out,
                    messages_hash=f"sha256:{'0' * 64}",
                ),
                timings_ms={
                    **timings,
                    "first_token": round(answer_ms / 8, 3),
                    "answer": answer_ms,
                    "total": answer_ms + 600,
                },
            )

        def remembered(events: Sequence[Event]) -> None:
            event = events[-1]
            assert isinstance(event.payload, TurnRecorded)
            memory = PastTurn(event.event_id, event.position, event.conversation_id, event.payload.turn_id)
            person.memories.append(memory)
            if event.conversation_id == person.stream.conversation_id:
                person.window.append(memory)
            self._summarise(person, memory, f"About the {thing}: {fact}.", model, correlation_id)

        self._append(person.stream, [*before, turn], correlation_id, None, remembered, origin)

    def _summarise(self, person: _Person, memory: PastTurn, text: str, model: str, correlation_id: str) -> None:
        about = StreamId(person.user_id, memory.conversation_id)
        if self._random.random() < _NO_SUMMARY_SHARE:
            failed = SummaryFailed(
                memory_id=memory.memory_id,
                turn_id=memory.turn_id,
                model=model,
                prompt_version="1",
                error="the chat endpoint gave an empty summary",
                attempts=5,
            )
            self._append(about, [failed], correlation_id, memory.memory_id)
            return
        summary = SummaryRecorded(
            memory_id=memory.memory_id,
            turn_id=memory.turn_id,
            summary=text,
            model=model,
            prompt_version="1",
            usage=self._decisions.usage(320, 30),
            attempts=1 if self._random.random() < 0.95 else 2,
        )

        def written(events: Sequence[Event]) -> None:
            memory.summary_position = events[-1].position

        self._append(about, [summary], correlation_id, memory.memory_id, written)

    def _correct(self, person: _Person) -> None:
        memory = self._random.choice(person.memories)
        about = StreamId(person.user_id, memory.conversation_id)
        if self._random.random() < 0.6:
            payload: Payload = MemoryEdited(
                memory_id=memory.memory_id, turn_id=memory.turn_id, summary="That was last year and no longer holds."
            )
        else:
            payload = MemoryForgotten(memory_id=memory.memory_id, turn_id=memory.turn_id, reason="no longer true")
            memory.forgotten = True
        self._append(about, [payload], None, memory.memory_id, origin=self._asked_by(person, "PATCH /v1/memories/{id}"))

    def _asked_by(self, person: _Person, route: str) -> Origin:
        number = person.answers
        return Origin(
            actor=f"key:{person.user_id}", route=route, client="page/1", request_id=f"req-{person.user_id}-{number}"
        )

    def _append(
        self,
        stream: StreamId,
        said: Iterable[Payload | Callable[[StreamHead], Payload]],
        correlation_id: str | None,
        causation_id: str | None,
        then: Callable[[Sequence[Event]], None] = lambda _events: None,
        origin: Origin | None = None,
    ) -> None:
        """Append the events of one answer or action together, each caused by the one before."""
        payloads = list(said)
        ids = [self._new_id() for _ in payloads]
        causes = [causation_id, *ids]

        def decide(head: StreamHead) -> list[NewEvent]:
            return [
                NewEvent(event_id, payload(head) if callable(payload) else payload, correlation_id, cause, origin)
                for event_id, payload, cause in zip(ids, payloads, causes, strict=False)
            ]

        self._waiting.append((self._ledger.append(stream, decide), then))
        if self._in_flight == 0:
            self._settle_all()

    def _settle_all(self) -> None:
        while self._waiting:
            future, then = self._waiting.popleft()
            events = future.result()
            self._written += len(events)
            then(events)

    @property
    def _share_gone(self) -> float:
        return (self._now - START) / self._span

    @property
    def _hybrid(self) -> bool:
        return self._share_gone >= 1 / 2  # words were searched from then on

    def _model(self) -> str:
        models = list(FALLBACK_SHARES)
        return models[min(int(self._share_gone * len(models)), len(models) - 1)]

    def _new_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))


def _name(number: int) -> str:
    return _NAMES[number] if number < len(_NAMES) else f"{_NAMES[number % len(_NAMES)]}-{number // len(_NAMES)}"
