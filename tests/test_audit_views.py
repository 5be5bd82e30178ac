"""The audit views say what the reader says, of any history; and the document says what they are.

Each view is compared whole, every column of every row, with what the events say once the reader has lifted them to
their newest shape. That they leave out blanked events, and what others say of a memory, follows from it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings

from domain import part_erasure
from domain.api_keys import NewKey, make_key, revoke_key
from domain.clock import iso
from domain.events import (
    CandidateFound,
    EmbeddingModelActivated,
    Event,
    GateDecided,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    Payload,
    PromptsActivated,
    RerankDecided,
    RetrievalRecorded,
    SettingsActivated,
    SummaryFailed,
    SummaryRecorded,
    ToolsCalled,
    TurnFailed,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
    Usage,
    Verdict,
)
from domain.identity import SYSTEM_STREAM, StreamId
from domain.ledger import Ledger
from domain.origin import Origin, is_imported
from domain.sqlite import DRIVER
from domain.statements import LATEST
from projections.audit_index import AUDIT_NAME, bring_up_to_date
from tests.audit_history import HIDES, NOT_ASKED, RICH, STEPS, Step, erase, hidden_by, hiding, history
from tests.ledgers import ROOT, STREAM, activated, new_ledger_file, opened, record, record_turn, summary_of

VIEWS = (
    "turns",
    "failed_turns",
    "summaries",
    "memories",
    "conversations",
    "retrievals",
    "candidates",
    "gate_decisions",
    "rerank_decisions",
    "memory_uses",
    "memory_as_of",
    "memory_history",
    "changes",
    "activations",
    "access",
    "usage_by_month",
    "hidings",
    "keys",
    "erasures",
)
EMBEDDING_FAILED = {"embedding_failed", "embedding_unavailable", "embedding_rejected", "embedding_misfit"}
Row = dict[str, Any]
P = TypeVar("P", bound=Payload)


def rows(ledger: Ledger | Path, sql: str, *values: object) -> list[Row]:
    path = ledger if isinstance(ledger, Path) else ledger.path
    with closing(DRIVER.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def events_of_type(ledger: Ledger, kind: type[P]) -> Iterator[tuple[Event, P, Any]]:
    """Return each event of a type with its payload, and with the payload as JSON would have it."""
    for event in ledger.reader.events_after(0, 10_000):
        if isinstance(event.payload, kind):
            yield event, event.payload, event.payload.model_dump(mode="json")


def any_history(test: Callable[[Ledger], None]) -> Callable[[], None]:
    @settings(deadline=None, max_examples=20)
    @given(STEPS)
    @example(RICH)
    def run(steps: Sequence[Step]) -> None:
        with history(steps) as ledger:
            test(ledger)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def envelope(event: Event, own_id: str = "event_id") -> Row:
    return {
        "position": event.position,
        own_id: event.event_id,
        "correlation_id": event.correlation_id,
        "user_id": event.user_id,
        "conversation_id": event.conversation_id,
        "recorded_at": iso(event.recorded_at),
    }


def fields(payload: Any, *names: str) -> Row:
    return {name: payload[name] for name in names}


def call_of(payload: Any) -> Row:
    """Return the columns of an event's model call; its JSON as values."""
    call = payload.get("call") or {}
    names = ("endpoint", "answered_by", "fingerprint", "attempts", "request", "dialect")
    return {name: call.get(name) for name in names} | {"sent_hash": call.get("messages_hash")}


def origin_of(event: Event) -> Row:
    origin = event.origin.model_dump() if event.origin is not None else {}
    return {name: origin.get(name) for name in ("actor", "route", "client", "request_id")}


def asked_of(payload: Any) -> Row:
    asked = payload["asked"] or {}
    return {"asked": asked.get("candidates")} | {name: asked.get(name) for name in ("line_chars", "question_chars")}


def with_values(found: list[Row], *names: str) -> list[Row]:
    """Return rows whose JSON columns are values."""
    return [row | {name: row[name] and json.loads(row[name]) for name in names} for row in found]


def tokens(payload: Any) -> Row:
    usage = payload["usage"] or {}
    return {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}


@any_history
def test_turns(ledger: Ledger) -> None:
    expected = []
    for event, _, payload in events_of_type(ledger, TurnRecorded):
        prompt, timings = payload["prompt"] or {}, payload["timings_ms"]
        names = ("turn_id", "ts", "user", "assistant", "client_system", "imported_from", "model", "finish_reason")
        expected.append(
            envelope(event, "memory_id")
            | fields(payload, *names)
            | tokens(payload)
            | {name: prompt.get(name) for name in ("layout", "system_version", "budget_tokens", "messages_hash")}
            | {f"{name}_ms": timings.get(name) for name in ("first_token", "answer", "total")}
            | call_of(payload)
            | origin_of(event)
        )
    found = rows(ledger, "SELECT * FROM turns ORDER BY position")
    assert with_values(found, "request", "dialect") == expected


