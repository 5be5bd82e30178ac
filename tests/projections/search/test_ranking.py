"""A question that names a time brings up what was said then, even from behind the wanted number."""

from __future__ import annotations

from datetime import timedelta

from domain.fusion import Fusion
from domain.ledger import Ledger
from domain.temporal.time_range import TimeRange
from projections.lexical.index import LexicalHit
from projections.search.ranking import ranking
from tests.ledgers import START, STREAM, record_turn


def test_what_was_said_then_comes_up(ledger: Ledger) -> None:
    turns = [record_turn(ledger, STREAM, f"Harbour {number}.") for number in range(9)]
    hits = [LexicalHit(turn.position, 9.0 if at == 0 else 8.5 - at / 1000, "exchange") for at, turn in enumerate(turns)]
    # Turns are a minute apart, and a day around the range counts too: so the range lies far from all but the last.
    then = TimeRange(START + timedelta(minutes=8, seconds=30), START + timedelta(minutes=10), "at nine")

    def found(wanted: TimeRange | None) -> list[int]:
        ranked = ranking(ledger.reader, "ann", None, hits, Fusion(), 3, wanted=wanted)
        assert [item.rank for item in ranked.candidates] == [1, 2, 3]
        return [item.memory.position for item in ranked.candidates]

    assert found(None) == [turns[0].position, turns[1].position, turns[2].position]
    assert turns[8].position in found(then)
