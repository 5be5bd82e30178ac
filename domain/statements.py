"""The statements that a turn runs, built once, and how a row of the events table becomes what the house works with.

Putting a statement together costs more than running it, so those on the way of a turn are made when this module is
imported; the others stand in the reader beside their question.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Row, and_, bindparam, func, select
from sqlalchemy.sql import Select

from domain.events import (
    EmbeddingModelActivated,
    Event,
    JsonObject,
    Payload,
    SummaryRecorded,
    TurnRecorded,
    decode_payload,
)
from domain.identity import SYSTEM_ID
from domain.memory import Memory
from domain.schema import EVENTS

TURN = EVENTS.alias("turn")
"""The event of a remembered turn, in a statement that looks at other events too."""
SUMMARY = EVENTS.alias("summary")
_NEWEST_SUMMARY = (
    select(func.max(SUMMARY.c.position))
    .where(
        SUMMARY.c.causation_id == TURN.c.event_id,
        SUMMARY.c.type == SummaryRecorded.type,
        SUMMARY.c.user_id == TURN.c.user_id,
    )
    .correlate(TURN)
    .scalar_subquery()
)
_SUMMARISED = EVENTS.alias("summarised")
_MEMORY: Select[Any] = (
    select(
        TURN.c.position,
        TURN.c.event_id,
        TURN.c.conversation_id,
        TURN.c.schema_version,
        TURN.c.payload,
        _SUMMARISED.c.schema_version.label("summary_version"),
        _SUMMARISED.c.payload.label("summary"),
    )
    .select_from(TURN)
    .outerjoin(_SUMMARISED, _SUMMARISED.c.position == _NEWEST_SUMMARY)
    .where(TURN.c.type == TurnRecorded.type)
)

RECENT_TURNS: Select[Any] = (
    _MEMORY.where(TURN.c.user_id == bindparam("user_id"), TURN.c.conversation_id == bindparam("conversation_id"))
    .order_by(TURN.c.version.desc())
    .limit(bindparam("count"))
)
MEMORIES: Select[Any] = _MEMORY.where(
    TURN.c.user_id == bindparam("user_id"), TURN.c.position.in_(bindparam("positions", expanding=True))
)
FACETS: Select[Any] = (
    select(
        EVENTS.c.position,
        EVENTS.c.user_id,
        EVENTS.c.type,
        EVENTS.c.schema_version,
        EVENTS.c.payload,
        TURN.c.position.label("turn_position"),
    )
    .select_from(EVENTS)
    .outerjoin(
        TURN,
        and_(
            TURN.c.event_id == EVENTS.c.causation_id,
            TURN.c.user_id == EVENTS.c.user_id,
            EVENTS.c.type == SummaryRecorded.type,
        ),
    )
    .where(EVENTS.c.type.in_((TurnRecorded.type, SummaryRecorded.type)), EVENTS.c.position > bindparam("after"))
    .order_by(EVENTS.c.position)
    .limit(bindparam("count"))
)
FACETS_OF_USER = FACETS.where(EVENTS.c.user_id == bindparam("user_id"))
ACTIVE_MODEL: Select[Any] = (
    select(EVENTS)
    .where(
        EVENTS.c.user_id.in_((SYSTEM_ID, bindparam("user_id"))),
        EVENTS.c.type == EmbeddingModelActivated.type,
        EVENTS.c.conversation_id == SYSTEM_ID,
    )
    .order_by(EVENTS.c.position.desc())
    .limit(1)
)


def event_of(row: Row[Any]) -> Event:
    """Return the event that a whole row of the table holds."""
    return Event(
        position=row.position,
        event_id=row.event_id,
        user_id=row.user_id,
        conversation_id=row.conversation_id,
        version=row.version,
        recorded_at=datetime.fromisoformat(row.recorded_at),
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        payload=decode_payload(row.type, row.schema_version, json.loads(row.payload)),
    )


def newest(model: type[Payload], schema_version: int, payload: str) -> JsonObject:
    """Return a payload's JSON in its newest shape, without building a model where it already has that shape.

    A turn reads some sixty memories, and checking what this code itself has written cost more than reading it.
    """
    found: JsonObject = from_json(payload)
    if schema_version == model.schema_version:
        return found
    return decode_payload(model.type, schema_version, found).model_dump(mode="json")


def memory_of(row: Row[Any]) -> Memory:
    """Return the memory that a row of :data:`RECENT_TURNS` or :data:`MEMORIES` holds."""
    turn = newest(TurnRecorded, row.schema_version, row.payload)
    summary = newest(SummaryRecorded, row.summary_version, row.summary) if row.summary is not None else None
    return Memory(
        memory_id=row.event_id,
        position=row.position,
        conversation_id=row.conversation_id,
        turn_id=turn["turn_id"],
        ts=datetime.fromisoformat(turn["ts"]),
        user=turn["user"],
        assistant=turn["assistant"],
        summary=summary["summary"] if summary is not None else None,
        finish_reason=turn["finish_reason"],
    )
