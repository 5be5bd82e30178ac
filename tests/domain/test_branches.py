"""The turns of a conversation are a tree, and what its client goes on with is a path in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.branches import TurnState, moves_to, path_to
from domain.events import NewEvent, TurnRestored, TurnSuperseded
from domain.sqlite import DRIVER
from tests.ledgers import STREAM, new_ledger_file, opened, record_turn, turn


@st.composite
def trees(draw: st.DrawFn) -> list[TurnState]:
    """Return turns, the first of which were recorded before there were branches."""
    old, new = draw(st.integers(0, 3)), draw(st.integers(0, 12))
    turns = [TurnState(number, f"t{number}", number, number) for number in range(1, old + 1)]
    for number in range(old + 1, old + new + 1):
        follows = draw(st.sampled_from([None, *(each.memory_id for each in turns)]))
        hidden = draw(st.booleans()), draw(st.booleans())
        turns.append(TurnState(number, f"t{number}", number, number, follows, f"key{number}", *hidden))
    return turns


@given(trees())
def test_a_path_leads_from_a_beginning_to_its_turn(turns: Sequence[TurnState]) -> None:
    by_id = {each.memory_id: each for each in turns}
    for last in turns:
        path = path_to(turns, last.memory_id)
        assert path[-1] == last
        assert path[0].follows is None
        for before, after in pairwise(path):
            assert after.follows == before.memory_id or (
                after.exchange_key is None and before.turn_id + 1 == after.turn_id
            )
        assert all(by_id[each.memory_id] is each for each in path)
    assert path_to(turns, None) == path_to(turns, "unknown") == []


@given(trees(), st.data())
def test_after_its_moves_a_conversation_has_the_path_and_no_more(
    turns: Sequence[TurnState], data: st.DataObject
) -> None:
    last = data.draw(st.sampled_from([None, *(each.memory_id for each in turns)]))
    path = {each.memory_id for each in path_to(turns, last)}
    numbers = count()
    moves = moves_to(path, turns, "left", lambda: f"e{next(numbers)}", "chatcmpl-1")
    superseded = {each.memory_id for each in turns if each.superseded}
    for move in moves:
        assert isinstance(move.payload, TurnSuperseded | TurnRestored)
        assert (move.causation_id, move.correlation_id) == (move.payload.memory_id, "chatcmpl-1")
        if isinstance(move.payload, TurnSuperseded):
            assert move.payload.reason == "left"
            superseded.add(move.payload.memory_id)
        else:
            superseded.remove(move.payload.memory_id)
    assert superseded == {each.memory_id for each in turns} - path
    assert len({move.event_id for move in moves}) == len(moves) == len({move.causation_id for move in moves})


def test_turns_that_a_damaged_event_puts_in_a_circle_end_somewhere() -> None:
    turns = [TurnState(1, "a", 1, 1, "b", "k"), TurnState(2, "b", 2, 2, "a", "k"), TurnState(3, "c", 3, 3, "c", "k")]
    assert [each.memory_id for each in path_to(turns, "b")] == ["a", "b"]
    assert [each.memory_id for each in path_to(turns, "c")] == ["c"]


def test_a_branch_is_read_with_what_its_turns_follow(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        first = record_turn(ledger, STREAM)
        second = str(uuid4())
        said = turn(2).model_copy(update={"follows": first.event_id, "exchange_key": "sha256:1"})
        ledger.append(STREAM, lambda _head: [NewEvent(second, said)]).result()
        assert ledger.reader.branch(STREAM) == [
            TurnState(1, first.event_id, 1, 1),
            TurnState(2, second, 2, 2, first.event_id, "sha256:1"),
        ]


def test_a_long_conversation_goes_on_from_near_its_beginning(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        ids = [str(uuid4()) for _ in range(2_000)]
        said = turn(1, "Where to?", "To Lisbon.")

        def decide(first: int) -> list[NewEvent]:
            batch = enumerate(ids[first : first + 1000], start=first + 1)
            return [NewEvent(memory_id, said.model_copy(update={"turn_id": number})) for number, memory_id in batch]

        for first in range(0, len(ids), 1000):
            ledger.append(STREAM, lambda _head, first=first: decide(first)).result()  # type: ignore[misc]
        turns = ledger.reader.branch(STREAM)
        assert [each.memory_id for each in turns] == ids
        path = path_to(turns, ids[19])
        assert [each.memory_id for each in path] == ids[:20]
        moves = moves_to(set(ids[:20]), turns, "edited", lambda: str(uuid4()))
        ledger.append(STREAM, lambda _head: moves).result()
        assert [each.memory_id for each in ledger.reader.recent_turns(STREAM, 3)] == ids[17:20]
        assert sum(each.superseded for each in ledger.reader.branch(STREAM)) == 1_980
        assert ledger.reader.count_memories("ann") == 20


@pytest.mark.parametrize("payload", ["no JSON", '{"turn_id":"x","follows":7,"exchange_key":[]}'])
def test_a_damaged_turn_does_not_cost_its_conversation(tmp_path: Path, payload: str) -> None:
    path = new_ledger_file(tmp_path)
    with opened(path) as ledger:
        first, second = record_turn(ledger, STREAM), record_turn(ledger, STREAM)
    with closing(DRIVER.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("DROP INDEX events_turn_figures")
        connection.execute("UPDATE events SET payload = ? WHERE position = 1", (payload,))
    with opened(path) as ledger:
        damaged, whole = ledger.reader.branch(STREAM)
        assert (damaged.memory_id, damaged.turn_id) == (first.event_id, 0)
        assert whole == TurnState(2, second.event_id, 2, 2)
        assert [memory.memory_id for memory in ledger.reader.recent_turns(STREAM, 10)] == [second.event_id]
