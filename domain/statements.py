"""The statements that a turn runs, built once, and how a row of the events table becomes what the house works with.

Putting a statement together costs more than running it, so those on the way of a turn are made when this module is
imported; the others stand in the reader beside their question.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, TypeVar, get_args

import msgspec
from sqlalchemy import BindParameter, Row, and_, bindparam, case, func, literal_column, or_, select, true
from sqlalchemy.sql import ColumnElement, Select
from sqlalchemy.sql.selectable import ScalarSelect

from domain.events import (
    EmbeddingModelActivated,
    Erased,
    Event,
    Facet,
    MemoryEdited,
    MemoryForgotten,
    Payload,
    SummaryRecorded,
    TurnRecorded,
    UserErased,
    decode_payload,
)
from domain.identity import SYSTEM_ID
from domain.memory import FacetText, Memory, exchange_text
from domain.prepared import Prepared, each_of
from domain.schema import EVENTS

Part = TypeVar("Part")

TURN = EVENTS.alias("turn")
"""The event of a remembered turn, in a statement that looks at other events too."""
LATEST = 2**62
"""``as_of`` for the memory of today. A question can also be asked as of an earlier position of the ledger."""
_AS_OF: BindParameter[int] = bindparam("as_of", LATEST)


def _text(constant: str) -> ColumnElement[str]:
    # Not as a parameter: with ten of them, giving them takes longer than the question.
    return literal_column(f"'{constant}'")


def _position_of_newest(event_type: str, memory: ColumnElement[Any], user: ColumnElement[Any]) -> ScalarSelect[Any]:
    """Select the position of the last event of a type that speaks of a memory, NULL where there is none."""
    about = EVENTS.alias()
    query = select(func.max(about.c.position)).where(
        about.c.causation_id == memory, about.c.type == event_type, about.c.user_id == user, about.c.position <= _AS_OF
    )
    return query.correlate_except(about).scalar_subquery()


_SUMMARIES_BY_RANK = (MemoryEdited.type, SummaryRecorded.type)
"""What a person wrote stays, even where a model's summary came in after it."""
_NEWEST_SUMMARY = func.coalesce(
    *(_position_of_newest(event_type, TURN.c.event_id, TURN.c.user_id) for event_type in _SUMMARIES_BY_RANK)
)
_FORGOTTEN = _position_of_newest(MemoryForgotten.type, TURN.c.event_id, TURN.c.user_id).is_not(None)
_SUMMARISED, _KEYS = EVENTS.alias("summarised"), EVENTS.alias("keys")
_TURN_AND_SUMMARY: Select[Any] = select(
    TURN.c.position,
    TURN.c.event_id,
    TURN.c.conversation_id,
    TURN.c.schema_version,
    TURN.c.payload,
    _SUMMARISED.c.schema_version.label("summary_version"),
    _SUMMARISED.c.payload.label("summary"),
    _SUMMARISED.c.type.label("summary_type"),
    _SUMMARISED.c.position.label("summary_position"),
).select_from(TURN)
REMEMBERED: Select[Any] = _TURN_AND_SUMMARY.outerjoin(_SUMMARISED, _SUMMARISED.c.position == _NEWEST_SUMMARY).where(
    # "+ 0" keeps the planner from walking all of a user's turns in search of a position that nearly all are below.
    TURN.c.type == TurnRecorded.type,
    TURN.c.position + 0 <= _AS_OF,
    ~_FORGOTTEN,
)
"""Remembered turns with their newest summaries, of all users: whoever builds on it says of whom."""


