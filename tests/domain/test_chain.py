"""The chain shows a change of any column, and survives an erasure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import chain
from domain.ledger import Ledger
from domain.reader import StoredEvent
from tests.ledgers import STREAM, all_stored, check_chain, one_of_each, record


@pytest.fixture
def rows(ledger: Ledger) -> list[StoredEvent]:
    record(ledger, STREAM, *one_of_each())
    return all_stored(ledger)


def test_a_ledger_recomputes_from_its_first_row(rows: list[StoredEvent]) -> None:
    check_chain(rows)
    assert rows[0].prev_hash == chain.GENESIS
    assert {row.hash.split(":")[0] for row in rows} == {"sha256"}


@pytest.mark.parametrize("column", StoredEvent.__slots__)
def test_a_change_of_any_column_is_noticed(rows: list[StoredEvent], column: str) -> None:
    old = getattr(rows[2], column)
    new: Any = old + 1 if isinstance(old, int) else f"{old or ''}x"
    with pytest.raises(AssertionError):
        check_chain([*rows[:2], replace(rows[2], **{column: new}), *rows[3:]])


def test_a_removed_or_swapped_row_is_noticed(rows: list[StoredEvent]) -> None:
    with pytest.raises(AssertionError):
        check_chain([*rows[:2], *rows[3:]])
    with pytest.raises(AssertionError):
        check_chain([rows[1], rows[0], *rows[2:]])


def test_texts_and_ids_enter_the_chain_only_through_their_salted_hashes(rows: list[StoredEvent]) -> None:
    """So that an erasure may blank them: the hash of the event is computed without them."""
    row = rows[0]
    assert row.hash == chain.event_hash(
        prev_hash=row.prev_hash,
        position=row.position,
        event_id=row.event_id,
        version=row.version,
        event_type=row.type,
        schema_version=row.schema_version,
        recorded_at=row.recorded_at,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        identity_hash=row.identity_hash,
        payload_hash=row.payload_hash,
    )


def test_the_same_text_twice_has_two_hashes(ledger: Ledger) -> None:
    payload = one_of_each()[0]
    record(ledger, STREAM, payload, payload)
    one, other = all_stored(ledger)
    assert one.payload == other.payload
    assert one.payload_hash != other.payload_hash
    assert one.identity_hash != other.identity_hash


@given(st.text(), st.text(), st.text(), st.text())
def test_only_the_same_two_ids_have_the_same_hash(
    user: str, conversation: str, other_user: str, other_conversation: str
) -> None:
    same = (user, conversation) == (other_user, other_conversation)
    one, other = chain.identity_hash("s", user, conversation), chain.identity_hash("s", other_user, other_conversation)
    assert (one == other) == same


def test_moving_shared_text_between_the_two_ids_changes_the_hash() -> None:
    assert chain.identity_hash("s", "ab", "c") != chain.identity_hash("s", "a", "bc")


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_canonical_text_is_one_per_value(value: dict[str, object]) -> None:
    text = chain.canonical(value)
    assert json.loads(text) == value
    assert chain.canonical(dict(reversed(value.items()))) == text
    assert chain.canonical(json.loads(text)) == text


def test_canonical_text_has_no_numbers_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="JSON"):
        chain.canonical({"score": float("nan")})
