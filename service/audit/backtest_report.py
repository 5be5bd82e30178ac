"""The report of a backtest as one document, from which the table, the JSON and the page are made.

The results hold ids; here they get their texts from the ledger, as they are today: what was forgotten since stays so.
"""

from __future__ import annotations

from collections.abc import Collection

from domain.audit_reader import AuditReader
from domain.events import JsonObject, RetrievalRecorded
from service.audit.backtest import Backtest, totals

FORGOTTEN = "(forgotten since)"


def report_of(reader: AuditReader, backtest: Backtest) -> JsonObject:
    """Return the report as JSON values; ``memories`` and ``per_question`` are ordered as they should be read."""
    compared = backtest.comparisons
    summed = totals(backtest)
    changed = set(summed.came_in) | set(summed.went_out)
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
            "questions": summed.questions,
            "exact": summed.exact,
            "agreement": summed.agreement,
            "agreement_replayed": summed.agreement_replayed,
            "came_in": summed.came_in.total(),
            "went_out": summed.went_out.total(),
            "taken_over": summed.taken_over,
            "fallbacks": summed.fallbacks,
            "spent": summed.spent.model_dump(),
            "spent_then": summed.spent_then.model_dump(),
            "questions_embedded": backtest.questions_embedded,
            "memories_embedded": backtest.embedded,
        },
        "memories": sorted(
            (
                {
                    **memory,
                    "came_in": summed.came_in[str(memory["memory_id"])],
                    "went_out": summed.went_out[str(memory["memory_id"])],
                }
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


def _memories(reader: AuditReader, user_id: str, memory_ids: Collection[str]) -> list[JsonObject]:
    events = reader.events_named(memory_ids)
    known = reader.memories(user_id, [event.position for event in events.values()])
    return [
        {
            "memory_id": memory_id,
            "date": event.recorded_at.isoformat(),
            "note": known[event.position].note if event.position in known else FORGOTTEN,
        }
        for memory_id, event in events.items()
    ]


def _query(payload: object) -> str:
    return payload.query if isinstance(payload, RetrievalRecorded) else ""