def _said_at(positions: Select[Any]) -> Select[Any]:
    """Select a user's remembered turns at ``positions`` with their newest summaries, as :data:`REMEMBERED` does.

    Of many turns it is quicker to group all that speaks of them than to ask of each which summary is the newest. They
    are grouped by keys alone, and completed afterwards: of a memory that was edited a hundred times one text is read.
    || '' keeps the planner from an index on the way to them.
    """
    about = EVENTS.alias("about")
    speaks = and_(
        about.c.causation_id == _KEYS.c.event_id,
        about.c.type.concat("").in_(map(_text, (SummaryRecorded.type, MemoryEdited.type, MemoryForgotten.type))),
        about.c.user_id.concat("") == _KEYS.c.user_id,
        about.c.position <= _AS_OF,
    )

    def newest_of(event_type: str) -> ColumnElement[Any]:
        return func.max(case((about.c.type == _text(event_type), about.c.position)))

    told = (
        select(_KEYS.c.position, func.coalesce(*map(newest_of, _SUMMARIES_BY_RANK)).label("summary_position"))
        .select_from(_KEYS.outerjoin(about, speaks))
        .where(
            _KEYS.c.type.concat("") == TurnRecorded.type,
            _KEYS.c.user_id.concat("") == bindparam("user_id"),
            _KEYS.c.position + 0 <= _AS_OF,
            _KEYS.c.position.in_(positions),
        )
        .group_by(_KEYS.c.position)
        .having(newest_of(MemoryForgotten.type).is_(None))
        .subquery("told")
    )
    return _TURN_AND_SUMMARY.join(told, told.c.position == TURN.c.position).outerjoin(
        _SUMMARISED, _SUMMARISED.c.position == told.c.summary_position
    )


_RECENT_TURNS = (
    REMEMBERED.where(TURN.c.user_id == bindparam("user_id"), TURN.c.conversation_id == bindparam("conversation_id"))
    .order_by(TURN.c.version.desc())
    .limit(bindparam("count"))
)
RECENT_TURNS = Prepared(_RECENT_TURNS)
RECENT_TURNS_BEFORE = Prepared(
    _RECENT_TURNS.where(func.json_extract(TURN.c.payload, "$.turn_id") < bindparam("before_turn"))
)
MEMORIES = Prepared(_said_at(each_of("positions")))
_ASKED, _BESIDE, _STEP = EVENTS.alias("asked"), EVENTS.alias("beside"), EVENTS.alias("step")


def _steps(*, back: bool) -> Select[Any]:
    """Select the positions of the next few turns of a conversation, back or on from ``_ASKED``."""
    order = _STEP.c.version.desc() if back else _STEP.c.version
    return (
        select(_STEP.c.position)
        .where(
            _STEP.c.user_id == _ASKED.c.user_id,
            _STEP.c.conversation_id == _ASKED.c.conversation_id,
            _STEP.c.type == TurnRecorded.type,
            _STEP.c.version < _ASKED.c.version if back else _STEP.c.version > _ASKED.c.version,
        )
        .order_by(order)
        .limit(bindparam("reach"))
        .correlate(_ASKED)
    )


NEIGHBOURS = Prepared(
    _said_at(
        select(_BESIDE.c.position)
        .select_from(_ASKED.join(_BESIDE, or_(*(_BESIDE.c.position.in_(_steps(back=back)) for back in (True, False)))))
        # Not by its user too, or SQLite walks all events of that user; whose turns they are is asked above.
        .where(_ASKED.c.position.in_(each_of("positions")))
    )
)
"""The turns at most ``reach`` before or after those at ``positions``, each in its own conversation, in no order."""
_BY_CONVERSATION = (
    select(
        TURN.c.conversation_id,
        func.max(TURN.c.position).label("last"),
        func.min(TURN.c.position).label("first"),
        func.count().label("turns"),
    )
    .where(TURN.c.user_id == bindparam("user_id"), TURN.c.type == TurnRecorded.type, ~_FORGOTTEN)
    .group_by(TURN.c.conversation_id)
    .order_by(func.max(TURN.c.position).desc())
    .limit(bindparam("count"))
    .subquery()
)
_FIRST_TURN, _LAST_TURN = EVENTS.alias("first_turn"), EVENTS.alias("last_turn")
CONVERSATIONS = Prepared(
    select(
        _BY_CONVERSATION.c.conversation_id,
        _BY_CONVERSATION.c.turns,
        func.json_extract(_LAST_TURN.c.payload, "$.ts").label("last_ts"),
        func.json_extract(_FIRST_TURN.c.payload, "$.user").label("title"),
    )
    .join(_LAST_TURN, _LAST_TURN.c.position == _BY_CONVERSATION.c.last)
    .join(_FIRST_TURN, _FIRST_TURN.c.position == _BY_CONVERSATION.c.first)
    .order_by(_BY_CONVERSATION.c.last.desc())
)
"""A user's conversations by what is remembered of them: one of which all was forgotten is not among them."""

