"""After the erasure of a part nothing of it can be found, the chain is valid, and everything else goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from domain.clock import Clock
from domain.errors import InvalidInput, LedgerWriteFailed, MemoryErased, UnknownMemory
from domain.events import (
    ErasureCompleted,
    Event,
    GateDecided,
    MemoriesErased,
    MemoryEdited,
    NewEvent,
    RerankDecided,
    ToolCall,
    ToolsCalled,
)
from domain.identity import StreamId, user_stream
from domain.ledger import Ledger
from domain.part_erasure import Part, begin, blank, part_of_conversation, part_of_memories
from domain.settings import StorageSettings
from domain.sqlite import DRIVER
from domain.verification import is_blanked
from projections.backup.ledger_copy import back_up
from projections.backup.restore import restore_backup, restore_from_mirror
from projections.erasure import erase_user
from projections.lexical.index_files import LexicalFiles
from projections.mirror.mirror import Mirror
from projections.part_erasure import ErasedPart, erase_older, erase_part, finish_parts
from projections.verification.storage import verify_ledger_file, verify_storage
from tests.byte_search import traces
from tests.ledgers import all_stored, new_ledger_file, one_of_each, opened, record, record_turn, summary_of, turn
from tests.processes import ROOT
from tests.projections.world import World, remember, settings_for
from tests.projections.world import opened as opened_world
from tests.upstream import ScriptedUpstream

CHAT = StreamId("ann", "chat")
SECRET = "The code word of the vault is Zanzibarquest, 秘密的花园."
WORDS = ("Zanzibarquest", "zanzibarquest", "秘密的花园")


def erase_memory(ledger: Ledger, storage: Path, memory_id: str) -> ErasedPart:
    return erase_part(ledger, storage, "ann", lambda: part_of_memories(ledger.persons, "ann", [memory_id]))


def erase_conversation(ledger: Ledger, storage: Path, stream: StreamId) -> ErasedPart:
    return erase_part(ledger, storage, stream.user_id, lambda: part_of_conversation(ledger.persons, stream))


def findings(storage: Path) -> list[str]:
    return [finding.what for finding in verify_storage(StorageSettings(storage_dir=storage)).findings]


async def followed(world: World, user: str, words: LexicalFiles) -> None:
    await world.index.maintain(user)
    words.catch_up(user)
    mirror = Mirror(world.ledger.reader, world.settings.storage_dir)
    while await mirror.advance():
        pass


def decided_about(ledger: Ledger, memory_id: str, quoted: str = "Zanzibarquest") -> Event:
    """Record a question elsewhere, at which the gate quoted the memory."""
    verdicts = ({"n": 1, "memory_id": memory_id, "keep": False, "reason": f"only {quoted} is named"},)
    gate = GateDecided.model_validate(
        {
            "strategy": "llm",
            "outcome": "ok",
            "note": None,
            "model": "m",
            "prompt_version": "1",
            "keep_max": 30,
            "score_rule": None,
            "verdicts": verdicts,
            "raw_answer": json.dumps({"keep": [], "reasons": [{"n": 1, "why": f"only {quoted} is named"}]}),
            "usage": None,
            "latency_ms": 1.0,
        }
    )
    return record(ledger, StreamId("ann", "other"), gate)[0]


async def test_a_byte_search_finds_nothing_of_one_memory(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened_world(settings_for(storage, upstream)) as world:
        ledger = world.ledger
        with closing(LexicalFiles(ledger.reader, world.settings.users_dir)) as words:
            remember(ledger, "ann", [f"Fact {number} of the house." for number in range(12)])
            [position] = remember(ledger, "ann", [SECRET])
            remember(ledger, "ann", [f"Fact {number} of the garden." for number in range(12)])
            remember(ledger, "bob", ["Bob keeps bees."])
            memory_id = ledger.reader.memories("ann", [position])[position].memory_id
            edited = MemoryEdited(memory_id=memory_id, turn_id=13, summary=f"Ann: {SECRET}")
            record(ledger, CHAT, edited, causation_id=memory_id)
            gate = decided_about(ledger, memory_id)
            for user in ("ann", "bob"):
                await followed(world, user, words)
            bob = await world.found("bob", "bees")
            there = " ".join(name for name, _ in traces(storage, WORDS))
            assert all(name in there for name in ("ledger.sqlite3", "chat.jsonl", "other.jsonl", "lexical.sqlite3"))
            assert position in [found for found, _ in await world.found("ann", SECRET, 3)]
            before = all_stored(ledger)

            done = erase_memory(ledger, storage, memory_id)

            assert traces(storage, WORDS) == []
            assert (done.memories, done.events, done.vectors) == (1, 4, 2)
            after = all_stored(ledger)
            assert [row.hash for row in after[: len(before)]] == [row.hash for row in before]
            blanked = {row.position for row in after if is_blanked(row)}
            assert blanked == {position, position + 1, gate.position, gate.position - 1}
            assert [row.type for row in after[len(before) :]] == [MemoriesErased.type, ErasureCompleted.type]
            for old, new in zip(before, after, strict=False):
                assert (old.user_id, old.conversation_id) == (new.user_id, new.conversation_id)
                assert new.position in blanked or new == old
            # The person goes on, and finds everything else, in the indices that were open and in new ones.
            assert position not in [found for found, _ in await world.found("ann", SECRET, 30)]
            assert len(await world.found("ann", "Fact of the house", 30)) == 24
            assert await world.found("bob", "bees") == bob
            assert [hit.turn_position for hit in words.search("ann", "Zanzibarquest", 5).hits] == []
            assert record_turn(ledger, CHAT, "And now?").version == len(before) - 4 + 1
            await followed(world, "ann", words)
            assert traces(storage, WORDS) == []
    assert findings(storage) == []


async def test_a_byte_search_finds_nothing_of_one_conversation(storage: Path, upstream: ScriptedUpstream) -> None:
    diary = StreamId("ann", "diary")
    async with opened_world(settings_for(storage, upstream)) as world:
        ledger = world.ledger
        with closing(LexicalFiles(ledger.reader, world.settings.users_dir)) as words:
            for number in range(8):
                turn = record_turn(ledger, diary, f"Zanzibarquest{number} is my secret.", "Klabautermann")
                record(ledger, diary, summary_of(turn.event_id, number + 1, SECRET), causation_id=turn.event_id)
                record_turn(ledger, CHAT, f"Where is my bicycle number {number}?", "In the cellar.")
            quoted = record_turn(ledger, CHAT, "I wrote: Zanzibarquest3 is my secret. Right?", "Yes.")
            await followed(world, "ann", words)
            done = erase_conversation(ledger, storage, diary)
            assert (done.memories, done.events, done.conversations) == (8, 16, 1)
            # Another memory says it too: it is named, and erased where that is wanted.
            assert done.said_in == (quoted.event_id,)
            assert {word for _, word in traces(storage, ["Zanzibarquest", "Klabautermann"])} == {b"Zanzibarquest"}
            erase_memory(ledger, storage, quoted.event_id)
            assert traces(storage, ["Zanzibarquest", "Klabautermann", "秘密的花园"]) == []
            assert ledger.history.conversations("ann", 9)[0].turns == 8
            assert len(ledger.history.conversations("ann", 9)) == 1
            assert ledger.reader.recent_turns(diary, 9) == []
            assert record_turn(ledger, diary, "A new page.").version == 17
            assert [turn.turn_id for turn in ledger.reader.recent_turns(diary, 9)] == [1]
            await followed(world, "ann", words)
    assert findings(storage) == []


class TestGuards:
    def test_the_trigger_lets_nothing_pass_that_no_event_lists(self, storage: Path, ledger: Ledger) -> None:
        turns = [record_turn(ledger, CHAT, f"Text {number}.") for number in range(3)]
        other = record_turn(ledger, StreamId("bob", "chat"))
        begin(ledger, "ann", Part("memory", [turns[1].position, other.position]))
        [begun] = ledger.persons.parts_begun()
        mark = f'{{"erased_by":"{begun.event_id}"}}'
        attempts = [
            ("UPDATE events SET payload = ?, salt = '' WHERE position = 1", mark),
            ("UPDATE events SET payload = ?, salt = '' WHERE position = 3", mark),
            ("UPDATE events SET payload = ?, salt = '' WHERE position = 4", mark),  # it is somebody else's
            ("UPDATE events SET payload = ?, salt = '' WHERE position = 5", mark),  # the erasure itself
            ("UPDATE events SET payload = ? WHERE position = 2", mark),
            ("UPDATE events SET payload = ?, salt = '' WHERE position = 2", "{}"),
            ("UPDATE events SET payload = ?, salt = '' WHERE position = 2", '{"erased_by":"nothing"}'),
            ("UPDATE events SET payload = ?, salt = '', user_id = 'eve' WHERE position = 2", mark),
            ("UPDATE events SET payload = ?, salt = '', hash = '' WHERE position = 2", mark),
        ]
        with closing(DRIVER.connect(ledger.path, isolation_level=None)) as connection:
            for statement, value in attempts:
                with pytest.raises(DRIVER.IntegrityError, match="append-only"):
                    connection.execute(statement, (value,))
            connection.execute("UPDATE events SET payload = ?, salt = '' WHERE position = 2", (mark,))
            with pytest.raises(DRIVER.IntegrityError, match="append-only"):
                connection.execute("UPDATE events SET payload = 'again' WHERE position = 2")

    @pytest.mark.parametrize(
        ("statement", "what"),
        [
            ("UPDATE events SET payload = '{\"erased_by\":\"x\"}', salt = '' WHERE position = 1", "no MemoriesErased"),
            (
                "UPDATE events SET salt = '', payload = (SELECT payload FROM events WHERE position = 2) "
                "WHERE position = 3",
                "is not about it",
            ),
            (
                "UPDATE events SET salt = '', payload = (SELECT payload FROM events WHERE position = 2) "
                "WHERE position = 4",
                "is not about it",
            ),
        ],
    )
    def test_what_was_blanked_without_a_listing_is_found(
        self, storage: Path, ledger: Ledger, statement: str, what: str
    ) -> None:
        turns = [record_turn(ledger, CHAT, f"Text {number}.") for number in range(3)]
        record_turn(ledger, StreamId("bob", "chat"))
        erase_memory(ledger, storage, turns[1].event_id)
        ledger.close()
        with closing(DRIVER.connect(ledger.path, isolation_level=None)) as connection:
            (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'events_no_update'").fetchone()
            connection.execute("DROP TRIGGER events_no_update")
            connection.execute(statement)
            connection.execute(sql)
        assert any(what in said for said in findings(storage))

    def test_nothing_is_recorded_about_an_erased_memory(self, storage: Path, ledger: Ledger) -> None:
        turn = record_turn(ledger, CHAT)
        erase_memory(ledger, storage, turn.event_id)
        late = NewEvent("late", summary_of(turn.event_id), causation_id=turn.event_id)
        with pytest.raises(MemoryErased):
            ledger.append(CHAT, lambda _head: [late], builds_on=turn.event_id).result()
        with pytest.raises(UnknownMemory):
            erase_memory(ledger, storage, turn.event_id)
        with pytest.raises(InvalidInput, match="--conversation"):
            erase_conversation(ledger, storage, CHAT)


@pytest.mark.parametrize(
    ("strategy", "raw"),
    [
        ("llm", '{"top": [1]}'),
        ("endpoint", '{"id": "r1", "model": "bge", "results": [{"index": 0, "relevance_score": 0.9}]}'),
    ],
)
def test_a_decision_for_another_answer_stays_where_it_says_nothing_in_words(
    storage: Path, ledger: Ledger, strategy: str, raw: str
) -> None:
    memory_id = record_turn(ledger, CHAT, SECRET).event_id
    decision = {
        "strategy": strategy,
        "outcome": "ok",
        "note": None,
        "model": "m",
        "prompt_version": None,
        "retrieve_k": 1,
        "order": (memory_id,),
        "named": 1,
        "replayed": (memory_id,),
        "raw_answer": raw,
        "usage": None,
        "latency_ms": 1.0,
    }
    [event] = record(ledger, StreamId("ann", "other"), RerankDecided.model_validate(decision))
    before = all_stored(ledger)[event.position - 1]
    erase_memory(ledger, storage, memory_id)
    assert all_stored(ledger)[event.position - 1] == before


@pytest.mark.parametrize(
    ("arguments", "blanked"), [(json.dumps({"note": [SECRET]}), True), (SECRET, True), ('{"note": "milk"}', False)]
)
def test_a_call_of_a_tool_that_says_it_is_erased_too(
    storage: Path, ledger: Ledger, arguments: str, blanked: bool
) -> None:
    told = record_turn(ledger, CHAT, SECRET)
    called = next(each for each in one_of_each() if isinstance(each, ToolsCalled))
    said = called.model_copy(update={"calls": (ToolCall(call_id="c", name="note", arguments=arguments),)})
    [event] = record(ledger, StreamId("ann", "other"), said)
    erase_memory(ledger, storage, told.event_id)
    stored = {each.event_id: each for each in all_stored(ledger)}
    assert is_blanked(stored[event.event_id]) == blanked


def test_a_person_can_be_erased_after_a_part_of_them(storage: Path, ledger: Ledger) -> None:
    turns = [record_turn(ledger, CHAT, f"Zanzibar {number}.") for number in range(4)]
    record_turn(ledger, StreamId("bob", "chat"))
    erase_memory(ledger, storage, turns[2].event_id)
    erase_user(ledger, storage, "ann")
    assert ledger.persons.extent_of("ann") == (0, 0)
    assert traces(storage, ["Zanzibar"]) == []
    ledger.close()
    assert [what for what in findings(storage) if "missing here" not in what] == []


async def test_backup_and_mirror_give_back_what_was_left(storage: Path, ledger: Ledger, tmp_path: Path) -> None:
    turns = [record_turn(ledger, CHAT, f"Zanzibar{number}.") for number in range(4)]
    mirror = Mirror(ledger.reader, storage)
    while await mirror.advance():
        pass
    settings = StorageSettings(storage_dir=storage)
    back_up(settings, tmp_path / "early.sqlite3")
    erase_memory(ledger, storage, turns[1].event_id)
    while await mirror.advance():
        pass
    rows = all_stored(ledger)
    ledger.close()
    back_up(settings, tmp_path / "copy.sqlite3")
    restore_from_mirror(settings)
    with opened(settings.ledger_path) as again:
        assert all_stored(again) == rows
    assert restore_backup(settings, tmp_path / "copy.sqlite3").erasures_undone == 0
    with opened(settings.ledger_path) as again:
        assert all_stored(again) == rows
    assert restore_backup(settings, tmp_path / "early.sqlite3").erasures_undone == 1


@hypothesis_settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(("turn", "summary", "gate", "memory", "conversation", "user")), st.integers(0, 5)),
        min_size=4,
        max_size=14,
    )
)
def test_whatever_is_erased_in_whatever_order_the_chain_is_valid(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Turns, edits and erasures in any order: verify finds nothing, and nothing of what was erased is left."""
    folder = tmp_path_factory.mktemp("parts")
    with opened(new_ledger_file(folder)) as ledger:
        alive: dict[str, StreamId] = {}
        gone: list[str] = []
        texts: dict[str, str] = {}
        for number, (what, choice) in enumerate([("turn", 0), *steps]):
            stream = StreamId("ann" if choice % 2 else "bob", f"c{choice % 3}")
            memory_id = list(alive)[choice % len(alive)] if alive else None
            if what == "turn":
                text = f"Zanzibar{number}quest"
                event = record_turn(ledger, stream, text)
                alive[event.event_id], texts[event.event_id] = stream, text
            elif what == "summary" and memory_id is not None:
                said = summary_of(memory_id, 1, f"About {texts[memory_id]}")
                record(ledger, alive[memory_id], said, causation_id=memory_id)
            elif what == "gate" and memory_id is not None and alive[memory_id].user_id == "ann":
                decided_about(ledger, memory_id, texts[memory_id])
            elif what == "memory" and memory_id is not None:
                user = alive.pop(memory_id).user_id
                part = part_of_memories(ledger.persons, user, [memory_id])
                erase_part(ledger, folder, user, lambda part=part: part)  # type: ignore[misc]
                gone.append(texts[memory_id])
            elif what == "conversation" and stream in alive.values():
                erase_conversation(ledger, folder, stream)
                gone += [texts[each] for each, where in alive.items() if where == stream]
                alive = {each: where for each, where in alive.items() if where != stream}
            elif what == "user" and stream.user_id in {where.user_id for where in alive.values()}:
                erase_user(ledger, folder, stream.user_id)
                gone += [texts[each] for each, where in alive.items() if where.user_id == stream.user_id]
                alive = {each: where for each, where in alive.items() if where.user_id != stream.user_id}
        assert traces(folder, gone) == []
        assert {
            memory.memory_id for user in ("ann", "bob") for memory in ledger.persons.memories_before(user, 2**62, 99)
        } == set(alive)
        assert verify_ledger_file(ledger.path)[1] == []


