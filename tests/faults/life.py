"""The life of a storage, against a dictionary.

People say, correct, withdraw, take that back and are erased; their clients leave turns behind and come back to them;
processes restart and crash; indices are rebuilt, swapped to another model, and deleted.

Whatever happened in which order, what is remembered is what the dictionary says: in the ledger, in both indices, and in
the mirror; and everything verifies.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from domain.branches import moves_to
from domain.errors import UnknownMemory, VersionConflict
from domain.events import NewEvent
from domain.identity import StreamId
from domain.statements import LATEST
from migrations.runner import migrate
from projections.dense.projection import DenseProjection
from projections.erasure import erase_user
from projections.lexical.index_files import LexicalFiles
from projections.mirror.mirror import Mirror, mirror_files
from projections.rebuild.generation import rebuild
from projections.verification.storage import verify_storage
from service.memory_commands import MemoryCommands
from tests.ledgers import summary_of, turn
from tests.projections.world import FACTS, MODEL, OTHER_MODEL, World, opened, settings_for
from tests.upstream import ScriptedUpstream

T = TypeVar("T")
USERS = ("ann", "a/b", "豆豆")
CHATS = ("trip", "default")
users, chats, which = st.sampled_from(USERS), st.sampled_from(CHATS), st.integers(0, 100)


@dataclass
class Known:
    """A memory as the dictionary has it."""

    user: str
    position: int
    text: str
    summary: str | None = None
    edited: bool = False
    forgotten: bool = False
    superseded: bool = False

    @property
    def hidden(self) -> bool:
        return self.forgotten or self.superseded


class Life(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._upstream = self._stack.enter_context(ScriptedUpstream(embedding_models=(MODEL, OTHER_MODEL)))
        self._loop = self._stack.enter_context(asyncio.Runner())
        self._known: dict[str, Known] = {}
        self._model, self._said, self._copies = MODEL, 0, 0
        self._world: World | None = None
        self._closing: contextlib.AsyncExitStack | None = None

    @initialize()
    def begin(self) -> None:
        (self._folder / "storage-0").mkdir()
        self._open()
        for user in USERS:
            self.say(user, "trip", 4)

    @property
    def _storage(self) -> Path:
        return self._folder / f"storage-{self._copies}"

    @property
    def world(self) -> World:
        assert self._world is not None
        return self._world

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)

    def _open(self) -> None:
        settings = settings_for(self._storage, self._upstream, emb_model=self._model)
        migrate(settings.ledger_path)

        async def enter() -> World:
            self._closing = contextlib.AsyncExitStack()
            return await self._closing.enter_async_context(opened(settings))

        self._world = self._run(enter())

    def _close(self) -> None:
        if self._closing is not None:
            self._run(self._closing.aclose())
            self._closing = None

    def _of(self, user: str, number: int) -> str | None:
        own = [memory_id for memory_id, known in self._known.items() if known.user == user]
        return own[number % len(own)] if own else None

    @rule(user=users, chat=chats, count=st.integers(1, 4))
    def say(self, user: str, chat: str, count: int) -> None:
        for _ in range(count):
            self._said += 1
            text, memory_id = f"{FACTS[self._said % len(FACTS)]} marker{self._said}x.", str(uuid4())
            self._append(StreamId(user, chat), memory_id, text)

    def _append(self, stream: StreamId, memory_id: str, text: str) -> None:
        [event] = self.world.ledger.append(
            stream, lambda head: [NewEvent(memory_id, turn(head.turn_id + 1, text, "Noted."))]
        ).result()
        self._known[memory_id] = Known(stream.user_id, event.position, text)

    @rule(user=users, chat=chats)
    def say_too_late(self, user: str, chat: str) -> None:
        stream = StreamId(user, chat)
        late = self.world.ledger.persons.version_of(stream) - 1
        refused = self.world.ledger.append(
            stream, lambda head: [NewEvent(str(uuid4()), turn(head.turn_id + 1))], expected_version=late
        )
        with pytest.raises(VersionConflict):
            refused.result()

    @rule(user=users, number=which)
    def sum_up(self, user: str, number: int) -> None:
        memory_id = self._of(user, number)
        if memory_id is None:
            return
        known, text = self._known[memory_id], f"Summary {uuid4()}."
        place = self.world.ledger.persons.place_of(user, memory_id)
        assert place is not None
        summary = NewEvent(str(uuid4()), summary_of(memory_id, place.turn_id, text), None, memory_id)
        self.world.ledger.append(place.stream, lambda _head: [summary]).result()
        if not known.edited:
            known.summary = text

    @rule(user=users, number=which)
    def correct(self, user: str, number: int) -> None:
        memory_id = self._of(user, number)
        if memory_id is None:
            return
        known = self._known[memory_id]
        if known.hidden:
            with pytest.raises(UnknownMemory):
                MemoryCommands(self.world.ledger).edit(user, memory_id, "Nobody sees it.")
            return
        known.summary, known.edited = f"Corrected {uuid4()}.", True
        MemoryCommands(self.world.ledger).edit(user, memory_id, known.summary)

    @rule(user=users, number=which, back=st.booleans())
    def withdraw(self, user: str, number: int, back: bool) -> None:
        memory_id = self._of(user, number)
        if memory_id is not None:
            known, commands = self._known[memory_id], MemoryCommands(self.world.ledger)
            changed = (commands.restore if back else commands.forget)(user, memory_id)
            assert changed == (known.forgotten == back)
            known.forgotten = not back

    @rule(user=users, chat=chats, keep=st.lists(which, max_size=4))
    def go_on_from_elsewhere(self, user: str, chat: str, keep: list[int]) -> None:
        """Let a client go on with any turns of a conversation, which leaves the others behind."""
        stream, ledger = StreamId(user, chat), self.world.ledger
        turns = ledger.reader.branch(stream)
        path = {turns[number % len(turns)].memory_id for number in keep} if turns else set()
        moves = moves_to(path, turns, "left", lambda: str(uuid4()))
        assert len(moves) == sum(self._known[each.memory_id].superseded == (each.memory_id in path) for each in turns)
        ledger.append(stream, lambda _head: moves).result()
        for each in turns:
            self._known[each.memory_id].superseded = each.memory_id not in path

    @rule(user=users, sure=st.integers(0, 3))
    def erase(self, user: str, sure: int) -> None:
        if sure == 0 and self.world.ledger.persons.has_events(user):
            erase_user(self.world.ledger, self._storage, user)
            self._known = {key: known for key, known in self._known.items() if known.user != user}

    @rule()
    def restart(self) -> None:
        self._close()
        self._open()

    @rule()
    def crash(self) -> None:
        """Go on with the files as they are while everything is open."""
        before = self._storage
        self._copies += 1
        shutil.copytree(before, self._storage, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        self._close()
        shutil.rmtree(before)
        self._open()

    @precondition(lambda self: self._known)
    @rule(swap=st.booleans())
    def rebuild(self, swap: bool) -> None:
        if swap:
            self._model = OTHER_MODEL if self._model == MODEL else MODEL
            self.restart()
        world = self.world
        self._run(rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None))

    @rule(what=st.sampled_from(["index", "lexical.sqlite3*", "*.jsonl", "vectors"]))
    def delete(self, what: str) -> None:
        self._close()
        if what == "vectors":
            doomed = list(self._storage.glob("vectors.sqlite3*"))
        elif what == "*.jsonl":
            doomed = list(mirror_files(self._storage))
        else:
            doomed = list(self._storage.glob(f"users/*/{what}"))
        for path in doomed:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._open()

    @rule()
    def look(self) -> None:
        """Compare everything with the dictionary."""
        world = self.world
        Mirror(world.ledger.reader, self._storage).complete()
        with contextlib.closing(LexicalFiles(world.ledger.reader, world.settings.users_dir)) as lexical:
            for user in USERS:
                own = {key: known for key, known in self._known.items() if known.user == user and not known.hidden}
                found = world.ledger.persons.memories_before(user, LATEST, 1000)
                assert {memory.memory_id: (memory.user, memory.summary, memory.edited) for memory in found} == {
                    key: (known.text, known.summary, known.edited) for key, known in own.items()
                }
                positions = {known.position for known in own.values()}
                for number in range(1, self._said + 1):
                    hits = {hit.turn_position for hit in lexical.search(user, f"marker{number}x", 5).hits}
                    assert hits == {known.position for known in own.values() if f"marker{number}x" in known.text}
                dense = self._run(self._dense(user, FACTS[0]))
                assert dense <= positions
                assert len(dense) == min(len(positions), 5)
        assert verify_storage(world.settings).findings == ()

    async def _dense(self, user: str, query: str) -> set[int]:
        projection = DenseProjection(self.world.ledger, self.world.index, self.world.cache)
        while await projection.advance():
            pass
        return {position for position, _ in await self.world.found(user, query)}

    def teardown(self) -> None:
        if self._world is not None and self._closing is not None:
            self.look()
        self._close()
        self._stack.close()
