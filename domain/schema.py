"""The events table as SQLAlchemy sees it.

The migrations *create* it, with its triggers, and a test compares the two. The views, and the indices over parts of
payloads, are in the migrations alone, where they stand as SQL.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, MetaData, Table, Text, UniqueConstraint

METADATA = MetaData()

EVENTS = Table(
    "events",
    METADATA,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("recorded_at", Text, nullable=False),
    Column("correlation_id", Text),
    Column("causation_id", Text),
    Column("payload", Text, nullable=False),
    Column("salt", Text, nullable=False),
    Column("identity_hash", Text, nullable=False),
    Column("payload_hash", Text, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("event_id", name="events_event_id"),
    UniqueConstraint("user_id", "conversation_id", "version", name="events_stream_version"),
    Index("events_stream_type", "user_id", "conversation_id", "type", "version"),
    Index("events_user_type", "user_id", "type", "position"),
    Index("events_type", "type", "position"),
    Index("events_correlation", "correlation_id"),
    Index("events_causation", "causation_id", "type"),
)