@any_history
def test_failed_turns(ledger: Ledger) -> None:
    names = ("ts", "user", "partial_assistant", "model", "code", "status", "error")
    expected = []
    for event, _, payload in events_of_type(ledger, TurnFailed):
        prompt = payload["prompt"] or {}
        expected.append(
            envelope(event)
            | fields(payload, *names)
            | {"total_ms": payload["timings_ms"].get("total"), "imported": int(is_imported(event.origin))}
            | tokens(payload)
            | {name: prompt.get(name) for name in ("layout", "system_version", "messages_hash")}
            | call_of(payload)
            | origin_of(event)
        )
    found = rows(ledger, "SELECT * FROM failed_turns ORDER BY position")
    assert with_values(found, "request", "dialect") == expected


@any_history
def test_summaries(ledger: Ledger) -> None:
    sources: dict[type[Payload], str] = {MemoryEdited: "edited", SummaryRecorded: "model", SummaryFailed: "failed"}
    expected = []
    for kind, source in sources.items():
        for event, _, payload in events_of_type(ledger, kind):
            row = envelope(event) | {"memory_id": event.causation_id, "source": source}
            row |= {"imported": int(is_imported(event.origin))}
            del row["correlation_id"]
            names = ("turn_id", "summary", "model", "prompt_version", "attempts", "error")
            asked, call = payload.get("asked") or {}, call_of(payload)
            expected.append(
                row
                | call
                | {name: payload.get(name) for name in names}
                | {name: asked.get(name) for name in ("question_chars", "answer_chars")}
                | tokens({"usage": None} | payload)
                | origin_of(event)
            )
    found = rows(ledger, "SELECT * FROM summaries ORDER BY position")
    assert with_values(found, "request", "dialect") == sorted(expected, key=lambda row: row["position"])


@any_history
def test_memories(ledger: Ledger) -> None:
    found = rows(ledger, "SELECT * FROM memories ORDER BY position")
    turns = list(events_of_type(ledger, TurnRecorded))
    assert [row["memory_id"] for row in found] == [event.event_id for event, _, _ in turns]
    for row, (event, _, payload) in zip(found, turns, strict=True):
        own = [
            other
            for other in ledger.reader.events_after(0, 10_000)
            if (other.causation_id, other.user_id) == (event.event_id, event.user_id)
        ]
        edits = [other for other in own if isinstance(other.payload, MemoryEdited)]
        summaries = [other for other in own if isinstance(other.payload, SummaryRecorded)]
        newest = (edits or summaries)[-1] if edits or summaries else None
        states: Row = {}
        for how in HIDES:
            since = hiding(own, how)
            states |= {
                how: int(since is not None),
                f"{how}_at": iso(since.recorded_at) if since is not None else None,
                f"{how}_reason": getattr(since.payload, "reason") if since is not None else None,  # noqa: B009
            }
        envelope_of_turn = envelope(event, "memory_id")
        del envelope_of_turn["recorded_at"]
        assert row == envelope_of_turn | fields(payload, "turn_id", "ts", "user", "assistant") | {
            "summary": getattr(newest.payload, "summary") if newest is not None else None,  # noqa: B009
            "summary_source": None if newest is None else "edited" if edits else "model",
            "edited_at": iso(edits[-1].recorded_at) if edits else None,
            **states,
        }
        known = ledger.reader.memories(event.user_id, [event.position])
        assert list(known) == ([] if row["forgotten"] or row["superseded"] else [event.position])
        for memory in known.values():
            assert (memory.user, memory.assistant, memory.summary) == (row["user"], row["assistant"], row["summary"])


@any_history
def test_conversations(ledger: Ledger) -> None:
    found = rows(ledger, "SELECT * FROM conversations")
    talks: dict[tuple[str, str], list[Event]] = {}
    for event in ledger.reader.events_after(0, 10_000):
        if isinstance(event.payload, TurnRecorded | TurnFailed):
            talks.setdefault((event.user_id, event.conversation_id), []).append(event)
    assert len(found) == len(talks)
    about: dict[tuple[str, str, str], list[Event]] = {}
    for event in ledger.reader.events_after(0, 10_000):
        about.setdefault((event.user_id, event.conversation_id, event.causation_id or ""), []).append(event)
    for row in found:
        events = talks[row["user_id"], row["conversation_id"]]
        times = [iso(event.recorded_at) for event in events]
        turns = [event.payload for event in events if isinstance(event.payload, TurnRecorded)]
        own = [said for key, said in about.items() if key[:2] == (row["user_id"], row["conversation_id"])]
        assert row == {
            "user_id": row["user_id"],
            "conversation_id": row["conversation_id"],
            "turns": len(turns),
            "failed_turns": sum(isinstance(event.payload, TurnFailed) for event in events),
            "forgotten": sum(hiding(said, "forgotten") is not None for said in own),
            "superseded": sum(hiding(said, "superseded") is not None for said in own),
            "first_at": min(times, default=None),
            "last_at": max(times, default=None),
            "title": turns[0].user if turns else None,
        }
    for user in {row["user_id"] for row in found}:
        # A person's list leaves out what is hidden; an auditor's view counts it.
        remembered = rows(
            ledger,
            "SELECT conversation_id, count(*) AS turns FROM memories WHERE user_id = ? AND NOT forgotten "
            "AND NOT superseded GROUP BY 1",
            user,
        )
        known = {talk.conversation_id: talk.turns for talk in ledger.history.conversations(user, 100)}
        assert {row["conversation_id"]: row["turns"] for row in remembered} == known


