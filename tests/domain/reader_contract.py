"""Each question to the ledger, asked of random histories and of a plain-Python model; users never mix.

Like :mod:`tests.domain.ledger_contract` it is for every store to pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.branches import TurnState
from domain.events import (
    EmbeddingModelActivated,
    Event,
    MemoryEdited,
    MemoryRestored,
    PromptsActivated,
    SummaryRecorded,
    TurnRecorded,
    TurnRestored,
)
from domain.history_reader import ConversationSummary
from domain.identity import SYSTEM_ID, StreamId
from domain.ledger import Ledger
from domain.ledger_reader import ConversationHead
from domain.memory import FacetText
from domain.person_reader import TurnPlace
from domain.statements import FACET_TYPES, LATEST
from tests.domain.histories import CONVERSATIONS, NOBODY, USERS, History, any_history
from tests.domain.ledger_contract import StoreTests
from tests.ledgers import STREAM, all_stored, record, record_turn, summary_of


def after_all(changes: Sequence[FacetText]) -> dict[tuple[int, str], str]:
    """Apply the changes in order, as an index does."""
    texts: dict[tuple[int, str], str] = {}
    for change in changes:
        texts.pop((change.turn_position, change.facet), None)
        if change.text is not None:
            texts[change.turn_position, change.facet] = change.text
    return texts


class ReaderContract(StoreTests):
    """What is read is what was appended, of the user asked about and of no other."""

    @any_history
    def test_events_by_position(self, made: History) -> None:
        assert made.reader.head_position() == len(made.events)
        for after in range(0, len(made.events) + 2, 3):
            for limit in (0, 2, 100):
                assert made.reader.events_after(after, limit) == made.events[after : after + limit]
                found = [row.event_id for row in made.reader.stored_after(after, limit)]
                assert found == [event.event_id for event in made.events[after : after + limit]]
        turns = [event for event in made.events if isinstance(event.payload, TurnRecorded)]
        assert made.reader.events_after(0, 100, ["TurnRecorded"]) == turns
        assert made.reader.events_after(0, 100, []) == []

    @any_history
    def test_one_conversation(self, made: History) -> None:
        for stream in (*{event.stream for event in made.events}, StreamId(NOBODY, "trip")):
            own = [event for event in made.events if event.stream == stream]
            for after in range(len(own) + 1):
                rows = made.reader.stored_in_stream(stream, after, 3)
                assert [row.event_id for row in rows] == [event.event_id for event in own[after : after + 3]]
                assert [row.version for row in rows] == list(range(after + 1, after + 1 + len(rows)))
            said = [event for event in own if isinstance(event.payload, TurnRecorded)]
            turns = made.memories(said)
            for limit in (0, 1, 3, 100):
                assert made.reader.recent_turns(stream, limit) == (turns[-limit:] if limit else [])
            for as_of in range(0, len(made.events), 4):
                assert made.reader.recent_turns(stream, 3, as_of=as_of) == made.memories(said, as_of)[-3:]
            for memory in turns:
                earlier = [other for other in turns if other.turn_id < memory.turn_id]
                assert made.reader.recent_turns(stream, 2, before_turn=memory.turn_id) == earlier[-2:]

    @any_history
    def test_memories_of_a_user_and_of_no_other(self, made: History) -> None:
        every_position = range(len(made.events) + 2)
        for user in (*USERS, NOBODY, SYSTEM_ID):
            turns = made.of(user, TurnRecorded)
            for as_of in (*range(0, len(made.events), 4), LATEST):
                expected = {memory.position: memory for memory in made.memories(turns, as_of)}
                assert made.reader.memories(user, every_position, as_of=as_of) == expected
        assert made.reader.memories("ann", []) == {}

    @any_history
    def test_the_turns_beside_others(self, made: History) -> None:
        for user in (*USERS, NOBODY):
            turns = made.of(user, TurnRecorded)
            asked = turns[::3]
            for reach in (0, 1, 2):
                beside = []
                for conversation in CONVERSATIONS:
                    own = [turn for turn in turns if turn.conversation_id == conversation]
                    near = [at for at, turn in enumerate(own) if turn in asked]
                    beside += [
                        turn for at, turn in enumerate(own) if any(1 <= abs(at - other) <= reach for other in near)
                    ]
                in_order = sorted(beside, key=lambda turn: turn.position)
                everywhere = [event.position for event in made.events if event in asked or event.user_id != user]
                for as_of in (*range(0, len(made.events), 6), LATEST):
                    found = made.reader.neighbors(user, [turn.position for turn in asked], reach, as_of=as_of)
                    assert found == made.memories(in_order, as_of)
                    assert made.reader.neighbors(user, everywhere, reach, as_of=as_of) == found
        assert made.reader.neighbors("ann", [], 3) == []

    @any_history
    def test_texts_to_embed(self, made: History) -> None:
        for user in (*USERS, NOBODY, None):
            found: list[FacetText] = []
            after = 0
            while True:
                texts, position = made.reader.facet_texts(user, after, 2)
                found += texts
                if position == after:
                    break
                assert position > after
                after = position
            assert after_all(found) == made.found_by(user)
            carrying = [
                event for event in made.events if event.payload.type in FACET_TYPES and user in (None, event.user_id)
            ]
            assert made.reader.count_facets(user) == len(carrying)
            for as_of in range(0, len(made.events), 4):
                found, _ = made.reader.facet_texts(user, 0, 1000, as_of=as_of)
                assert after_all(found) == made.found_by(user, as_of)

    @any_history
    def test_turns_that_lack_a_summary(self, made: History) -> None:
        lacking = [
            event
            for event in made.events
            if isinstance(event.payload, TurnRecorded)
            and not made.is_hidden(event)
            and not any(made.about(event, kind) for kind in (SummaryRecorded, MemoryEdited))
        ]
        assert made.reader.turns_without_summary(0, 100)[0] == lacking
        for after in range(len(made.events) + 1):
            since = (
                {
                    event.position: event
                    for event in lacking
                    if event.position > after
                    # Brought back since then: whoever has read so far has passed it over.
                }
                | {
                    back.position: event
                    for event in lacking
                    for back in made.events[after:]
                    if event.position <= after
                    and isinstance(back.payload, MemoryRestored | TurnRestored)
                    and (back.causation_id, back.user_id) == (event.event_id, event.user_id)
                }
            )
            expected = sorted(since.items())
            for limit in (1, 100):
                found, reached = made.reader.turns_without_summary(after, limit)
                assert found == [event for _, event in expected[:limit]]
                assert reached == (expected[:limit][-1][0] if expected else after)
            counted = {event.event_id for event in since.values()}
            assert made.reader.count_turns_without_summary(after) == len(counted)
            assert made.reader.count_turns_without_summary(after, 1) == min(len(counted), 1)

    @any_history
    def test_the_turns_of_a_branch(self, made: History) -> None:
        for stream in (*{event.stream for event in made.events}, StreamId(NOBODY, "trip")):
            own = [event for event in made.of(stream.user_id, TurnRecorded) if event.stream == stream]
            assert made.reader.branch(stream) == [
                TurnState(
                    turn.position,
                    turn.event_id,
                    turn.version,
                    turn.payload.turn_id,
                    forgotten=made.is_forgotten(turn),
                    superseded=made.is_superseded(turn),
                )
                for turn in own
                if isinstance(turn.payload, TurnRecorded)
            ]

    @any_history
    def test_walks_over_conversations_and_users(self, made: History) -> None:
        last: dict[tuple[str, str], Event] = {}
        for event in made.events:
            last[event.user_id, event.conversation_id] = event
        expected = [
            ConversationHead(*ids, event.version, made.reader.hash_at(event.position))
            for ids, event in sorted(last.items())
        ]
        found: list[ConversationHead] = []
        while page := made.reader.heads_after(
            StreamId(found[-1].user_id, found[-1].conversation_id) if found else None, 2
        ):
            found += page
        assert found == expected

        users = sorted({event.user_id for event in made.events if isinstance(event.payload, TurnRecorded)})
        walked: list[str] = []
        while names := made.reader.users_after(walked[-1] if walked else "", 2):
            walked += names
        assert walked == users

    @any_history
    def test_conversations_of_a_user_and_of_no_other(self, made: History) -> None:
        for user in (*USERS, NOBODY):
            by_conversation: dict[str, list[Event]] = {}
            for turn in made.of(user, TurnRecorded):
                if made.memory(turn) is not None:
                    by_conversation.setdefault(turn.conversation_id, []).append(turn)
            expected = []
            for conversation, turns in sorted(by_conversation.items(), key=lambda item: -item[1][-1].position):
                first, last = turns[0].payload, turns[-1].payload
                assert isinstance(first, TurnRecorded)
                assert isinstance(last, TurnRecorded)
                expected.append(ConversationSummary(conversation, len(turns), last.ts, first.user))
            assert made.history.conversations(user, 100) == expected
            assert made.history.conversations(user, 1) == expected[:1]

    @any_history
    def test_how_many_memories_people_have(self, made: History) -> None:
        remembered: dict[str, list[Event]] = {}
        for user in USERS:
            if kept := [turn for turn in made.of(user, TurnRecorded) if not made.is_hidden(turn)]:
                remembered[user] = kept
            assert made.reader.count_memories(user) == len(kept)
            assert made.reader.count_turns(user) == len(made.of(user, TurnRecorded))
        assert made.reader.count_memories(None) == sum(map(len, remembered.values()))
        listed = {found.user_id: found.memories for found in made.history.users(100)}
        assert listed == {user: len(kept) for user, kept in remembered.items()}

    @any_history
    def test_the_active_model_and_prompts(self, made: History) -> None:
        for user in (*USERS, NOBODY):
            seen = [
                event.payload
                for event in made.events
                if isinstance(event.payload, EmbeddingModelActivated) and event.user_id in (SYSTEM_ID, user)
            ]
            assert made.reader.active_embedding_model(user) == (seen[-1] if seen else None)
        prompts = [event.payload for event in made.events if isinstance(event.payload, PromptsActivated)]
        assert made.reader.active_prompts() == (prompts[-1] if prompts else None)

    @any_history
    def test_the_events_of_one_answer(self, made: History) -> None:
        for event in made.events:
            if event.correlation_id is not None:
                same = [other for other in made.events if other.correlation_id == event.correlation_id]
                assert made.reader.events_of_answer(event.correlation_id) == same
        assert made.reader.events_of_answer("chatcmpl-unknown") == []

    def test_a_question_with_quotes_finds_nothing(self, ledger: Ledger) -> None:
        record_turn(ledger, STREAM)
        for user in ("' OR '1'='1", "ann' --", "%", "_nn"):
            assert ledger.history.conversations(user, 10) == []
            assert ledger.reader.memories(user, [1]) == {}
            assert ledger.reader.recent_turns(StreamId(user, "trip"), 10) == []

    def test_thousands_of_positions_are_one_question(self, ledger: Ledger) -> None:
        record_turn(ledger, STREAM)
        assert list(ledger.reader.memories("ann", range(20_000))) == [1]

    def test_an_empty_ledger_has_a_head(self, ledger: Ledger) -> None:
        position, prev_hash = ledger.reader.head()
        assert position == 0
        record_turn(ledger, STREAM)
        assert all_stored(ledger)[0].prev_hash == prev_hash

    def test_the_turns_beside_a_turn_are_those_of_its_own_conversation(self, ledger: Ledger) -> None:
        here, there = StreamId("ann", "here"), StreamId("ann", "there")
        first = [record_turn(ledger, here).position]
        other = record_turn(ledger, there).position
        record(ledger, here, summary_of("m1"))
        first += [record_turn(ledger, here).position for _ in range(3)]
        beside = ledger.reader.positions_beside("ann", [first[0], first[2], other])
        assert beside == {
            first[0]: ((first[1],), (first[2],)),
            first[2]: ((first[1], first[3]), (first[0],)),
            other: ((), ()),
        }
        assert ledger.reader.positions_beside("ann", [first[2]], as_of=first[2]) == {
            first[2]: ((first[1],), (first[0],))
        }
        assert ledger.reader.positions_beside("bob", first) == {}
        assert ledger.reader.positions_beside("ann", []) == {}

    @any_history
    def test_memories_one_by_one_and_page_by_page(self, made: History) -> None:
        every_turn = [event for event in made.events if isinstance(event.payload, TurnRecorded)]
        for user in (*USERS, NOBODY):
            turns = made.of(user, TurnRecorded)
            newest_first = made.memories(turns)[::-1]
            for before in (0, len(made.events) // 2, LATEST):
                expected = [memory for memory in newest_first if memory.position < before]
                assert made.persons.memories_before(user, before, 3) == expected[:3]
            for turn in every_turn:
                own = turn in turns
                assert made.persons.memory(user, turn.event_id) == (made.memory(turn) if own else None)
                place = made.persons.place_of(user, turn.event_id)
                assert (place is not None) == own
                if place is not None:
                    head = [event.version for event in made.events if event.stream == turn.stream][-1]
                    assert isinstance(turn.payload, TurnRecorded)
                    hidden = (made.is_forgotten(turn), made.is_superseded(turn))
                    assert place == TurnPlace(turn.stream, turn.position, turn.payload.turn_id, head, *hidden)
        for turn in every_turn:
            assert made.persons.owner_of(turn.event_id) == turn.user_id
        assert made.persons.owner_of("no such") is None