def test_what_is_older_is_erased_with_all_that_belongs_to_it(storage: Path) -> None:
    now = [datetime(2026, 6, 1, tzinfo=UTC)]
    with closing(Ledger(storage / "ledger.sqlite3", Clock(now=lambda: now[0]))) as ledger:
        old = record_turn(ledger, CHAT, "Zanzibarold")
        record(ledger, StreamId("bob", "c"), summary_of("m"))
        now[0] += timedelta(days=100)
        record(ledger, CHAT, summary_of(old.event_id, 1, "Zanzibarlate"), causation_id=old.event_id)
        newest = NewEvent("newest", turn(2, "Still needed.").model_copy(update={"ts": now[0]}))
        ledger.append(CHAT, lambda _head: [newest]).result()
        # Brought along today, but said long ago.
        ledger.append(StreamId("bob", "import"), lambda _head: [_turn(1, 7, ts=now[0] - timedelta(days=400))]).result()
        done = erase_older(ledger, storage, now[0] - timedelta(days=30))
        assert done.memories == 2
        assert traces(storage, ["Zanzibar"]) == []
        assert [memory.memory_id for memory in ledger.reader.recent_turns(CHAT, 9)] == ["newest"]
        head = ledger.reader.head_position()
        assert erase_older(ledger, storage, now[0] - timedelta(days=30)).events == 0
        assert ledger.reader.head_position() == head, "nothing older is left, so nothing is recorded"