@any_history
def test_retrievals(ledger: Ledger) -> None:
    expected = []
    for event, payload, as_json in events_of_type(ledger, RetrievalRecorded):
        names = "query outcome degraded_code degraded_reason mode fusion time_range embedding_model dimensions"
        names += " index_position embed_ms search_ms lexical_ms knobs"
        expected.append(
            envelope(event)
            | fields(as_json, *names.split())
            | {
                "window_turns": len(payload.window),
                "candidates": len(payload.candidates),
                "excluded": sum(candidate.excluded is not None for candidate in payload.candidates),
                "imported": int(is_imported(event.origin)),
            }
        )
    found = rows(ledger, "SELECT * FROM retrievals ORDER BY position")
    for row in found:
        row |= {name: row[name] and json.loads(row[name]) for name in ("fusion", "time_range", "knobs")}
    assert found == expected


@any_history
def test_gate_decisions(ledger: Ledger) -> None:
    expected = []
    for event, payload, as_json in events_of_type(ledger, GateDecided):
        names = ("strategy", "outcome", "note", "model", "prompt_version", "keep_max", "score_rule", "raw_answer")
        expected.append(
            envelope(event)
            | fields(as_json, *names, "latency_ms")
            | tokens(as_json)
            | call_of(as_json)
            | asked_of(as_json)
            | {
                "request_id": origin_of(event)["request_id"],
                "imported": int(is_imported(event.origin)),
                "candidates": len(payload.verdicts),
                "kept": sum(verdict.keep for verdict in payload.verdicts),
                "over_limit": sum(verdict.over_limit for verdict in payload.verdicts),
            }
        )
    found = rows(ledger, "SELECT * FROM gate_decisions ORDER BY position")
    assert with_values(found, "score_rule", "request", "dialect") == expected


@any_history
def test_rerank_decisions(ledger: Ledger) -> None:
    names = (
        "strategy",
        "outcome",
        "note",
        "model",
        "prompt_version",
        "retrieve_k",
        "named",
        "raw_answer",
        "latency_ms",
    )
    expected = [
        envelope(event)
        | fields(as_json, *names)
        | tokens(as_json)
        | call_of(as_json)
        | asked_of(as_json)
        | {"candidates": len(payload.order), "replayed": len(payload.replayed)}
        | {"request_id": origin_of(event)["request_id"], "imported": int(is_imported(event.origin))}
        for event, payload, as_json in events_of_type(ledger, RerankDecided)
    ]
    found = rows(ledger, "SELECT * FROM rerank_decisions ORDER BY position")
    assert with_values(found, "request", "dialect") == expected


def shown_in(turn: TurnRecorded | TurnFailed | None, memory_id: str) -> str:
    """Return how a turn showed a memory."""
    if turn is not None:
        roles = {
            "replayed": turn.replayed,
            "summary": turn.summarised,
            "neighbor": turn.neighbours,
            "window": turn.window,
        }
        for role, shown in roles.items():
            if memory_id in shown:
                return role
    return "not_shown"


def was_asked(gate: GateDecided, verdict: Verdict) -> bool | None:
    """Tell whether a model was asked about a candidate, None where none was asked at all."""
    if gate.model is None:
        return None
    return verdict.n <= gate.asked.candidates if gate.asked is not None else verdict.reason != NOT_ASKED