_STEP_TO = EVENTS.alias("step_to")
BESIDE_REACH = 2


def _positions_next(*, back: bool) -> ScalarSelect[Any]:
    """Select, as a JSON list, the positions of the turns next to ``TURN`` in its conversation, on one side."""
    steps = (
        select(_STEP_TO.c.position)
        .where(
            _STEP_TO.c.user_id == TURN.c.user_id,
            _STEP_TO.c.conversation_id == TURN.c.conversation_id,
            _STEP_TO.c.type == TurnRecorded.type,
            _STEP_TO.c.version < TURN.c.version if back else _STEP_TO.c.version > TURN.c.version,
            _STEP_TO.c.position <= _AS_OF,
        )
        .order_by(_STEP_TO.c.version.desc() if back else _STEP_TO.c.version)
        .limit(BESIDE_REACH)
        .correlate(TURN)
        .subquery()
    )
    return select(func.json_group_array(steps.c.position)).scalar_subquery()


POSITIONS_BESIDE = Prepared(
    select(
        TURN.c.position,
        TURN.c.user_id,
        _positions_next(back=True).label("before"),
        _positions_next(back=False).label("after"),
    ).where(TURN.c.position.in_(each_of("positions")))
)
"""Of turns, the positions of the turns before and after them in their conversations, as a JSON list each.

Whose turns they are is for the reader to check: asked for a user too, SQLite walks all events of that user.
"""
FACET_TYPES = (TurnRecorded.type, SummaryRecorded.type, MemoryEdited.type, MemoryForgotten.type)
"""The events that change by which texts a memory can be found."""
_MEMORY_ID = case((EVENTS.c.type == TurnRecorded.type, EVENTS.c.event_id), else_=EVENTS.c.causation_id)


def _facets(whose: ColumnElement[bool], event_type: ColumnElement[str]) -> Select[Any]:
    """Select a page of the events that change by which texts memories are found, in order.

    The page's positions are chosen first, from keys alone. Chosen and completed at once, every page would be sorted out
    of complete rows of all that follows, and reading a million memories would take hours.
    """
    following = select(_KEYS.c.position).where(
        whose,
        event_type.in_(map(_text, FACET_TYPES)),
        _KEYS.c.position > bindparam("after"),
        _KEYS.c.position <= _AS_OF,
    )
    page = following.order_by(_KEYS.c.position).limit(bindparam("count")).subquery("page")
    return (
        _COMPLETED.join_from(page, EVENTS, EVENTS.c.position == page.c.position)
        .outerjoin(
            TURN,
            and_(
                TURN.c.event_id == EVENTS.c.causation_id,
                TURN.c.user_id == EVENTS.c.user_id,
                TURN.c.type == TurnRecorded.type,
                EVENTS.c.type != TurnRecorded.type,
            ),
        )
        .order_by(page.c.position)
    )


_COMPLETED: Select[Any] = select(
    EVENTS.c.position,
    EVENTS.c.user_id,
    EVENTS.c.type,
    EVENTS.c.schema_version,
    EVENTS.c.payload,
    EVENTS.c.salt,
    TURN.c.position.label("turn_position"),
    _position_of_newest(MemoryForgotten.type, _MEMORY_ID, EVENTS.c.user_id).is_not(None).label("forgotten"),
    case(
        (
            EVENTS.c.type == SummaryRecorded.type,
            _position_of_newest(MemoryEdited.type, EVENTS.c.causation_id, EVENTS.c.user_id).is_not(None),
        ),
        else_=False,
    ).label("superseded"),
)
# Of all users, the rows are walked as they lie: || '' keeps the planner from an index by type, which is not in order.
FACETS = Prepared(_facets(true(), _KEYS.c.type.concat("")))
FACETS_OF_USER = Prepared(_facets(_KEYS.c.user_id == bindparam("user_id"), _KEYS.c.type))
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


def _newest_of(event_type: str, user: ColumnElement[Any]) -> ScalarSelect[Any]:
    """Select the position of a user's newest event of a type, 0 where there is none."""
    query = select(func.coalesce(func.max(EVENTS.c.position), 0))
    return query.where(EVENTS.c.user_id == user, EVENTS.c.type == _text(event_type)).scalar_subquery()


