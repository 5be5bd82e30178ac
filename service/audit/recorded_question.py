"""An answered question with every decision about it: the input of a replay and what its result is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from domain.agreement import Choice
from domain.audit_reader import AuditReader
from domain.events import Event, GateDecided, RerankDecided, RetrievalRecorded, TurnRecorded, Usage
from domain.memory import Memory
from domain.prompt_reconstruction import memory_from
from domain.temporal.zones import in_zone, recorded_zone
from service.knobs import Knobs


@dataclass(frozen=True, slots=True)
class RecordedQuestion:
    """An answered question. ``position`` is how far the index had read when the turn searched it."""

    event: Event
    turn: TurnRecorded
    retrieval: RetrievalRecorded
    gate: GateDecided
    rerank: RerankDecided
    window: tuple[Memory, ...]
    knobs: Knobs

    @property
    def question_id(self) -> str:
        return self.event.event_id

    @property
    def asked_at(self) -> datetime:
        """When it was asked, in the zone of the person."""
        return in_zone(self.turn.ts, recorded_zone(self.knobs.timezone or "UTC"))

    @property
    def position(self) -> int:
        read_to = self.retrieval.index_position
        return read_to if read_to is not None else self.event.position - 1

    @property
    def kept(self) -> list[str]:
        return [verdict.memory_id for verdict in self.gate.verdicts if verdict.keep]

    @property
    def choice(self) -> Choice:
        """What gate and rerank chose, before the prompt's budget, which is not their decision."""
        replayed = set(self.rerank.replayed)
        return Choice(
            candidates=tuple(verdict.memory_id for verdict in self.gate.verdicts),
            replayed=self.rerank.replayed,
            summaries=tuple(memory_id for memory_id in self.rerank.order if memory_id not in replayed),
        )

    @property
    def usages(self) -> list[Usage | None]:
        """The usage of each model call behind these decisions, None where the endpoint did not report it."""
        asked = [decision for decision in (self.gate, self.rerank) if decision.model is not None]
        return [decision.usage for decision in asked]


def recorded_questions(
    reader: AuditReader, user_id: str, *, after: int, until: int, limit: int | None
) -> Iterator[RecordedQuestion | str]:
    """Yield a user's questions in (``after``, ``until``]; for one that cannot be replayed, yield the reason."""
    for event in reader.retrievals(user_id, after, until, limit):
        retrieval = event.payload
        if not isinstance(retrieval, RetrievalRecorded):
            yield "damaged"
            continue
        decided = reader.events_of_answer(event.correlation_id) if event.correlation_id is not None else []
        found = {type(item.payload): item.payload for item in decided}
        turn, gate, rerank = found.get(TurnRecorded), found.get(GateDecided), found.get(RerankDecided)
        if not (isinstance(turn, TurnRecorded) and isinstance(gate, GateDecided) and isinstance(rerank, RerankDecided)):
            yield "not answered"
        elif retrieval.outcome != "ok":
            yield "memory was not asked" if retrieval.outcome == "skipped" else "memory was degraded"
        else:
            window = reader.events_named(retrieval.window)
            memories = [memory_from(window[key]) for key in retrieval.window if key in window]
            yield RecordedQuestion(
                event=event,
                turn=turn,
                retrieval=retrieval,
                gate=gate,
                rerank=rerank,
                window=tuple(memory for memory in memories if memory is not None),
                knobs=Knobs.model_validate(retrieval.knobs),
            )