@any_history
def test_candidates(ledger: Ledger) -> None:
    gates = {event.correlation_id: payload for event, payload, _ in events_of_type(ledger, GateDecided)}
    reranks = {event.correlation_id: payload for event, payload, _ in events_of_type(ledger, RerankDecided)}
    turns: dict[str | None, TurnRecorded | TurnFailed] = {}
    turns |= {event.correlation_id: payload for event, payload, _ in events_of_type(ledger, TurnRecorded)}
    turns |= {event.correlation_id: payload for event, payload, _ in events_of_type(ledger, TurnFailed)}
    about: defaultdict[tuple[str, str | None], list[Event]] = defaultdict(list)
    for event in ledger.reader.events_after(0, 10_000):
        about[event.user_id, event.causation_id].append(event)
    expected = []
    for event, payload, _ in events_of_type(ledger, RetrievalRecorded):
        gate = gates[event.correlation_id]
        verdicts = {verdict.memory_id: verdict for verdict in gate.verdicts}
        rerank, turn = reranks.get(event.correlation_id), turns.get(event.correlation_id)
        for candidate in payload.candidates:
            known = candidate.model_dump(mode="json")
            verdict = verdicts.get(candidate.memory_id)
            shown_as = shown_in(turn, candidate.memory_id)
            asked = None if verdict is None else was_asked(gate, verdict)
            if shown_as in {"replayed", "summary", "neighbor"}:
                fate = {"summary": "summary_only", "neighbor": "neighbour"}.get(shown_as, shown_as)
            elif candidate.excluded is not None:
                fate = "excluded"
            elif shown_as == "window":
                fate = "window"
            elif verdict is None or verdict.keep:
                fate = "not_picked"
            else:
                fate = "not_asked" if asked is False else "dropped"
            order = rerank.order if rerank is not None else ()
            own = envelope(event)
            expected.append(
                fields(own, "correlation_id", "user_id", "conversation_id", "recorded_at")
                | fields(known, "memory_id", "rank", "score", "dense_rank", "dense_score", "lexical_rank")
                | fields(known, "lexical_score", "matched", "summary_position", "excluded")
                | {
                    "retrieval_position": event.position,
                    "query": payload.query,
                    "memory_position": candidate.turn_position,
                    "memory_conversation_id": candidate.conversation_id,
                    "memory_turn_id": candidate.turn_id,
                    "gate_asked": None if asked is None else int(asked),
                    "gate_keep": None if verdict is None or asked is False else int(verdict.keep),
                    "shown_as": shown_as,
                    "gate_over_limit": None if verdict is None else int(verdict.over_limit),
                    "gate_reason": None if verdict is None else verdict.reason,
                    "rerank_place": order.index(candidate.memory_id) + 1 if candidate.memory_id in order else None,
                    "fate": fate,
                    "imported": int(is_imported(event.origin)),
                    "hidden_by": hidden_by(about[event.user_id, candidate.memory_id]),
                }
            )
    assert rows(ledger, "SELECT * FROM candidates ORDER BY retrieval_position, rank") == expected
    for user in {event.user_id for event in ledger.reader.events_after(0, 10_000)}:
        own_rows = [row for row in expected if row["user_id"] == user]
        assert rows(ledger, "SELECT * FROM candidates WHERE user_id = ? ORDER BY 2, 11", user) == own_rows


@any_history
def test_candidates_and_memory_uses_never_contradict(ledger: Ledger) -> None:
    """What was shown of an answer's candidates is in both, in the same role, and nothing else is."""
    shown = "SELECT correlation_id, memory_id, shown_as FROM {} WHERE {} ORDER BY 1, 2, 3"
    answered = "shown_as <> 'not_shown' AND correlation_id IN (SELECT correlation_id FROM turns)"
    proposed = "(correlation_id, memory_id) IN (SELECT correlation_id, memory_id FROM candidates)"
    assert rows(ledger, shown.format("candidates", answered)) == rows(ledger, shown.format("memory_uses", proposed))
    [contradicting] = rows(
        ledger,
        "SELECT count(*) AS n FROM candidates WHERE (fate IN ('dropped', 'not_asked', 'not_picked')) <> "
        "(shown_as = 'not_shown' AND excluded IS NULL)",
    )
    assert contradicting["n"] == 0