def test_a_killed_erasure_is_finished_by_the_next_start(storage: Path, ledger: Ledger) -> None:
    """Killed at many moments, it has either not begun or is finished later, and the chain is always valid."""
    program = (
        "import sys; from pathlib import Path; from domain.ledger import Ledger; from domain.identity import StreamId;"
        "from domain.part_erasure import part_of_conversation; from projections.part_erasure import erase_part;"
        "folder = Path(sys.argv[1]); ledger = Ledger(folder / 'ledger.sqlite3'); print('go', flush=True);"
        "erase_part(ledger, folder, 'ann', lambda: part_of_conversation(ledger.persons, StreamId('ann', sys.argv[2])))"
    )
    record_turn(ledger, StreamId("bob", "c"), "Bob stays.")
    for delay_ms in (0, 3, 8, 15, 30, 50):
        stream = StreamId("ann", f"talk {delay_ms}")
        for number in range(600):
            ledger.append(stream, lambda head, number=number: [_turn(head.turn_id + 1, number)])  # type: ignore[misc]
        ledger.append(stream, lambda head: [_turn(head.turn_id + 1, 600)]).result()
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(storage), stream.conversation_id], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        threading.Event().wait(delay_ms / 1000)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        finish_parts(ledger, storage)
        if ledger.persons.positions_of_conversation(stream):  # killed before it had begun
            erase_conversation(ledger, storage, stream)
        assert traces(storage, ["Zanzibarquest"]) == []
        assert ledger.persons.parts_begun() == []
    assert ledger.reader.count_turns("bob") == 1
    ledger.close()
    assert [what for what in findings(storage) if "missing here" not in what] == []


