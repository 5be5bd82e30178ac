"""How a row of the events table becomes an event, a memory, or a text by which a memory is found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar, get_args

import msgspec
from sqlalchemy import Row

from domain.events import (
    Erased,
    Event,
    Facet,
    MemoryEdited,
    MemoryForgotten,
    Payload,
    SummaryRecorded,
    TurnRecorded,
    decode_origin,
    decode_payload,
)
from domain.memory import FacetText, Memory, exchange_text
from domain.temporal.zones import in_zone, recorded_zone

Part = TypeVar("Part")


def event_of(row: Row[Any]) -> Event:
    """Return the event in a whole row of the table. Of a blanked one only the envelope is left."""
    payload: Payload
    if row.salt:
        stored = json.loads(row.payload)
        payload, origin = decode_payload(row.type, row.schema_version, stored), decode_origin(stored)
    else:
        payload, origin = Erased(event_type=row.type), None
    return Event(
        position=row.position,
        event_id=row.event_id,
        user_id=row.user_id,
        conversation_id=row.conversation_id,
        version=row.version,
        recorded_at=datetime.fromisoformat(row.recorded_at),
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        payload=payload,
        origin=origin,
    )


class _TurnPart(msgspec.Struct, gc=False):
    """The fields of a ``TurnRecorded`` that a memory has."""

    turn_id: int
    ts: datetime
    user: str
    assistant: str
    finish_reason: str


class _PromptPart(msgspec.Struct, gc=False):
    """The field of a prompt's report that a text has."""

    timezone: str = "UTC"


class _TextPart(msgspec.Struct, gc=False):
    """The fields of a ``TurnRecorded`` by which its memory is found."""

    ts: datetime
    user: str
    assistant: str
    prompt: _PromptPart | None = None


class _SummaryPart(msgspec.Struct, gc=False):
    """The field of a ``SummaryRecorded`` or ``MemoryEdited`` that a memory has."""

    summary: str


_TURN_PART, _SUMMARY_PART = msgspec.json.Decoder(_TurnPart), msgspec.json.Decoder(_SummaryPart)
_TEXT_PART = msgspec.json.Decoder(_TextPart)


def memory_of(row: Sequence[Any]) -> Memory:
    """Return the memory in a row of ``recent_turns``, ``memories`` or another statement with the same columns."""
    # Unpacked by place: where many turns are read, a row is an array of JSON and has no names.
    position, event_id, conversation_id, schema_version, payload, *summary = row
    summary_version, summary_payload, summary_type, summary_position = summary
    turn = _part_of(TurnRecorded, schema_version, payload, _TURN_PART)
    return Memory(
        memory_id=event_id,
        position=position,
        conversation_id=conversation_id,
        turn_id=turn.turn_id,
        ts=turn.ts,
        user=turn.user,
        assistant=turn.assistant,
        summary=None if summary_payload is None else _summary(summary_type, summary_version, summary_payload),
        finish_reason=turn.finish_reason,
        summary_position=summary_position,
        edited=summary_type == MemoryEdited.type,
    )


def _summary(event_type: str, schema_version: int, payload: str) -> str:
    model = MemoryEdited if event_type == MemoryEdited.type else SummaryRecorded
    return _part_of(model, schema_version, payload, _SUMMARY_PART).summary


def _part_of(model: type[Payload], schema_version: int, payload: str, part: msgspec.json.Decoder[Part]) -> Part:
    """Return some fields of a payload in its newest shape.

    A turn reads some sixty memories, and this code wrote them: so their JSON is neither validated by the model nor
    decoded beyond these fields. Only an older shape goes through the model, which lifts it.
    """
    if schema_version != model.schema_version:
        payload = decode_payload(model.type, schema_version, json.loads(payload)).model_dump_json()
    return part.decode(payload)


def facet_changes(row: Row[Any]) -> list[FacetText]:
    """Return how an event, a row of ``facet_texts``, changes the texts by which its memory is found."""

    def change(turn_position: int, facet: Facet, text: str | None, said_at: datetime | None = None) -> FacetText:
        return FacetText(row.user_id, row.position, turn_position, facet, text, said_at)

    if not row.salt:
        return []  # blanked by an erasure, like everything of this user
    if row.type == TurnRecorded.type:
        if row.forgotten:
            return [change(row.position, "exchange", None)]
        turn = _part_of(TurnRecorded, row.schema_version, row.payload, _TEXT_PART)
        said_at = in_zone(turn.ts, recorded_zone(turn.prompt.timezone)) if turn.prompt is not None else turn.ts
        return [change(row.position, "exchange", exchange_text(turn.user, turn.assistant), said_at)]
    if row.turn_position is None or row.superseded:
        return []
    if row.type == MemoryForgotten.type:
        return [change(row.turn_position, facet, None) for facet in get_args(Facet)]
    if row.forgotten:
        return [change(row.turn_position, "summary", None)]
    return [change(row.turn_position, "summary", _summary(row.type, row.schema_version, row.payload))]
