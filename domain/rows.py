"""How a row of the events table becomes an event, a memory, or a text by which a memory is found.

A disk may damage what is stored. Such a row costs that one event, which is named in the log, and never what stands
beside it: a list goes on without it, and a follower past it. ``opm verify`` finds it by its hash.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar, get_args

import msgspec
from sqlalchemy import Row

from domain.errors import EventDamaged
from domain.events import (
    Damaged,
    Erased,
    Event,
    Facet,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    Payload,
    SummaryRecorded,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
    blanked_by,
    decode_origin,
    decode_payload,
)
from domain.identity import ERASED_PREFIX
from domain.memory import FacetText, Memory, exchange_text
from domain.origin import Origin
from domain.temporal.zones import in_zone, recorded_zone

log = logging.getLogger(__name__)

Part = TypeVar("Part")
_DAMAGED = (ValueError, RecursionError, EventDamaged, msgspec.MsgspecError)
"""What a payload raises that is not JSON or has another shape."""
_NAMED_MAX = 1000
_HIDING = (MemoryForgotten.type, TurnSuperseded.type)
_RESTORING = (MemoryRestored.type, TurnRestored.type)


def event_of(row: Row[Any]) -> Event:
    """Return the event in a whole row of the table. Of a blanked or damaged one only the envelope is left."""
    payload: Payload
    if row.salt:
        payload, origin = payload_and_origin(row.position, row.type, row.schema_version, row.payload)
    else:
        erased_by = blanked_by(row.payload) or row.user_id.removeprefix(ERASED_PREFIX)
        payload, origin = Erased(event_type=row.type, erased_by=erased_by), None
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


def payload_and_origin(
    position: int, event_type: str, schema_version: int, payload: str
) -> tuple[Payload, Origin | None]:
    """Return a stored payload in its newest shape and who asked for it; :class:`Damaged` where it has no shape.

    Raises :class:`UnknownEvent` for a type or schema version that this code does not know.
    """
    try:
        stored = json.loads(payload)
        return decode_payload(event_type, schema_version, stored), decode_origin(stored)
    except _DAMAGED:
        _name_damaged(position, event_type)
        return Damaged(event_type=event_type), None


@lru_cache(maxsize=_NAMED_MAX)
def _name_damaged(position: int, event_type: str) -> None:
    """Name a damaged event in the log, once."""
    log.error("event %d (%s) is damaged and left out: run `opm verify`", position, event_type)


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


def memories_of(rows: Iterable[Sequence[Any]]) -> list[Memory]:
    """Return the memories in rows of ``recent_turns``, ``memories`` or another statement with the same columns.

    A damaged one is left out. Of one whose summary is damaged the exchange is left.
    """
    return [memory for row in rows if (memory := _memory_of(row)) is not None]


def _memory_of(row: Sequence[Any]) -> Memory | None:
    # Unpacked by place: where many turns are read, a row is an array of JSON and has no names.
    position, event_id, conversation_id, schema_version, payload, *summary = row
    summary_version, summary_payload, summary_type, summary_position = summary
    turn = _part_of(position, TurnRecorded, schema_version, payload, _TURN_PART)
    if turn is None:
        return None
    summarised = None
    if summary_payload is not None:
        summarised = _summary(summary_position, summary_type, summary_version, summary_payload)
    return Memory(
        memory_id=event_id,
        position=position,
        conversation_id=conversation_id,
        turn_id=turn.turn_id,
        ts=turn.ts,
        user=turn.user,
        assistant=turn.assistant,
        summary=summarised,
        finish_reason=turn.finish_reason,
        summary_position=summary_position,
        edited=summary_type == MemoryEdited.type,
    )


def _summary(position: int, event_type: str, schema_version: int, payload: str) -> str | None:
    model = MemoryEdited if event_type == MemoryEdited.type else SummaryRecorded
    part = _part_of(position, model, schema_version, payload, _SUMMARY_PART)
    return part.summary if part is not None else None


def _part_of(
    position: int, model: type[Payload], schema_version: int, payload: str, part: msgspec.json.Decoder[Part]
) -> Part | None:
    """Return some fields of the payload at a position in its newest shape, None where it is damaged.

    A turn reads some sixty memories, and this code wrote them: so their JSON is neither validated by the model nor
    decoded beyond these fields. Only an older shape goes through the model, which lifts it.
    """
    try:
        if schema_version != model.schema_version:
            payload = decode_payload(model.type, schema_version, json.loads(payload)).model_dump_json()
        return part.decode(payload)
    except _DAMAGED:
        _name_damaged(position, model.type)
        return None


def facet_changes(row: Row[Any]) -> list[FacetText]:
    """Return how an event, a row of ``facet_texts``, changes the texts by which its memory is found."""

    def change(turn_position: int, facet: Facet, text: str | None, said_at: datetime | None = None) -> FacetText:
        return FacetText(row.user_id, row.position, turn_position, facet, text, said_at)

    def exchange(turn_position: int, schema_version: int, payload: str) -> list[FacetText]:
        turn = _part_of(turn_position, TurnRecorded, schema_version, payload, _TEXT_PART)
        if turn is None:
            return []
        said_at = in_zone(turn.ts, recorded_zone(turn.prompt.timezone)) if turn.prompt is not None else turn.ts
        return [change(turn_position, "exchange", exchange_text(turn.user, turn.assistant), said_at)]

    def summary(position: int, event_type: str, schema_version: int, payload: str | None) -> list[FacetText]:
        text = _summary(position, event_type, schema_version, payload) if payload is not None else None
        return [change(row.turn_position, "summary", text)] if text is not None else []

    if row.type in _HIDING or row.type in _RESTORING:
        if row.turn_position is None or not row.turn_salt:
            return []
        if row.type in _HIDING or row.hidden:
            return [change(row.turn_position, facet, None) for facet in get_args(Facet)]
        said = exchange(row.turn_position, row.turn_version, row.turn)
        return said + summary(row.summary_position, row.summary_type, row.summary_version, row.summary)
    if not row.salt:
        return []  # blanked by an erasure
    if row.type == TurnRecorded.type:
        if row.hidden:
            return [change(row.position, "exchange", None)]
        return exchange(row.position, row.schema_version, row.payload)
    if row.turn_position is None or row.overruled:
        return []
    if row.hidden:
        return [change(row.turn_position, "summary", None)]
    return summary(row.position, row.type, row.schema_version, row.payload)