@any_history
def test_memory_uses(ledger: Ledger) -> None:
    searched = {event.correlation_id: payload for event, payload, _ in events_of_type(ledger, RetrievalRecorded)}
    everything = list(ledger.reader.events_after(0, 10_000))
    said = {event.event_id: event.payload for event in everything}

    of_schema_1 = {
        row["correlation_id"]
        for row in rows(
            ledger, "SELECT correlation_id FROM events WHERE type = 'RetrievalRecorded' AND schema_version = 1"
        )
    }

    def held_before(answer: Event, memory_id: str) -> str | None:
        own = [event for event in everything[: answer.position - 1] if event.user_id == answer.user_id]
        about = [event.payload for event in own if event.causation_id == memory_id]
        edits = [payload.summary for payload in about if isinstance(payload, MemoryEdited)]
        made = [payload.summary for payload in about if isinstance(payload, SummaryRecorded)]
        return next(reversed(edits or made), None)

    def text_then(answer: Event, candidate: CandidateFound | None, role: str, memory_id: str) -> str:
        if role == "summary_only" and candidate is not None and answer.correlation_id in of_schema_1:
            if (held := held_before(answer, memory_id)) is not None:
                return held
        elif role == "summary_only" and candidate is not None and candidate.summary_position is not None:
            at = everything[candidate.summary_position - 1].payload
            if isinstance(at, SummaryRecorded | MemoryEdited):
                return at.summary
        memory = said[memory_id]
        assert isinstance(memory, TurnRecorded)
        return f"{memory.user}\n{memory.assistant}"

    expected = []
    for event, payload, _ in events_of_type(ledger, TurnRecorded):
        asked = searched.get(event.correlation_id)
        known = {candidate.memory_id: candidate for candidate in (asked.candidates if asked is not None else ())}
        roles = {
            "neighbour": payload.neighbours,
            "replayed": payload.replayed,
            "summary_only": payload.summarised,
            "window": payload.window,
        }
        for role, memory_ids in roles.items():
            for place, memory_id in enumerate(memory_ids, start=1):
                candidate = known.get(memory_id)
                own = envelope(event)
                expected.append(
                    fields(own, "correlation_id", "user_id", "conversation_id", "recorded_at")
                    | {
                        "memory_id": memory_id,
                        "answer_position": event.position,
                        "turn_id": payload.turn_id,
                        "role": role,
                        "shown_as": {"summary_only": "summary", "neighbour": "neighbor"}.get(role, role),
                        "place": place,
                        "shown_text": text_then(event, candidate, role, memory_id),
                        "score": candidate.score if candidate is not None else None,
                        "dense_score": candidate.dense_score if candidate is not None else None,
                    }
                )
    found = rows(ledger, "SELECT * FROM memory_uses ORDER BY answer_position, role, place")
    assert found == expected
    for event, _, _ in events_of_type(ledger, TurnRecorded):
        for used in ledger.history.answered_with(event.user_id, [event.position]).values():
            shown = {
                "replayed": [(memory.memory_id, scores.fused) for memory, scores in used.replayed],
                "summary_only": [(memory.memory_id, scores.fused) for memory, scores in used.summarised],
            }
            for role, pairs in shown.items():
                served = rows(
                    ledger,
                    "SELECT memory_id, score FROM memory_uses WHERE answer_position = ? AND role = ? "
                    "AND memory_id IN (SELECT memory_id FROM memories WHERE NOT forgotten AND NOT superseded) "
                    "ORDER BY place",
                    event.position,
                    role,
                )
                assert [(row["memory_id"], row["score"]) for row in served] == pairs


def _about(ledger: Ledger, turn: Event) -> list[Event]:
    """Return a person's own events about a turn, in order."""
    return [
        event
        for event in ledger.reader.events_after(0, 10_000)
        if (event.causation_id, event.user_id) == (turn.event_id, turn.user_id)
    ]


@any_history
def test_memory_as_of(ledger: Ledger) -> None:
    """At every position of the ledger, the rows that hold then are the memories of then."""
    everything = list(ledger.reader.events_after(0, 10_000))
    found = rows(ledger, "SELECT * FROM memory_as_of ORDER BY from_position")
    for row in found:
        assert row["valid_from"] == iso(everything[row["from_position"] - 1].recorded_at)
        until = row["until_position"]
        assert row["valid_until"] == (None if until is None else iso(everything[until - 1].recorded_at))
    turns = [event for event, _, _ in events_of_type(ledger, TurnRecorded)]
    about = {turn.event_id: _about(ledger, turn) for turn in turns}
    for position in range(1, len(everything) + 1):
        then: dict[str, tuple[str | None, str | None]] = {}
        for turn in turns:
            until_then = [event for event in about[turn.event_id] if event.position <= position]
            if turn.position > position or hidden_by(until_then) is not None:
                continue
            own = [event.payload for event in until_then]
            edits = [payload for payload in own if isinstance(payload, MemoryEdited)]
            models = [payload for payload in own if isinstance(payload, SummaryRecorded)]
            newest = (edits or models)[-1] if edits or models else None
            source = None if newest is None else "edited" if edits else "model"
            then[turn.event_id] = (newest.summary if newest is not None else None, source)
        held = {
            row["memory_id"]: (row["summary"], row["summary_source"])
            for row in found
            if row["from_position"] <= position and (row["until_position"] or LATEST) > position
        }
        assert held == then


@any_history
def test_memory_history(ledger: Ledger) -> None:
    kinds: dict[type[Payload], str] = {
        SummaryRecorded: "summarised",
        SummaryFailed: "summary_failed",
        MemoryEdited: "corrected",
        MemoryForgotten: "forgotten",
        MemoryRestored: "restored",
        TurnSuperseded: "superseded",
        TurnRestored: "returned_to",
    }
    used_as = {"replayed": "replayed", "summarised": "summary", "neighbours": "neighbor"}
    expected = set()
    for turn, payload, _ in events_of_type(ledger, TurnRecorded):
        what = "said" if payload.imported_from is None else "imported"
        expected.add((turn.event_id, turn.position, what))
        for event in _about(ledger, turn):
            if type(event.payload) in kinds:
                expected.add((turn.event_id, event.position, kinds[type(event.payload)]))
        for part, role in used_as.items():
            expected |= {(memory_id, turn.position, f"used as {role}") for memory_id in getattr(payload, part)}
    found = rows(ledger, "SELECT * FROM memory_history")
    assert {(row["memory_id"], row["position"], row["what"]) for row in found} == expected
    assert len(found) == len(expected)


