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
        ranked = ranking(ledger.reader, "ann", "Harbour?", None, hits, Fusion(), 3, wanted=wanted)
        assert [item.rank for item in ranked.candidates] == [1, 2, 3]
        return [item.memory.position for item in ranked.candidates]

    assert found(None) == [turns[0].position, turns[1].position, turns[2].position]
    assert turns[8].position in found(then)


def test_of_what_was_said_twice_the_newest_stands_in_the_better_place(ledger: Ledger) -> None:
    told = [record_turn(ledger, STREAM, text) for text in ("I live in Rome.", "Harbour.", "Rome, I live in.", "Ships.")]
    again = record_turn(ledger, STREAM, "I live in Rome!")
    hits = [LexicalHit(turn.position, 9.0 - at, "exchange") for at, turn in enumerate([*told, again])]
    found = ranking(ledger.reader, "ann", "Where do I live?", None, hits, Fusion(), 9).candidates
    assert [(item.memory.position, item.excluded) for item in found] == [
        (told[0].position, "older_near_duplicate"),
        (again.position, None),
        *((turn.position, None) for turn in told[1:]),
    ]
    assert found[0].score == found[1].score


def test_repeats_take_no_place_of_others(ledger: Ledger) -> None:
    asked = [record_turn(ledger, STREAM, "Where do I live?", "I do not know.") for _ in range(10)]
    told = [record_turn(ledger, STREAM, text) for text in ("I live in Rome.", "I live in Oslo now.")]
    hits = [LexicalHit(turn.position, 9.0 - at / 10, "exchange") for at, turn in enumerate([*asked, *told])]
    found = ranking(ledger.reader, "ann", "Where do I live?", None, hits, Fusion(), 3).candidates
    going_on = [item.memory.position for item in found if item.excluded is None]
    assert going_on == [asked[-1].position, told[0].position, told[1].position]
    assert [item.rank for item in found] == list(range(1, 13))
    assert {item.excluded for item in found} == {None, "older_same_question"}
