"""After an erasure nothing of a person can be found, and no other user notices."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import erasure
from domain.api_keys import NewKey, make_key
from domain.errors import InvalidInput
from domain.events import EmbeddingModelActivated, ErasureCompleted, MemoryEdited, MemoryForgotten
from domain.identity import StreamId, user_stream
from domain.ledger import Ledger
from domain.origin import Origin
from domain.verification import is_blanked
from migrations.runner import migrate
from projections.erasure import erase_user, extent_of, finish_erasures
from projections.lexical.index_files import LexicalFiles
from projections.mirror import event_file
from projections.mirror.mirror import Mirror
from projections.rebuild.generation import rebuild
from tests.byte_search import traces
from tests.ledgers import STREAM, activated, all_stored, check_chain_with_erasures, opened, record, record_turn
from tests.processes import ROOT
from tests.projections.world import MODEL, World, remember, settings_for
from tests.projections.world import opened as opened_world
from tests.upstream import ScriptedUpstream

IDS = ["ann@example.org", "用户张三丰", "名" * 10_000, 'Ann/../"quoted"\'%_x']
SHARED = "The weather is lovely today."


def words_of(number: int) -> list[str]:
    """Return what only the erased person says: words of six letters or more, in two scripts."""
    return [f"Zanzibarquest{number}", f"Klabautermann{number}", f"秘密的花园在第{number}号"]


def said_by_ann(count: int) -> list[str]:
    return [" ".join(words_of(number)) for number in range(count)]


async def search_all(world: World, files: LexicalFiles, user: str, texts: list[str]) -> list[object]:
    """Return everything that both indices find, to the last digit."""
    dense = [await world.index.search(user, text, 10) for text in texts]
    lexical = [files.search(user, text, 10) for text in texts]
    return [[found.hits for found in dense], [found.hits for found in lexical]]


@pytest.mark.parametrize("user", IDS, ids=["mail", "chinese", "long", "odd"])
async def test_a_byte_search_finds_nothing(storage: Path, upstream: ScriptedUpstream, user: str) -> None:
    conversation = f"Tagebuch von {user[:20]}"
    facts = said_by_ann(40)
    async with opened_world(settings_for(storage, upstream)) as world:
        ledger, reader = world.ledger, world.ledger.reader
        files = LexicalFiles(reader, world.settings.users_dir)
        mirror = Mirror(reader, storage)
        for start in range(0, 40, 8):  # among others' events, so that pages are shared
            record_turn(ledger, StreamId("bob", "chat"), f"Bob {start}.", SHARED)
            for text in facts[start : start + 8]:
                record_turn(ledger, StreamId(user, conversation), text, "Noted.")
        remember(ledger, "bob", ["The ferry to Lisbon leaves at nine.", SHARED])
        [first, *_] = remember(ledger, user, [SHARED, "x" * 9000 + "Klabautermannlang"])
        memory = next(iter(reader.memories(user, [first]).values()))
        stream = StreamId(user, "chat")
        edited = MemoryEdited(memory_id=memory.memory_id, turn_id=1, summary="Zanzibaredited")
        record(ledger, stream, edited, causation_id=memory.memory_id)
        forgotten = MemoryForgotten(memory_id=memory.memory_id, turn_id=1, reason="Zanzibarreason")
        record(ledger, stream, forgotten, causation_id=memory.memory_id)
        make_key(ledger, NewKey(user, name="Zanzibarlaptop"), "account:opm")
        await rebuild(ledger, world.client, world.cache, world.settings, user_id=None)
        await rebuild(ledger, world.client, world.cache, world.settings, user_id=user)
        while await mirror.advance():
            pass
        asked = ["Lisbon ferry", SHARED, "Bob"]
        before = await search_all(world, files, "bob", asked)
        await search_all(world, files, user, facts[:2])
        wanted = [
            *(word for number in range(40) for word in words_of(number)),
            *("Klabautermannlang", "Zanzibaredited", "Zanzibarreason", "Zanzibarlaptop"),
            *(user, conversation),
        ]
        assert len(traces(storage, wanted)) > len(wanted), "the search finds what is there"
        hashes = {row.position: row.hash for row in all_stored(ledger)}

        done = erase_user(ledger, storage, user)

        assert traces(storage, wanted) == []
        rows = all_stored(ledger)
        check_chain_with_erasures(rows)
        assert {row.position: row.hash for row in rows if row.position in hashes} == hashes
        blanked = [row for row in rows if is_blanked(row)]
        assert len(blanked) == done.events
        assert {row.user_id for row in blanked} == {done.pseudonym}
        assert {row.conversation_id for row in blanked} == {"erased:1", "erased:2", ""}
        assert await search_all(world, files, "bob", asked) == before
        fresh = LexicalFiles(reader, world.settings.users_dir)
        try:
            assert await search_all(world, fresh, user, [facts[0]]) == [[[]], [[]]]
        finally:
            fresh.close()
        assert reader.active_embedding_model(user) == reader.active_embedding_model("bob")
        record_turn(ledger, StreamId(user, conversation), "I am new here.", "Welcome.")
        [again] = (await world.index.search(user, "I am new here.", 5)).hits
        assert again.turn_position == len(rows) + 1
        assert reader.stored_after(len(rows), 10)[0].version == 1
        files.close()


async def test_vectors_of_the_person_go_and_shared_ones_stay(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened_world(settings_for(storage, upstream)) as world:
        for user in ("ann", "bob"):
            remember(world.ledger, user, [SHARED], summarised=False)
        remember(world.ledger, "ann", said_by_ann(3))
        remember(world.ledger, "bob", ["Only Bob said this."])
        for user in ("ann", "bob"):
            await world.index.maintain(user)
        cached = len(world.cache.hashes())
        assert erase_user(world.ledger, storage, "ann").vectors == 6
        assert len(world.cache.hashes()) == cached - 6
        upstream.forget_calls()
        async with opened_world(world.settings) as fresh:
            await fresh.index.maintain("bob")
        assert not upstream.calls_of("embed"), "nothing of Bob's had to be embedded again"


async def test_the_mirror_of_a_blanked_person_gives_back_every_event(storage: Path, ledger: Ledger) -> None:
    for number in range(3):
        record_turn(ledger, StreamId("ann", f"c{number}"))
        record_turn(ledger, StreamId("bob", f"c{number}"))
    mirror = Mirror(ledger.reader, storage)
    while await mirror.advance():
        pass
    done = erase_user(ledger, storage, "ann")
    record_turn(ledger, StreamId("bob", "c0"))
    again = Mirror(ledger.reader, storage)
    for follower in (mirror, again):
        while await follower.advance():
            pass
    files = [path for folder in ("users", "system") for path in (storage / folder).rglob("*.jsonl")]
    lines = [line for path in files for line in path.read_text().splitlines()]
    stored = sorted((event_file.event_of(line) for line in lines), key=lambda row: row.position)
    assert stored == all_stored(ledger)
    assert {path.name for path in (storage / "users").iterdir()} == {"bob", f"erased%3a{done.pseudonym[7:]}"}


def test_a_user_of_whom_nothing_is_kept_is_refused(storage: Path, ledger: Ledger) -> None:
    record_turn(ledger, StreamId("bob", "c"))
    with pytest.raises(InvalidInput, match="--user = 'ann'"):
        erase_user(ledger, storage, "ann")
    assert ledger.reader.head_position() == 1


def test_a_user_who_has_only_a_key_is_erased(storage: Path, ledger: Ledger) -> None:
    record_turn(ledger, StreamId("bob", "c"))
    make_key(ledger, NewKey("Zanzibarann", name="Zanzibarlaptop"), "account:opm")
    erase_user(ledger, storage, "Zanzibarann")
    assert traces(storage, ["Zanzibar"]) == []
    assert [key.revoked_by for key in ledger.keys.all()] == ["erasure"]


def test_an_erased_id_can_begin_anew_and_be_erased_again(storage: Path, ledger: Ledger) -> None:
    names = set()
    for _ in range(2):
        event = record_turn(ledger, StreamId("ann", "c"))
        assert (event.version, ledger.reader.count_turns("ann")) == (1, 1)
        assert extent_of(ledger, storage, "ann").events == 1
        names.add(erase_user(ledger, storage, "ann").pseudonym)
    assert len(names) == 2
    check_chain_with_erasures(all_stored(ledger))


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("c", "d", "")), st.integers(1, 4)), max_size=12),
    st.integers(1, 3),
    st.integers(0, 6),
)
def test_blanking_goes_on_wherever_it_was_interrupted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]], batch: int, stopped_after: int
) -> None:
    folder = tmp_path_factory.mktemp("erased")
    migrate(folder / "ledger.sqlite3")
    with pytest.MonkeyPatch.context() as patch, opened(folder / "ledger.sqlite3") as ledger:
        patch.setattr(erasure, "_BATCH_EVENTS", batch)
        record_turn(ledger, StreamId("a", "c"))
        for user, conversation, times in steps:
            for _ in range(times):
                if conversation:
                    record_turn(ledger, StreamId(user, conversation))
                else:
                    record(ledger, user_stream(user), activated())
        before = all_stored(ledger)
        erasure.begin(ledger, "a", "e-1")
        for _ in range(stopped_after):
            ledger.write(lambda connection: erasure._blank_batch(connection, "a", "erased:e-1")).result()
        if ledger.persons.extent_of("a")[0]:
            record_turn(ledger, StreamId("a", "c"))  # somebody goes on chatting
        erasure.begin(ledger, "a", "e-1")
        erasure.blank(ledger, "a", "e-1")
        after = all_stored(ledger)
        check_chain_with_erasures(after)
        assert ledger.persons.extent_of("a") == (0, 0)
        assert ledger.persons.erasures_begun() == []
        streams: dict[tuple[str, str], list[int]] = {}
        for row in after:
            streams.setdefault((row.user_id, row.conversation_id), []).append(row.version)
        assert all(versions == list(range(1, len(versions) + 1)) for versions in streams.values())
        for old, new in zip(before, after, strict=False):
            assert is_blanked(new) if old.user_id == "a" else new == old


def test_a_killed_erasure_is_finished_by_the_next(storage: Path, ledger: Ledger) -> None:
    """An erasure killed at many different moments is found and finished each time."""
    record_turn(ledger, StreamId("bob", "c"), "Bob stays.")
    program = (
        "import sys; from pathlib import Path; from domain.ledger import Ledger; from projections.erasure import"
        " erase_user; folder = Path(sys.argv[1]); ledger = Ledger(folder / 'ledger.sqlite3'); print('go', flush=True);"
        " erase_user(ledger, folder, 'ann')"
    )
    for delay_ms in (0, 4, 10, 20, 40):
        for text in said_by_ann(30):
            record_turn(ledger, StreamId("ann", text[:16]), text)
        process = subprocess.Popen([sys.executable, "-c", program, str(storage)], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        threading.Event().wait(delay_ms / 1000)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        finish_erasures(ledger, storage)
        if ledger.persons.extent_of("ann")[0]:  # killed before it had begun
            erase_user(ledger, storage, "ann")
        assert traces(storage, ["Zanzibarquest", "Klabautermann", "秘密的花园"]) == []
        assert list((storage / "erasing").iterdir()) == []
    check_chain_with_erasures(all_stored(ledger))
    assert ledger.reader.count_turns("bob") == 1


async def test_an_index_written_while_its_user_is_erased_does_not_stay(
    storage: Path, upstream: ScriptedUpstream
) -> None:
    async with opened_world(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", said_by_ann(300), summarised=False)
        await world.index.maintain("ann")
        space = await world.index.space_of("ann")
        key, index = world.index._open("ann", space)
        erase_user(world.ledger, storage, "ann")
        await asyncio.to_thread(world.index.store.save, key, index)
        assert not (storage / "users" / "ann").exists()
        assert await world.found("ann", said_by_ann(1)[0]) == []


async def test_no_index_of_an_erased_person_is_held(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened_world(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", said_by_ann(3))
        remember(world.ledger, "bob", said_by_ann(1))
        for user in ("ann", "bob"):
            assert await world.found(user, said_by_ann(1)[0])
        erase_user(world.ledger, storage, "ann")
        assert await world.found("bob", said_by_ann(1)[0])  # another user's search is enough
        assert [key.user_id for key in world.index.store.held] == ["bob"]


def test_what_was_activated_for_the_person_alone_is_blanked_too(storage: Path, ledger: Ledger) -> None:
    record_turn(ledger, StreamId("ann", "c"))
    record(ledger, user_stream("ann"), activated(MODEL))
    erase_user(ledger, storage, "ann")
    assert not any(isinstance(event.payload, EmbeddingModelActivated) for event in ledger.reader.events_after(0, 9))


def test_who_erased_a_person_stays_known_and_the_person_does_not(storage: Path, ledger: Ledger) -> None:
    record_turn(ledger, STREAM)
    origin = Origin(actor="account:root", route="opm erase", reason="asked by letter")
    erase_user(ledger, storage, STREAM.user_id, origin)
    [done] = [event for event in ledger.reader.events_after(0, 100) if isinstance(event.payload, ErasureCompleted)]
    assert (done.user_id, done.origin) == ("", origin)
    assert STREAM.user_id not in {event.user_id for event in ledger.reader.events_after(0, 100)}
