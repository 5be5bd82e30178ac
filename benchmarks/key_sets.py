"""Compares which texts of a turn to index, each set of them through the product's own indices.

A memory is found by its best match over its texts. The product indexes two: the exchange and, once written, its summary
(``domain.events.Facet``). Here a reader of the ledger, from which both indices take their texts, gives other texts
instead; everything after it, from embedding to ranking, is the product's. A set has at most two texts, since only two
have names. Figures: ``docs/decisions/0053-index-the-whole-exchange.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from domain.events import Facet
from domain.ledger_reader import LedgerReader
from domain.memory import FacetText, Memory, exchange_text
from domain.statements import LATEST
from projections.keys import FACETS

Text = Callable[[Memory], str]


def _user(memory: Memory) -> str:
    return memory.user


def _assistant(memory: Memory) -> str:
    return memory.assistant


def _exchange(memory: Memory) -> str:
    return exchange_text(memory.user, memory.assistant)


@dataclass(frozen=True)
class KeySet:
    """The texts by which a memory is found."""

    name: str
    texts: tuple[Text, ...]


EXCHANGE = KeySet("exchange", (_exchange,))
KEY_SETS = (
    KeySet("user", (_user,)),
    KeySet("assistant", (_assistant,)),
    EXCHANGE,
    KeySet("user or assistant", (_user, _assistant)),
    KeySet("exchange or user", (_exchange, _user)),
    KeySet("exchange or assistant", (_exchange, _assistant)),
)


class KeyedReader(LedgerReader):
    """Reads a ledger without summaries and gives the texts of a key set for each turn."""

    def __init__(self, engine: Engine, key_set: KeySet) -> None:
        super().__init__(engine)
        self._texts = key_set.texts

    def facet_texts(
        self, user_id: str | None, after: int, limit: int, *, as_of: int = LATEST
    ) -> tuple[list[FacetText], int]:
        """Return the texts of the key set without empty ones, each under the name of a facet."""
        changes, read_to = super().facet_texts(user_id, after, limit, as_of=as_of)
        keyed: list[FacetText] = []
        for owner in dict.fromkeys(change.user_id for change in changes):
            own = [change for change in changes if change.user_id == owner]
            memories = self.memories(owner, [change.turn_position for change in own], as_of=as_of)
            keyed += [
                change._replace(facet=facet, text=said)
                for change in own
                for facet, said in _named(self._texts, memories[change.turn_position])
            ]
        return keyed, read_to


def _named(texts: Sequence[Text], memory: Memory) -> list[tuple[Facet, str]]:
    said = [text(memory) for text in texts]
    return [(facet, text) for facet, text in zip(FACETS, said, strict=False) if text.strip()]
