"""Turns that are left behind and returned to, memories that are forgotten and taken back: indices and erasures agree.

Every check is against what raw events say, computed anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.branches import moves_to
from domain.events import (
    Event,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    NewEvent,
    Payload,
    SummaryRecorded,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
)
from domain.identity import StreamId
from domain.ledger import Ledger
from domain.memory import exchange_text
from domain.part_erasure import part_of_memories
from domain.settings import StorageSettings
from domain.statements import LATEST
from projections.dense.index_files import Manifest
from projections.dense.user_build import rows_of
from projections.dense.user_index import UserIndex
from projections.dense.vector_changes import vector_changes
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import EmbeddingSpace, Vectors
from projections.erasure import erase_user
from projections.keys import key_of
from projections.lexical.index import LexicalIndex
from projections.lexical.index_files import LexicalFiles
from projections.mirror.mirror import Mirror
from projections.part_erasure import erase_part
from projections.search.as_of import SearchAsOf
from projections.verification.indices import snapshot_differences
from projections.verification.lexical import lexical_fault
from projections.verification.storage import verify_storage
from tests.byte_search import traces
from tests.ledgers import new_ledger_file, opened, record, record_turn, summary_of, turn

CHAT = StreamId("ann", "chat")
SPACE = EmbeddingSpace("emb", 8, "")
KINDS = ("say", "say", "sum up", "edit", "forget", "take back", "leave", "return")
STEPS = st.lists(
    # What happens, to which of the newest turns, and how many events the indices take in afterwards.
    st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.sampled_from((0, 0, 1, 2))),
    min_size=1,
    max_size=30,
)


def happen(ledger: Ledger, kind: str, pick: int, number: int) -> None:
    turns = ledger.reader.branch(CHAT)
    if kind == "say" or not turns:
        record_turn(ledger, CHAT, f"Fact{number} is told.", "Noted.")
        return
    about = turns[-1 - pick % len(turns)]
    named: dict[str, Any] = {"memory_id": about.memory_id, "turn_id": about.turn_id}
    said: dict[str, Payload] = {
        "sum up": summary_of(about.memory_id, about.turn_id, f"Summary{number}."),
        "edit": MemoryEdited(**named, summary=f"Edit{number}."),
        "forget": MemoryForgotten(**named),
        "take back": MemoryRestored(**named),
        "leave": TurnSuperseded(**named, reason="left"),
        "return": TurnRestored(**named),
    }
    record(ledger, CHAT, said[kind], causation_id=about.memory_id)


def texts_at(events: Sequence[Event]) -> dict[int, str]:
    """Return by key the texts by which memories can be found after these events."""
    texts: dict[int, str] = {}
    for event in events:
        if not isinstance(event.payload, TurnRecorded):
            continue
        about = [other.payload for other in events if other.causation_id == event.event_id]
        forgets = [said for said in about if isinstance(said, MemoryForgotten | MemoryRestored)]
        leaves = [said for said in about if isinstance(said, TurnSuperseded | TurnRestored)]
        if any(isinstance(newest, MemoryForgotten | TurnSuperseded) for newest in (*forgets[-1:], *leaves[-1:])):
            continue
        texts[key_of(event.position, "exchange")] = exchange_text(event.payload.user, event.payload.assistant)
        edits = [said.summary for said in about if isinstance(said, MemoryEdited)]
        models = [said.summary for said in about if isinstance(said, SummaryRecorded)]
        if edits or models:
            texts[key_of(event.position, "summary")] = (edits or models)[-1]
    return texts


def vector_of(text: str) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(SPACE.dimensions).astype(np.float32)
    unit: Vectors = vector / np.linalg.norm(vector)
    return unit


class Indices:
    """Both indices of ann, which take in so many events at a time as they are told to."""

    def __init__(self, ledger: Ledger, folder: Path, stack: ExitStack) -> None:
        self.ledger = ledger
        self.users_dir = folder / "users"
        path = LexicalFiles(ledger.reader, self.users_dir).path("ann")
        self.words = stack.enter_context(closing(LexicalIndex.on_disk(path)))
        self.cache = stack.enter_context(closing(VectorCache(folder / "vectors.sqlite3", half=False)))
        self.space_id = self.cache.space_id(SPACE)
        self.vectors = UserIndex(SPACE.dimensions, "fp32")

    def take_in(self, events: int) -> bool:
        reader = self.ledger.reader
        after = self.vectors.position
        changes, position = reader.facet_texts("ann", after, events)
        if position == after:
            return False
        known = {text_hash(change.text): vector_of(change.text) for change in changes if change.text is not None}
        self.cache.put(self.space_id, known)
        rows = vector_changes(changes, known, SPACE.dimensions)
        assert self.vectors.extend(after, rows.positions, rows.keys, rows.vectors, position, withdrawn=rows.withdrawn)
        assert self.words.apply(changes, after=after, position=position, anchor=reader.hash_at(position))
        return True

    def snapshot(self) -> UserIndex:
        snapshot, position = self.vectors.snapshot()
        return UserIndex(SPACE.dimensions, "fp32", snapshot=snapshot, position=position)

    def faults(self) -> list[str]:
        """Return what ``opm verify`` would say of both now."""
        index = self.snapshot()
        manifest = Manifest(
            model=SPACE.model,
            dimensions=SPACE.dimensions,
            passage_prefix=SPACE.passage_prefix,
            storage="fp32",
            vectors=len(index),
            position=index.position,
            anchor="",
            file="1.faiss",
            bytes=1,
            checksum="",
        )
        found = [each.detail for each in snapshot_differences(self.ledger.reader, self.cache, "ann", manifest, index)]
        words = lexical_fault(self.ledger.reader, self.users_dir, "ann")
        return found if words is None else [*found, words]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_indices_that_read_on_in_parts_end_as_those_made_at_once(steps: Sequence[tuple[str, int, int]]) -> None:
    with TemporaryDirectory() as folder, opened(new_ledger_file(Path(folder))) as ledger, ExitStack() as stack:
        grown = Indices(ledger, Path(folder), stack)
        for number, (kind, pick, events) in enumerate(steps):
            happen(ledger, kind, pick, number)
            if events and grown.take_in(events):
                assert grown.faults() == []
        while grown.take_in(2):
            assert grown.faults() == []
        events_in_all = ledger.reader.events_after(0, 1000)
        texts = texts_at(events_in_all)
        index = grown.snapshot()
        rows, _ = rows_of(ledger.reader, "ann", LATEST)
        assert index.snapshot_keys.tolist() == [row.key for row in rows], "in the order of one made at once"
        assert {row.key: row.text_hash for row in rows} == {key: text_hash(text) for key, text in texts.items()}
        _, indexed = grown.words.content()
        assert indexed.keys() == texts.keys()
        for key, text in texts.items():
            hits = grown.words.search(text.split()[0].rstrip("."), 5).hits
            assert key in {key_of(hit.turn_position, facet) for hit in hits for facet in ("exchange", "summary")}


async def test_the_past_is_searched_as_it_was_whatever_was_hidden_then(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        told = record_turn(ledger, CHAT, "The ferry leaves at nine.", "Noted.")
        named: dict[str, Any] = {"memory_id": told.event_id, "turn_id": 1}
        states = [
            (told.position, True),
            *(
                (record(ledger, CHAT, said, causation_id=told.event_id)[0].position, visible)
                for said, visible in (
                    (TurnSuperseded(**named, reason="edited"), False),
                    (MemoryForgotten(**named), False),
                    (TurnRestored(**named), False),
                    (MemoryRestored(**named), True),
                    (TurnSuperseded(**named, reason="left"), False),
                    (TurnRestored(**named), True),
                )
            ),
        ]
        with closing(SearchAsOf(ledger.reader, "ann", None)) as past:
            for position, visible in states:
                found = await past.search("ferry", 5, position=position, mode="lexical", timeout_s=5)
                assert [each.memory.position for each in found] == ([told.position] if visible else [])


def answered_anew(ledger: Ledger, number: int) -> tuple[str, str]:
    """Record an answer, and one that makes way for it in the same commit; return both memories."""
    first = record_turn(ledger, CHAT, f"Question{number}?", "Not so good.").event_id
    second, answer_id = str(uuid4()), f"chatcmpl-{uuid4()}"
    turns = ledger.reader.branch(CHAT)
    kept = {each.memory_id for each in turns if not each.hidden} - {first}
    moves = moves_to(kept, turns, "regenerated", lambda: str(uuid4()), answer_id)
    recorded = turn(turns[-1].turn_id + 1, f"Question{number}?", "Better.")
    ledger.append(CHAT, lambda _head: [NewEvent(second, recorded, answer_id), *moves]).result()
    return first, second


def test_erasing_the_answer_that_took_its_place_does_not_bring_a_turn_back(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger, closing(LexicalFiles(ledger.reader, tmp_path / "users")) as words:
        first, second = answered_anew(ledger, 1)
        third, fourth = answered_anew(ledger, 2)
        # Then the client returns to the third, in the commit of a fifth that is erased as well.
        turns = ledger.reader.branch(CHAT)
        answer_id, fifth = f"chatcmpl-{uuid4()}", str(uuid4())
        back = moves_to({second, third}, turns, "left", lambda: str(uuid4()), answer_id)
        last = turn(turns[-1].turn_id + 1, "Question3?", "Here.")
        ledger.append(CHAT, lambda _head: [NewEvent(fifth, last, answer_id), *back]).result()
        for erased in (second, fifth):
            erase_part(
                ledger,
                tmp_path,
                "ann",
                lambda: part_of_memories(ledger.persons, "ann", [erased]),  # noqa: B023
            )
        states = {each.memory_id: each.hidden for each in ledger.reader.branch(CHAT)}
        assert states == {first: True, third: False, fourth: True}
        assert [memory.memory_id for memory in ledger.reader.recent_turns(CHAT, 10)] == [third]
        position = ledger.persons.place_of("ann", third)
        assert position is not None
        assert [hit.turn_position for hit in words.search("ann", "Question2", 5).hits] == [position.position]
        assert words.search("ann", "Question1", 5).hits == []
        Mirror(ledger.reader, tmp_path).complete()
    assert verify_storage(StorageSettings(storage_dir=tmp_path)).findings == ()


@pytest.mark.parametrize("whole", [True, False], ids=["person", "part"])
def test_an_erasure_covers_why_a_memory_was_hidden(tmp_path: Path, whole: bool) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        memory_id = record_turn(ledger, CHAT, "Quokkas are small.", "Noted.").event_id
        record_turn(ledger, CHAT, "Something else.", "Noted.")
        named: dict[str, Any] = {"memory_id": memory_id, "turn_id": 1}
        hidden = MemoryForgotten(**named, reason="Quokkaweary")
        back = MemoryRestored(**named, reason="Quokkafond")
        record(ledger, CHAT, hidden, back, TurnSuperseded(**named, reason="left"), causation_id=memory_id)
        mirror = Mirror(ledger.reader, tmp_path)
        mirror.complete()
        assert traces(tmp_path, ["Quokka"]) != []
        if whole:
            erase_user(ledger, tmp_path, "ann")
        else:
            erase_part(ledger, tmp_path, "ann", lambda: part_of_memories(ledger.persons, "ann", [memory_id]))
        mirror.complete()
        assert traces(tmp_path, ["Quokka"]) == []
        assert ledger.reader.count_memories("ann") == (0 if whole else 1)
    assert verify_storage(StorageSettings(storage_dir=tmp_path)).findings == ()
