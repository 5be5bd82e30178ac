"""Makes the ledger of a service that several people used for many months: answers, failures, corrections and all.

Everything goes through :meth:`Ledger.append`, so that hashes, versions and schemas are the product's own. What people
say is made of a few phrases, but each decision is complete and agrees with the others: an answer's candidates are
earlier memories of its own user, the gate gives a verdict on each that the window does not show, the rerank orders the
kept ones, and the turn names what it was given. A few in a hundred go wrong the way they do in earnest.

With a ``seed`` and ``in_flight`` 0 two runs make the same events, apart from the salts and so the hashes.
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

from domain.clock import Clock
from domain.decisions import full_order
from domain.events import (
    CandidateFound,
    EmbeddingModelActivated,
    Event,
    GateDecided,
    LeftOut,
    MemoryEdited,
    MemoryForgotten,
    NewEvent,
    Payload,
    PromptReport,
    PromptsActivated,
    RerankDecided,
    RetrievalRecorded,
    SummaryFailed,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
    Usage,
    Verdict,
)
from domain.identity import SYSTEM_STREAM, StreamId
from domain.ledger import Ledger, StreamHead
from migrations.runner import migrate

START = datetime(2025, 1, 1, 8, tzinfo=UTC)
_NAMES = ("ann", "bob", "chen", "dina", "emil", "fay", "gus", "hana", "ivo", "jo")
_CHAT_MODELS = ("Qwen3-8B", "Qwen3-14B", "Mistral-Small")
_FALLBACKS = {"Qwen3-8B": 0.06, "Qwen3-14B": 0.02, "Mistral-Small": 0.03}
"""How often a model's decision cannot be read: the smaller one's more often."""
_EMBEDDING = "bge-m3"
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
_RECENT_TURNS = 6
_RETRIEVE_K = 5
_KEEP_MAX = 12
_ANSWERS_PER_CONVERSATION = 40
_EVENTS_PER_ANSWER = 4.9
_BUDGET = 30_000
_WINDOW_SHARE = 0.35
"""How often a memory of the running conversation is proposed again, and excluded."""


@dataclass(slots=True)
class _Memory:
    memory_id: str
    position: int
    conversation_id: str
    turn_id: int
    summary_position: int | None = None
    forgotten: bool = False


@dataclass(slots=True)
class _Person:
    user_id: str
    memories: list[_Memory] = field(default_factory=list)
    window: deque[_Memory] = field(default_factory=lambda: deque(maxlen=_RECENT_TURNS))
    answers: int = 0

    @property
    def stream(self) -> StreamId:
        return StreamId(self.user_id, f"talk {self.answers // _ANSWERS_PER_CONVERSATION + 1}")


@dataclass(frozen=True, slots=True)
class _Decided:
    """The three events before a turn, and what they leave for its prompt."""

    payloads: tuple[RetrievalRecorded, GateDecided, RerankDecided]
    replayed: tuple[str, ...]
    summarised: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


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

    ``users`` share them unevenly: the busiest of forty has five times as many as the average. ``candidates`` are the
    fewest and the most memories that a search proposes; the events spread over ``days``; ``in_flight`` appends may wait
    for their commit at a time, and with 0 each is waited for.
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
        self._random = random.Random(seed)  # noqa: S311 - a history that can be made again, not a secret
        self._now = START
        self._span = timedelta(days=days)
        self._step = self._span / max(events / _EVENTS_PER_ANSWER, 1)
        self._ledger = Ledger(path, Clock(now=lambda: self._now, new_id=self._new_id))
        self._people = [_Person(_name(number)) for number in range(users)]
        self._shares = list(accumulate(1 / (number + 3) for number in range(users)))
        self._candidates = candidates
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
                if person.memories and self._random.random() < 0.02:
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
            model=_EMBEDDING, dimensions=1024, passage_prefix="", memories=0, vectors=0, ledger_position=0
        )
        self._append(SYSTEM_STREAM, [prompts, model], None, None)

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
        decided = self._decide(person, user, model)
        timings = {"window": 0.4, "retrieve": 14.0, "gate": decided.payloads[1].latency_ms, "prompt": 0.7}
        ts = self._now
        if self._random.random() < 0.02:
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
            self._append(person.stream, [*decided.payloads, failed], correlation_id, None)
            return
        assistant = f"I have noted that {fact}." if tells else f"You told me that {fact}."
        assistant += " " + _PADDING * self._random.randint(1, 8)
        answer_ms = self._milliseconds(2500)
        usage = self._usage(1800, 180)
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
            memory = _Memory(event.event_id, event.position, event.conversation_id, event.payload.turn_id)
            person.memories.append(memory)
            if event.conversation_id == person.stream.conversation_id:
                person.window.append(memory)
            self._summarise(person, memory, f"About the {thing}: {fact}.", model, correlation_id)

        self._append(person.stream, [*decided.payloads, turn], correlation_id, None, remembered)

    def _decide(self, person: _Person, query: str, model: str) -> _Decided:
        rng = self._random
        knobs = {"candidate_n": self._candidates[1], "recent_turns": _RECENT_TURNS, "retrieve_k": _RETRIEVE_K}
        window = tuple(memory.memory_id for memory in person.window)
        if rng.random() < 0.015:
            retrieval = RetrievalRecorded(
                query=query,
                knobs=knobs,
                window=window,
                outcome="degraded",
                degraded_code=rng.choice(("embedding_timeout", "embedding_timeout", "model_mismatch")),
                degraded_reason="the embedding endpoint gave no vectors that memory could be searched with",
            )
            found: list[CandidateFound] = []
        else:
            found = self._found(person)
            retrieval = RetrievalRecorded(
                query=query,
                knobs=knobs,
                window=window,
                outcome="ok",
                mode="hybrid" if self._hybrid else "dense",
                fusion={"rule": "reciprocal_rank", "k": 60} if self._hybrid else None,
                embedding_model=_EMBEDDING,
                dimensions=1024,
                index_position=person.memories[-1].position if person.memories else 0,
                candidates=tuple(found),
                embed_ms=self._milliseconds(9),
                search_ms=self._milliseconds(1.5),
                lexical_ms=self._milliseconds(0.8) if self._hybrid else 0.0,
            )
        gate = self._gate([item for item in found if item.excluded is None], model)
        kept = [verdict.memory_id for verdict in gate.verdicts if verdict.keep]
        rerank = self._rerank(kept, model)
        notes = list(rerank.order[len(rerank.replayed) :])
        left_out: tuple[LeftOut, ...] = ()
        if notes and rng.random() < 0.04:
            left_out = (LeftOut(part="summary", memory_id=notes.pop(), tokens=rng.randint(300, 900)),)
        return _Decided((retrieval, gate, rerank), rerank.replayed, tuple(notes), left_out)

    def _found(self, person: _Person) -> list[CandidateFound]:
        rng = self._random
        count = min(rng.randint(*self._candidates), len(person.memories))
        known = rng.sample(person.memories, count)
        known += [memory for memory in person.window if rng.random() < _WINDOW_SHARE]
        shown = {memory.memory_id for memory in person.window}
        found: list[CandidateFound] = []
        seen: set[str] = set()
        score = rng.uniform(0.7, 0.9)
        hybrid = self._hybrid
        for memory in known:
            if memory.forgotten or memory.memory_id in seen:
                continue
            seen.add(memory.memory_id)
            rank = len(found) + 1
            score -= rng.uniform(0, 0.01)
            by_words = hybrid and rng.random() < 0.4
            only_words = by_words and rng.random() < 0.2
            found.append(
                CandidateFound(
                    memory_id=memory.memory_id,
                    turn_position=memory.position,
                    conversation_id=memory.conversation_id,
                    turn_id=memory.turn_id,
                    score=round(1 / (60 + rank) if hybrid else score, 6),
                    rank=rank,
                    dense_score=None if only_words else round(score, 6),
                    dense_rank=None if only_words else rank,
                    lexical_score=round(rng.uniform(1, 12), 6) if by_words else None,
                    lexical_rank=rank if by_words else None,
                    matched=None if only_words else rng.choice(("exchange", "summary")),
                    summary_position=memory.summary_position,
                    excluded="recent_window" if memory.memory_id in shown else None,
                )
            )
        return found

    def _gate(self, proposed: Sequence[CandidateFound], model: str) -> GateDecided:
        rng = self._random
        skipped = not proposed
        fell_back = not skipped and rng.random() < _FALLBACKS[model]
        wanted = [fell_back or rng.random() < 0.3 for _ in proposed]
        room = _KEEP_MAX
        verdicts = []
        for n, (candidate, keep) in enumerate(zip(proposed, wanted, strict=True), start=1):
            room -= keep
            verdicts.append(
                Verdict(n=n, memory_id=candidate.memory_id, keep=keep and room >= 0, over_limit=keep and room < 0)
            )
        kept = [verdict.n for verdict in verdicts if verdict.keep]
        return GateDecided(
            strategy="llm",
            outcome="skipped" if skipped else "fallback" if fell_back else "ok",
            note="no candidates"
            if skipped
            else "the answer holds no decision on these candidates"
            if fell_back
            else None,
            model=None if skipped else model,
            prompt_version=None if skipped else "1",
            keep_max=_KEEP_MAX,
            score_rule=None,
            verdicts=tuple(verdicts),
            raw_answer=None if skipped else "I would keep them." if fell_back else f'{{"keep":{kept}}}',
            usage=None if skipped else self._usage(40 + 60 * len(proposed), 40),
            latency_ms=0.01 if skipped else self._milliseconds(350),
        )

    def _rerank(self, kept: Sequence[str], model: str) -> RerankDecided:
        rng = self._random
        asked = len(kept) > _RETRIEVE_K
        fell_back = asked and rng.random() < _FALLBACKS[model] / 2
        named: list[int] = []
        if asked and not fell_back:
            named = sorted(range(1, len(kept) + 1), key=lambda place: place + rng.gauss(0, 3))[:_RETRIEVE_K]
        order = tuple(kept[n - 1] for n in full_order(named, len(kept)))
        return RerankDecided(
            strategy="llm",
            outcome="fallback" if fell_back else "ok" if asked else "skipped",
            note=None if asked else "there is nothing to choose: all or none are replayed",
            model=model if asked else None,
            prompt_version="1" if asked else None,
            retrieve_k=_RETRIEVE_K,
            order=order,
            named=len(named),
            replayed=order[:_RETRIEVE_K],
            raw_answer=None if not asked else "first the first" if fell_back else f'{{"top":{named}}}',
            usage=self._usage(900, 25) if asked else None,
            latency_ms=self._milliseconds(260) if asked else 0.01,
        )

    def _summarise(self, person: _Person, memory: _Memory, text: str, model: str, correlation_id: str) -> None:
        about = StreamId(person.user_id, memory.conversation_id)
        if self._random.random() < 0.01:
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
            usage=self._usage(320, 30),
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
        self._append(about, [payload], None, memory.memory_id)

    def _append(
        self,
        stream: StreamId,
        said: Iterable[Payload | Callable[[StreamHead], Payload]],
        correlation_id: str | None,
        causation_id: str | None,
        then: Callable[[Sequence[Event]], None] = lambda _events: None,
    ) -> None:
        """Append an answer's or one person's events as one append, each caused by the one before it."""
        payloads = list(said)
        ids = [self._new_id() for _ in payloads]
        causes = [causation_id, *ids]

        def decide(head: StreamHead) -> list[NewEvent]:
            return [
                NewEvent(event_id, payload(head) if callable(payload) else payload, correlation_id, cause)
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
        return _CHAT_MODELS[min(int(self._share_gone * len(_CHAT_MODELS)), len(_CHAT_MODELS) - 1)]

    def _milliseconds(self, usual: float) -> float:
        return round(usual * self._random.lognormvariate(0, 0.4), 3)

    def _usage(self, prompt: int, completion: int) -> Usage:
        prompt, completion = (int(self._milliseconds(tokens)) + 1 for tokens in (prompt, completion))
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

    def _new_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))


def _name(number: int) -> str:
    return _NAMES[number] if number < len(_NAMES) else f"{_NAMES[number % len(_NAMES)]}-{number // len(_NAMES)}"