@any_history
def test_changes(ledger: Ledger) -> None:
    expected = []
    for event in ledger.reader.events_after(0, 10_000):
        said = event.payload
        found: tuple[str, str, str | None, str | None]
        match said:
            case TurnRecorded():
                what = "said" if said.imported_from is None else "imported"
                found = (event.event_id, what, f"{said.user}\n{said.assistant}", None)
            case SummaryRecorded() | MemoryEdited():
                what = "corrected" if isinstance(said, MemoryEdited) else "summarised"
                found = (event.causation_id or "", what, said.summary, None)
            case MemoryForgotten() | MemoryRestored() | TurnSuperseded():
                names_of = {MemoryForgotten: "forgotten", MemoryRestored: "restored", TurnSuperseded: "superseded"}
                found = (event.causation_id or "", names_of[type(said)], None, said.reason)
            case TurnRestored():
                found = (event.causation_id or "", "returned_to", None, None)
            case _:
                continue
        names = ("memory_id", "what", "text", "reason")
        own = envelope(event)
        own = fields(own, "position", "recorded_at", "user_id", "conversation_id")
        expected.append(own | dict(zip(names, found, strict=True)) | origin_of(event))
    assert rows(ledger, "SELECT * FROM changes ORDER BY position") == expected


@any_history
def test_hidings(ledger: Ledger) -> None:
    everything = list(ledger.reader.events_after(0, 10_000))
    expected = []
    for event in everything:
        for how, (hides, restores) in HIDES.items():
            if isinstance(event.payload, hides):
                until = (
                    later.position
                    for later in everything[event.position :]
                    if isinstance(later.payload, restores)
                    and (later.causation_id, later.user_id) == (event.causation_id, event.user_id)
                )
                own = {"memory_id": event.causation_id, "hidden_by": how, "reason": getattr(event.payload, "reason")}  # noqa: B009
                place = {"from_position": event.position, "until_position": next(until, None)}
                when = {"hidden_at": iso(event.recorded_at)}
                expected.append(fields(envelope(event), "user_id", "conversation_id") | own | place | when)
    assert rows(ledger, "SELECT * FROM hidings ORDER BY from_position") == expected


@any_history
def test_usage_by_month(ledger: Ledger) -> None:
    expected: dict[tuple[str, str, str, str | None], list[int | None]] = {}

    def add(event: Event, stage: str, model: str | None, failed: bool, usage: Usage | None) -> None:
        key = (iso(event.recorded_at)[:7], event.user_id, stage, model)
        sums = expected.setdefault(key, [0, 0, None, None])
        sums[0], sums[1] = (sums[0] or 0) + 1, (sums[1] or 0) + failed
        if usage is not None:
            sums[2], sums[3] = (sums[2] or 0) + usage.prompt_tokens, (sums[3] or 0) + usage.completion_tokens

    for event in ledger.reader.events_after(0, 10_000):
        if is_imported(event.origin):
            continue
        match event.payload:
            case TurnRecorded() as said if said.imported_from is None:
                add(event, "answer", said.model, False, said.usage)
            case TurnFailed() as said:
                add(event, "answer", said.model, True, said.usage)
            case ToolsCalled() as said:
                add(event, "answer", said.model, False, said.usage)
            case GateDecided() as said if said.model is not None:
                add(event, "gate", said.model, said.outcome == "fallback", said.usage)
            case RerankDecided() as said if said.model is not None:
                add(event, "rerank", said.model, said.outcome == "fallback", said.usage)
            case SummaryRecorded() as said if said.model != "imported":
                add(event, "summary", said.model, False, said.usage)
            case SummaryFailed() as said:
                add(event, "summary", said.model, True, said.usage)
            case RetrievalRecorded() as said:
                failed = said.degraded_code in EMBEDDING_FAILED
                if failed or said.embedding_model is not None:
                    add(event, "embed", said.embedding_model, failed, None)
    found = {
        (row["month"], row["user_id"], row["stage"], row["model"]): [
            row["calls"],
            row["failed"],
            row["prompt_tokens"],
            row["completion_tokens"],
        ]
        for row in rows(ledger, "SELECT * FROM usage_by_month")
    }
    assert found == expected