def _erasures(count: ColumnElement[int]) -> ScalarSelect[Any]:
    return select(count).where(EVENTS.c.type == _text(UserErased.type)).scalar_subquery()


_USER: BindParameter[str] = bindparam("user_id")
# One question per type: of several at once SQLite walks all events instead of taking the last of each.
_FACETS_AT = func.max(*(_newest_of(event_type, _USER) for event_type in FACET_TYPES))
FACETS_AT = Prepared(select(_FACETS_AT.label("facets_at")))
STANDING = Prepared(
    select(
        _FACETS_AT.label("facets_at"),
        func.max(*(_newest_of(EmbeddingModelActivated.type, user) for user in (_USER, _text(SYSTEM_ID)))).label(
            "activated_at"
        ),
        _erasures(func.count()).label("begun"),
        _erasures(func.coalesce(func.sum(case((EVENTS.c.salt != "", 1), else_=0)), 0)).label("unfinished"),
    )
)


def event_of(row: Row[Any]) -> Event:
    """Return the event that a whole row of the table holds; of a blanked one its envelope is left."""
    payload: Payload
    if row.salt:
        payload = decode_payload(row.type, row.schema_version, json.loads(row.payload))
    else:
        payload = Erased(event_type=row.type)
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
    )


class _Said(msgspec.Struct, gc=False):
    """What a memory takes of the event of its turn."""

    turn_id: int
    ts: str
    user: str
    assistant: str
    finish_reason: str


class _Summed(msgspec.Struct, gc=False):
    """What a memory takes of a summary, whoever wrote it."""

    summary: str


_SAID, _SUMMED = msgspec.json.Decoder(_Said), msgspec.json.Decoder(_Summed)


def memory_of(row: Row[Any]) -> Memory:
    """Return the memory that a row of :data:`MEMORIES` or another statement of remembered turns holds."""
    said = _part_of(TurnRecorded, row.schema_version, row.payload, _SAID)
    return Memory(
        memory_id=row.event_id,
        position=row.position,
        conversation_id=row.conversation_id,
        turn_id=said.turn_id,
        ts=datetime.fromisoformat(said.ts),
        user=said.user,
        assistant=said.assistant,
        summary=_summary(row.summary_type, row.summary_version, row.summary) if row.summary is not None else None,
        finish_reason=said.finish_reason,
        summary_position=row.summary_position,
        edited=row.summary_type == MemoryEdited.type,
    )


def _summary(event_type: str, schema_version: int, payload: str) -> str:
    kind = MemoryEdited if event_type == MemoryEdited.type else SummaryRecorded
    return _part_of(kind, schema_version, payload, _SUMMED).summary


def _part_of(model: type[Payload], schema_version: int, payload: str, part: msgspec.json.Decoder[Part]) -> Part:
    """Return a part of a payload in its newest shape, without building a model where it already has that shape.

    A turn reads some sixty memories. To check what this code itself has written would take longer than to find them,
    and to read all of their JSON four times as long as to skip what is not asked for.
    """
    if schema_version != model.schema_version:
        payload = decode_payload(model.type, schema_version, json.loads(payload)).model_dump_json()
    return part.decode(payload)


def facet_changes(row: Row[Any]) -> list[FacetText]:
    """Return what a row of :data:`FACETS` says of the texts by which a memory is found."""

    def change(turn_position: int, facet: Facet, text: str | None, said_at: datetime | None = None) -> FacetText:
        return FacetText(row.user_id, row.position, turn_position, facet, text, said_at)

    if not row.salt:
        return []  # blanked by an erasure, like all that this user ever said
    if row.type == TurnRecorded.type:
        if row.forgotten:
            return [change(row.position, "exchange", None)]
        said = _part_of(TurnRecorded, row.schema_version, row.payload, _SAID)
        text = exchange_text(said.user, said.assistant)
        return [change(row.position, "exchange", text, datetime.fromisoformat(said.ts))]
    if row.turn_position is None or row.superseded:
        return []
    if row.type == MemoryForgotten.type:
        return [change(row.turn_position, facet, None) for facet in get_args(Facet)]
    if row.forgotten:
        return [change(row.turn_position, "summary", None)]
    return [change(row.turn_position, "summary", _summary(row.type, row.schema_version, row.payload))]