def _turn(turn_id: int, number: int, **more: object) -> NewEvent:
    said = turn(turn_id, f"Zanzibarquest {number}.", "Noted.").model_copy(update=more)
    return NewEvent(str(uuid4()), said)


def snapshots(storage: Path) -> list[Path]:
    return list(storage.rglob("*.faiss"))


async def test_an_index_that_was_open_is_not_written_again(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened_world(settings_for(storage, upstream)) as world:
        [position, *_] = remember(world.ledger, "ann", [SECRET, *(f"Fact {n}." for n in range(300))], summarised=False)
        await world.index.maintain("ann")
        key, index = world.index._open("ann", await world.index.space_of("ann"))
        memory_id = world.ledger.reader.memories("ann", [position])[position].memory_id
        erase_memory(world.ledger, storage, memory_id)
        await asyncio.to_thread(world.index.store.save, key, index)
        assert snapshots(storage) == []
        assert position not in [found for found, _ in await world.found("ann", SECRET, 30)]


def test_an_event_in_another_stream_allows_nothing(storage: Path, ledger: Ledger) -> None:
    turn = record_turn(ledger, CHAT)
    listed = MemoriesErased(scope="memory", memories=1, events=1, positions=((1, 1),))
    for stream in (StreamId("bob", "chat"), user_stream("bob"), StreamId("ann", "other")):
        [event] = record(ledger, stream, listed)
        with pytest.raises(LedgerWriteFailed, match="append-only"):
            blank(ledger, "ann", event.event_id, [turn.position])