def test_activations(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        record(ledger, SYSTEM_STREAM, PromptsActivated(versions={"GATE_SYSTEM": "1"}, texts={"GATE_SYSTEM": "Choose."}))
        record(ledger, SYSTEM_STREAM, SettingsActivated(settings={"gate": "score"}))
        record(
            ledger,
            SYSTEM_STREAM,
            EmbeddingModelActivated(
                model="e5", dimensions=384, passage_prefix="", memories=1, vectors=1, ledger_position=1
            ),
        )
        found = rows(ledger, "SELECT what, value, dimensions FROM activations ORDER BY position")
        assert [(row["what"], row["value"], row["dimensions"]) for row in found] == [
            ("prompts", '{"GATE_SYSTEM":"1"}', None),
            ("settings", '{"gate":"score"}', None),
            ("embedding_model", "e5", 384),
        ]


def test_keys(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        now = ledger.clock.now()
        later = now + timedelta(days=30)
        wanted = (
            NewKey("ann", name="laptop"),
            NewKey(None, trust_headers=True, user_is="conversation", expires_at=later),
            NewKey("bob", read_only=True, expires_at=later),
            NewKey("carl", expires_at=now),
        )
        made = [make_key(ledger, each, "account:opm")[1] for each in wanted]
        for key in made[2:]:
            revoke_key(ledger, key.key_id, "account:ann")
        found = {row["key_id"]: row for row in rows(ledger, "SELECT * FROM keys")}
        for key in ledger.keys.all():
            ends = [end for end in (key.expires_at, key.revoked_at) if end is not None]
            said = {name: getattr(key, name) for name in found[key.key_id] if name not in ("actor", "valid_until")}
            said |= {"actor": key.label, "valid_until": min(ends) if ends else None}
            assert found[key.key_id] == {
                name: iso(value) if isinstance(value, datetime) else value for name, value in said.items()
            }
        assert [found[key.key_id]["valid_until"] is None for key in made] == [True, False, False, False]


def test_another_users_events_about_a_memory_are_ignored(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        memory = record_turn(ledger, STREAM)
        for word in (
            MemoryEdited(memory_id=memory.event_id, turn_id=1, summary="theirs"),
            summary_of(memory.event_id),
            MemoryForgotten(memory_id=memory.event_id, turn_id=1),
            TurnSuperseded(memory_id=memory.event_id, turn_id=1, reason="left"),
        ):
            record(ledger, StreamId("bob", "trip"), word, causation_id=memory.event_id)
            expected = {"summary": None, "forgotten": 0, "superseded": 0}
            assert rows(ledger, "SELECT summary, forgotten, superseded FROM memories") == [expected]


def test_an_erased_person_is_in_no_view(tmp_path: Path) -> None:
    path = new_ledger_file(tmp_path)
    with opened(path) as ledger:
        record_turn(ledger, STREAM)
        assert rows(ledger, "SELECT user FROM memories") == [{"user": "Where to?"}]
        erase(ledger, STREAM.user_id)
        left = {view: rows(ledger, f"SELECT * FROM {view}") for view in VIEWS}  # noqa: S608 - constants
        [erased] = left.pop("erasures")
        assert all(found == [] for found in left.values())
        assert (erased["scope"], erased["memories"], erased["events"]) == ("person", 1, 2)
        assert STREAM.user_id not in json.dumps(erased)
        assert rows(ledger, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]  # the figures' indices followed


def test_an_erased_part_is_told_by_whom_when_and_why(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        turn = record_turn(ledger, STREAM)
        record(ledger, STREAM, summary_of(turn.event_id), causation_id=turn.event_id)
        kept = record_turn(ledger, STREAM, "What is two and two?", "Four.")
        user = STREAM.user_id
        origin = Origin(actor="account:opm", route="opm erase", client="opm 1", request_id="req-1")
        part = part_erasure.part_of_memories(ledger.persons, user, [turn.event_id])
        part_erasure.begin(ledger, user, part, "asked by letter", origin)
        [begun] = ledger.persons.parts_begun()
        part_erasure.blank(ledger, user, begun.event_id, part.positions)
        [open_still] = rows(ledger, "SELECT * FROM erasures")
        assert open_still["completed_at"] is None
        part_erasure.complete(ledger, user, begun.event_id)
        own = {**fields(envelope(begun), "position", "recorded_at", "user_id"), "reason": "asked by letter"}
        [erased] = rows(ledger, "SELECT * FROM erasures")
        assert erased.pop("completed_at") is not None
        counted = {"scope": "memory", "memories": 1, "events": 2, "positions": "[[1,2]]"}
        assert erased == {**own, "erasure_id": begun.event_id, **counted, **origin_of(begun)}
        [change] = rows(ledger, "SELECT * FROM changes WHERE what = 'erased'")
        said = {"conversation_id": "", "memory_id": None, "what": "erased", "text": "memory: 1 memories, 2 events"}
        assert change == {**own, **said, **origin_of(begun)}
        [last] = rows(ledger, "SELECT * FROM memory_history WHERE memory_id = ?", turn.event_id)
        assert (last["what"], last["position"], last["text"]) == ("erased", begun.position, "asked by letter")
        assert (last["actor"], last["correlation_id"]) == ("account:opm", turn.correlation_id)
        lives = rows(ledger, "SELECT what FROM memory_history WHERE memory_id = ?", kept.event_id)
        assert lives == [{"what": "said"}]


def test_a_failed_embedding_is_a_failed_call_of_the_model_in_use(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"query": "q", "knobs": {}, "window": (), "outcome": "degraded"}
    with opened(new_ledger_file(tmp_path)) as ledger:
        record(ledger, SYSTEM_STREAM, activated("emb-1"))
        record(ledger, STREAM, RetrievalRecorded(**asked, degraded_code="embedding_unavailable"))
        record(ledger, STREAM, RetrievalRecorded(**asked, degraded_code="index_catching_up", embedding_model="emb-1"))
        [used] = rows(ledger, "SELECT stage, model, calls, failed FROM usage_by_month")
    assert used == {"stage": "embed", "model": "emb-1", "calls": 2, "failed": 1}


def test_the_document_names_each_view_with_its_columns(tmp_path: Path) -> None:
    path = new_ledger_file(tmp_path)
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    documented = {
        name: re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
        for name, section in re.findall(r"^### `(\w+)`$(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    }
    names = [row["name"] for row in rows(path, "SELECT name FROM sqlite_schema WHERE type = 'view'")]
    assert sorted(names) == sorted(VIEWS)
    for name in (*names, "events"):
        assert documented.pop(name) == [row["name"] for row in rows(path, f"PRAGMA table_info({name})")], name
    with opened(path) as ledger:
        bring_up_to_date(ledger.reader, tmp_path)
    for row in rows(tmp_path / AUDIT_NAME, "SELECT name FROM sqlite_schema WHERE type = 'table'"):
        columns = rows(tmp_path / AUDIT_NAME, f"PRAGMA table_info({row['name']})")
        assert documented.pop(row["name"]) == [column["name"] for column in columns], row["name"]
    assert documented == {}


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ("candidates WHERE correlation_id = 'x'", "events_correlation (correlation_id=?)"),
        ("candidates WHERE user_id = 'x'", "events_user_type (user_id=? AND type=?)"),
        ("memory_uses WHERE correlation_id = 'x'", "events_correlation (correlation_id=?)"),
        ("memory_uses WHERE user_id = 'x'", "events_user_type (user_id=? AND type=?)"),
        ("candidates JOIN memories USING (memory_id) WHERE candidates.correlation_id = 'x'", "(event_id=?)"),
        ("memories WHERE memory_id = 'x'", "(event_id=?)"),
        ("hidings WHERE memory_id = 'x'", "events_causation (causation_id=? AND type=?)"),
        ("hidings WHERE user_id = 'x'", "events_user_type (user_id=? AND type=?)"),
        ("summaries WHERE memory_id = 'x'", "events_causation (causation_id=? AND type=?)"),
        ("conversations WHERE user_id = 'x'", "(user_id=?)"),
        ("changes WHERE user_id = 'x'", "events_user_type (user_id=? AND type=?)"),
        ("memory_history WHERE memory_id = 'x' AND user_id = 'y'", "(event_id=?)"),
        ("erasures WHERE user_id = 'x'", "events_user_type (user_id=? AND type=?)"),
    ],
)
def test_a_filter_reaches_the_index_through_the_view(tmp_path: Path, asked: str, index: str) -> None:
    question = f"EXPLAIN QUERY PLAN SELECT * FROM {asked}"  # noqa: S608 - a constant
    plan = [row["detail"] for row in rows(new_ledger_file(tmp_path), question)]
    assert any(index in step for step in plan), plan
    assert not any("events_type" in step or step.startswith("SCAN events") for step in plan), plan


@pytest.mark.parametrize(
    ("columns", "view", "index"),
    [
        ("model, strategy, outcome, latency_ms, prompt_tokens", "gate_decisions", "events_gate_figures"),
        ("model, strategy, outcome, latency_ms, completion_tokens", "rerank_decisions", "events_rerank_figures"),
        ("outcome, degraded_code, embed_ms, search_ms, lexical_ms", "retrievals", "events_retrieval_figures"),
        ("model, first_token_ms, answer_ms, total_ms, prompt_tokens", "turns", "events_turn_figures"),
    ],
)
def test_figures_are_answered_without_reading_an_event(tmp_path: Path, columns: str, view: str, index: str) -> None:
    path = new_ledger_file(tmp_path)
    for condition in ("", " WHERE recorded_at >= '2026'"):
        program = rows(path, f"EXPLAIN SELECT {columns} FROM {view}{condition}")  # noqa: S608 - constants
        opened_trees = [step for step in program if step["opcode"] == "OpenRead"]
        names = {row["rootpage"]: row["name"] for row in rows(path, "SELECT name, rootpage FROM sqlite_schema")}
        assert [names[step["p2"]] for step in opened_trees] in ([index], ["events", index]), program
        table = [step["p1"] for step in opened_trees if names[step["p2"]] == "events"]
        reads = [step for step in program if step["opcode"] == "Column" and step["p1"] in table]
        assert reads == []
