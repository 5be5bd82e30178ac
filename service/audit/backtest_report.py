"""The report of a backtest as one JSON document; the table, the JSON output and the page are made from it.

Results hold ids only. Their texts come from the ledger as it is today, so a memory hidden since shows no text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from domain.audit_reader import AuditReader
from domain.events import JsonObject, RetrievalRecorded
from service.audit.backtest import Backtest
from service.audit.replay import Cost

FORGOTTEN = "(forgotten or superseded since)"


def report_of(reader: AuditReader, backtest: Backtest) -> JsonObject:
    """Return the report as JSON values, with ``memories`` and ``per_question`` in reading order."""
    compared = backtest.comparisons
    came_in = Counter(memory_id for item in compared for memory_id in item.came_in)
    went_out = Counter(memory_id for item in compared for memory_id in item.went_out)
    changed = {*came_in, *went_out}
    for item in compared:
        changed |= {*item.replayed_instead, *item.summary_instead}
    questions = reader.events_named([result.question_id for result in backtest.results])
    period = backtest.period
    return {
        "user_id": period.user_id,
        "after": period.after,
        "until": period.until,
        "settings": {**backtest.variant.as_json(), "embedding_model": backtest.embedding_model},
        "results_file": str(backtest.path),
        "complete": backtest.complete,
        "trouble": backtest.trouble,
        "left_out": dict(backtest.left_out),
        "unanswered": len(backtest.unanswered),
        "resumed": backtest.resumed,
        "totals": {
            "questions": len(compared),
            "exact": sum(item.exact for item in compared),
            "agreement": _mean([item.agreement for item in compared]),
            "agreement_replayed": _mean([item.agreement_replayed for item in compared]),
            "came_in": came_in.total(),
            "went_out": went_out.total(),
            "taken_over": sum(len(result.taken_over) for result in backtest.results),
            "fallbacks": sum(len(result.fallback) for result in backtest.results),
            "spent": _total([result.spent for result in backtest.results]),
            "spent_then": _total([result.spent_then for result in backtest.results]),
            "questions_embedded": backtest.questions_embedded,
            "memories_embedded": backtest.embedded,
        },
        "memories": sorted(
            (
                {**memory, "came_in": came_in[memory["memory_id"]], "went_out": went_out[memory["memory_id"]]}
                for memory in _memories(reader, period.user_id, changed)
            ),
            key=lambda memory: (-memory["came_in"] - memory["went_out"], memory["date"]),
        ),
        "per_question": [
            {
                "question_id": result.question_id,
                "correlation_id": questions[result.question_id].correlation_id,
                "position": result.position,
                "recorded_at": questions[result.question_id].recorded_at.isoformat(),
                "question": _query(questions[result.question_id].payload),
                "then": result.then.model_dump(mode="json"),
                "now": result.now.model_dump(mode="json"),
                **item.model_dump(mode="json"),
                "taken_over": list(result.taken_over),
                "fallback": list(result.fallback),
                "spent": result.spent.model_dump(),
                "spent_then": result.spent_then.model_dump(),
            }
            for result, item in zip(backtest.results, compared, strict=True)
            if result.question_id in questions
        ],
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def _total(costs: Sequence[Cost]) -> JsonObject:
    return sum(costs, Cost()).model_dump()


def _memories(reader: AuditReader, user_id: str, memory_ids: Collection[str]) -> list[JsonObject]:
    events = reader.events_named(memory_ids)
    known = reader.memories(user_id, [event.position for event in events.values()])
    return [
        {
            "memory_id": memory_id,
            "date": event.recorded_at.isoformat(),
            "note": known[event.position].line if event.position in known else FORGOTTEN,
        }
        for memory_id, event in events.items()
    ]


def _query(payload: object) -> str:
    return payload.query if isinstance(payload, RetrievalRecorded) else ""
