"""A search as of a position sees the texts as they stood there; at the head it equals the service's own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from domain.ledger import Ledger
from projections.lexical.as_of import LexicalAsOf
from projections.lexical.index import LexicalHit
from projections.lexical.index_files import LexicalFiles
from tests.projections.search.test_dense_as_of import change
from tests.projections.world import many, remember

QUERY = "violin in Vienna, shelf 3"


def found_at(ledger: Ledger, position: int) -> list[LexicalHit]:
    with closing(LexicalAsOf(ledger.reader, "ann")) as words:
        words.advance(position)
        return words.search(QUERY, 9)


def test_at_the_head_it_finds_what_the_service_finds(storage: Path, ledger: Ledger) -> None:
    remember(ledger, "ann", many(30))
    remember(ledger, "bob", many(4))
    with closing(LexicalFiles(ledger.reader, storage / "users")) as files:
        served = files.search("ann", QUERY, 9)
    assert served.hits
    assert found_at(ledger, ledger.reader.head_position()) == served.hits


def test_an_edit_and_a_withdrawal_count_from_where_they_stand(ledger: Ledger) -> None:
    [first, second] = remember(ledger, "ann", ["The violin is in Vienna.", "Nothing of note."])
    edited = change(ledger, second, "The violin of shelf 3.")
    gone = change(ledger, first, None)
    with closing(LexicalAsOf(ledger.reader, "ann")) as words:
        found = []
        for position in (0, edited - 1, edited, gone):
            words.advance(position)
            found.append({hit.turn_position for hit in words.search(QUERY, 9)})
    assert found == [set(), {first}, {first, second}, {second}]
