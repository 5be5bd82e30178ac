"""Ledgers with random histories, and a plain-Python model of what must be read from them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.events import (
    Event,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    Payload,
    PromptsActivated,
    SummaryRecorded,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
)
from domain.history_reader import HistoryReader
from domain.identity import SYSTEM_STREAM, StreamId, user_stream
from domain.ledger_reader import LedgerReader
from domain.memory import Memory, exchange_text
from domain.person_reader import PersonReader
from domain.statements import LATEST
from tests.domain.ledger_contract import Store
from tests.ledgers import activated, record, record_turn, summary_of

USERS = ("ann", "Ann", "a/b", "%", "用户")
CONVERSATIONS = ("trip", "Trip", "default")
NOBODY = "nobody"
P = TypeVar("P", bound=Payload)


@dataclass
class History:
    """The readers of a ledger, and the same events in a list."""

    reader: LedgerReader
    persons: PersonReader
    history: HistoryReader
    events: list[Event] = field(default_factory=list)

    def of(self, user_id: str, kind: type[object]) -> list[Event]:
        return [event for event in self.events if event.user_id == user_id and isinstance(event.payload, kind)]

    def about(self, turn: Event, kind: type[P], as_of: int = LATEST) -> list[tuple[int, P]]:
        return [
            (event.position, event.payload)
            for event in self.events
            if isinstance(event.payload, kind)
            and (event.causation_id, event.user_id) == (turn.event_id, turn.user_id)
            and event.position <= as_of
        ]

    def newest(self, turn: Event, kinds: tuple[type[Payload], ...], as_of: int = LATEST) -> Payload | None:
        """Return the newest of some kinds of events about a turn."""
        said = sorted((each for kind in kinds for each in self.about(turn, kind, as_of)), key=lambda each: each[0])
        return said[-1][1] if said else None

    def is_forgotten(self, turn: Event, as_of: int = LATEST) -> bool:
        return isinstance(self.newest(turn, (MemoryForgotten, MemoryRestored), as_of), MemoryForgotten)

    def is_superseded(self, turn: Event, as_of: int = LATEST) -> bool:
        return isinstance(self.newest(turn, (TurnSuperseded, TurnRestored), as_of), TurnSuperseded)

    def is_hidden(self, turn: Event, as_of: int = LATEST) -> bool:
        return self.is_forgotten(turn, as_of) or self.is_superseded(turn, as_of)

    def memory(self, turn: Event, as_of: int = LATEST) -> Memory | None:
        """Return the memory of a turn; None if it is hidden or not recorded yet."""
        assert isinstance(turn.payload, TurnRecorded)
        if turn.position > as_of or self.is_hidden(turn, as_of):
            return None
        said: Sequence[tuple[int, MemoryEdited | SummaryRecorded]]
        said = self.about(turn, MemoryEdited, as_of) or self.about(turn, SummaryRecorded, as_of)
        return Memory(
            memory_id=turn.event_id,
            position=turn.position,
            conversation_id=turn.conversation_id,
            turn_id=turn.payload.turn_id,
            ts=turn.payload.ts,
            user=turn.payload.user,
            assistant=turn.payload.assistant,
            summary=said[-1][1].summary if said else None,
            summary_position=said[-1][0] if said else None,
            edited=bool(self.about(turn, MemoryEdited, as_of)),
        )

    def memories(self, turns: Sequence[Event], as_of: int = LATEST) -> list[Memory]:
        return [memory for turn in turns if (memory := self.memory(turn, as_of)) is not None]

    def found_by(self, user_id: str | None, as_of: int = LATEST) -> dict[tuple[int, str], str]:
        """Return the texts by which memories can be found, by (position of the turn, facet)."""
        turns = [event for event in self.events if isinstance(event.payload, TurnRecorded)]
        own = [turn for turn in turns if user_id in (None, turn.user_id)]
        texts: dict[tuple[int, str], str] = {}
        for memory in self.memories(own, as_of):
            texts[memory.position, "exchange"] = exchange_text(memory.user, memory.assistant)
            if memory.summary is not None:
                texts[memory.position, "summary"] = memory.summary
        return texts


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("turn",) * 4,
                *("summary", "edit", "forget", "unforget", "supersede", "return"),
                *("foreign summary", "foreign hiding", "activated", "prompts"),
            )
        ),
        st.sampled_from(USERS),
        st.sampled_from(CONVERSATIONS),
        st.integers(0, 1000),
    ),
    max_size=25,
)


@contextmanager
def history(store: Store, steps: Sequence[tuple[str, str, str, int]]) -> Iterator[History]:
    with tempfile.TemporaryDirectory() as folder, closing(store.open(store.create(Path(folder)))) as ledger:
        made = History(ledger.reader, ledger.persons, ledger.history)
        for number, (kind, user, conversation, pick) in enumerate(steps):
            turns = [event for event in made.events if isinstance(event.payload, TurnRecorded)]
            own = [turn for turn in turns if turn.user_id == user]
            stream = StreamId(user, conversation)
            if kind == "turn":
                made.events.append(record_turn(ledger, stream, f"q{number}", f"a{number}"))
            elif kind == "summary" and own:
                turn = own[pick % len(own)]
                summary = summary_of(turn.event_id, text=f"s{number}")
                made.events += record(ledger, turn.stream, summary, causation_id=turn.event_id)
            elif kind in {"edit", "forget", "unforget", "supersede", "return"} and own:
                turn = own[pick % len(own)]
                about: dict[str, Payload] = {
                    "edit": MemoryEdited(memory_id=turn.event_id, turn_id=1, summary=f"e{number}"),
                    "forget": MemoryForgotten(memory_id=turn.event_id, turn_id=1),
                    "unforget": MemoryRestored(memory_id=turn.event_id, turn_id=1),
                    "supersede": TurnSuperseded(memory_id=turn.event_id, turn_id=1, reason="edited"),
                    "return": TurnRestored(memory_id=turn.event_id, turn_id=1),
                }
                made.events += record(ledger, turn.stream, about[kind], causation_id=turn.event_id)
            elif kind == "foreign summary" and turns:  # must never happen, and would do no harm
                turn = turns[pick % len(turns)]
                summary = summary_of(turn.event_id, text=f"f{number}")
                made.events += record(ledger, stream, summary, causation_id=turn.event_id)
            elif kind == "foreign hiding" and turns:
                turn = turns[pick % len(turns)]
                hiding: Payload = TurnSuperseded(memory_id=turn.event_id, turn_id=1, reason="left")
                if pick % 2:
                    hiding = TurnRestored(memory_id=turn.event_id, turn_id=1)
                made.events += record(ledger, stream, hiding, causation_id=turn.event_id)
            elif kind == "activated":
                where = SYSTEM_STREAM if pick % 2 else user_stream(user)
                made.events += record(ledger, where, activated(f"emb-{number}"))
            elif kind == "prompts":
                prompts = PromptsActivated(versions={"CHAT": f"{number}"}, texts={})
                made.events += record(ledger, SYSTEM_STREAM, prompts)
        yield made


def any_history(test: Callable[[Any, History], None]) -> Callable[[Any], None]:
    """Run a test method of a contract with random histories, each in a ledger of that store."""

    # A contract's tests are the same functions for every store.
    @settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
    @given(STEPS)
    def run(self: Store, steps: Sequence[tuple[str, str, str, int]]) -> None:
        with history(self, steps) as made:
            test(self, made)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
