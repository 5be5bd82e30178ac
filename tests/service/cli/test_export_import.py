"""A person takes their memory along and brings it elsewhere; doing it twice changes nothing."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from domain.events import (
    GateDecided,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    RerankDecided,
    RetrievalRecorded,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
)
from domain.identity import StreamId, user_stream
from domain.ledger import Ledger
from domain.memory import Memory
from migrations.runner import migrate
from projections.mirror.event_file import event_of
from service.memory_commands import MemoryCommands
from tests.ledgers import (
    activated,
    all_stored,
    check_chain,
    check_chain_with_erasures,
    one_of_each,
    opened,
    record,
    record_turn,
    summary_of,
)
from tests.service.cli.conftest import Opm

STREAM = StreamId("用户 ann", "trip/1")
LINES = [
    {"turn_id": n, "ts": f"2023-05-0{n}T12:00:00Z", "user": f"Question {n}?", "assistant": "Yes."} for n in (1, 2, 3)
]


def fill(ledger: Ledger) -> None:
    """Give a user something of everything."""
    failed = next(payload for payload in one_of_each() if isinstance(payload, TurnFailed))
    decisions = [p for p in one_of_each() if type(p).__name__ in {"RetrievalRecorded", "GateDecided", "RerankDecided"}]
    for number in range(4):
        record(ledger, STREAM, *decisions)
        turn = record_turn(ledger, STREAM, f"Question {number}, 问题 \u2028?", "Answer.")
        record(ledger, STREAM, summary_of(turn.event_id, number + 1, f"Summary {number}"), causation_id=turn.event_id)
        if number == 1:
            edited = MemoryEdited(memory_id=turn.event_id, turn_id=2, summary="As I say.")
            record(ledger, STREAM, edited, causation_id=turn.event_id)
        if number == 2:
            forgotten = MemoryForgotten(memory_id=turn.event_id, turn_id=3)
            record(ledger, STREAM, forgotten, causation_id=turn.event_id)
    record(ledger, StreamId("用户 ann", "other"), failed)
    record(ledger, user_stream("用户 ann"), activated())
    record_turn(ledger, StreamId("bob", "trip/1"))


def memories(ledger: Ledger, user: str) -> list[tuple[Any, ...]]:
    def told(memory: Memory) -> tuple[Any, ...]:
        return memory.conversation_id, memory.turn_id, memory.ts, memory.user, memory.assistant, memory.summary

    return [told(memory) for memory in ledger.persons.memories_before(user, 2**62, 100)]


@pytest.fixture
def ledger_path(storage: Path) -> Path:
    with opened(storage / "ledger.sqlite3") as ledger:
        fill(ledger)
    return storage / "ledger.sqlite3"


@pytest.fixture
def exported(opm: Opm, ledger_path: Path, tmp_path: Path) -> Path:
    assert ledger_path.exists()
    path = tmp_path / "ann.jsonl"
    assert opm("export", "--user", STREAM.user_id, "-o", str(path)).status == 0
    return path


def test_an_export_is_every_event_as_it_stands(exported: Path, ledger_path: Path) -> None:
    with opened(ledger_path) as ledger:
        own = [row for row in all_stored(ledger) if row.user_id == STREAM.user_id]
    assert [event_of(line) for line in exported.read_text().split("\n")[:-1]] == own


def test_an_export_goes_to_standard_output_and_never_over_a_file(opm: Opm, exported: Path) -> None:
    assert opm("export", "--user", STREAM.user_id).out == exported.read_text()
    assert opm("export", "--user", STREAM.user_id, "-o", str(exported)).status == 2
    assert opm("export", "--user", "nobody").status == 2


def test_an_export_into_a_file_can_be_told_to_a_program(opm: Opm, exported: Path, tmp_path: Path) -> None:
    told = opm("export", "--user", STREAM.user_id, "-o", str(tmp_path / "again.jsonl"), "--json")
    lines = len(exported.read_text().split("\n")) - 1
    assert json.loads(told.out) == {"path": str(tmp_path / "again.jsonl"), "format": "events", "lines": lines}


def test_an_export_comes_into_another_ledger_with_ids_corrections_and_withdrawals(
    opm: Opm, exported: Path, ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "elsewhere"))
    said = json.loads(opm("import", str(exported), "--user", "ann", "--json").out)
    assert (said["format"], said["turns"], said["summaries"], said["known"]) == ("export", 4, 4, 0)
    assert "RetrievalRecorded events" not in said["skipped"]
    assert said["skipped"]["positions of memories that are not in it, in searches"] == 4  # they are invented
    with opened(ledger_path) as before, opened(tmp_path / "elsewhere" / "ledger.sqlite3") as after:
        assert memories(after, "ann") == memories(before, STREAM.user_id)
        kept = {row.event_id for row in all_stored(after)}
        assert kept < {row.event_id for row in all_stored(before)}
        check_chain(all_stored(after))
        head = after.reader.head()
        events = after.reader.events_after(0, 100)
        assert all(e.payload.imported_from == "export" for e in events if isinstance(e.payload, TurnRecorded))
        assert {type(e.payload) for e in events} == {
            TurnRecorded,
            SummaryRecorded,
            MemoryEdited,
            MemoryForgotten,
            TurnFailed,
            RetrievalRecorded,
            GateDecided,
            RerankDecided,
        }
    again = json.loads(opm("import", str(exported), "--user", "ann", "--json").out)
    assert (again["turns"], again["known"]) == (0, 4)
    with opened(tmp_path / "elsewhere" / "ledger.sqlite3") as after:
        assert after.reader.head() == head


def leave_and_return(ledger: Ledger) -> list[str]:
    """Record five turns in each state that a turn can be in; return their ids."""
    ids = [record_turn(ledger, STREAM, f"Turn {number}?").event_id for number in range(5)]
    forgotten, left, both, returned, unforgotten = ids
    for memory_id, *said in (
        (forgotten, MemoryForgotten(memory_id=forgotten, turn_id=5)),
        (left, TurnSuperseded(memory_id=left, turn_id=6, reason="edited")),
        (both, TurnSuperseded(memory_id=both, turn_id=7, reason="left"), MemoryForgotten(memory_id=both, turn_id=7)),
        (
            returned,
            TurnSuperseded(memory_id=returned, turn_id=8, reason="left"),
            TurnRestored(memory_id=returned, turn_id=8),
        ),
        (
            unforgotten,
            MemoryForgotten(memory_id=unforgotten, turn_id=9),
            MemoryRestored(memory_id=unforgotten, turn_id=9, reason="by mistake"),
        ),
    ):
        record(ledger, STREAM, *said, causation_id=memory_id)
    return ids


def test_what_is_hidden_comes_along_hidden(
    opm: Opm, ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(ledger_path) as ledger:
        ids = leave_and_return(ledger)
        before = [(turn.memory_id, turn.forgotten, turn.superseded) for turn in ledger.reader.branch(STREAM)]
        shown = memories(ledger, STREAM.user_id)
    opm("export", "--user", STREAM.user_id, "-o", str(tmp_path / "ann.jsonl"))
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "elsewhere"))
    assert opm("import", str(tmp_path / "ann.jsonl"), "--user", "ann").status == 0
    with opened(tmp_path / "elsewhere" / "ledger.sqlite3") as ledger:
        branch = ledger.reader.branch(StreamId("ann", STREAM.conversation_id))
        assert [(turn.memory_id, turn.forgotten, turn.superseded) for turn in branch] == before
        assert memories(ledger, "ann") == shown
        assert [turn.hidden for turn in branch if turn.memory_id in ids] == [True, True, True, False, False]
    taken = json.loads(opm("import", str(tmp_path / "ann.jsonl"), "--user", "bob", "--json").out)
    skipped = {what: taken["skipped"].get(what) for what in ("forgotten memories", "superseded turns")}
    assert skipped == {"forgotten memories": 3, "superseded turns": 1}
    with opened(tmp_path / "elsewhere" / "ledger.sqlite3") as ledger:
        assert [row[3:5] for row in memories(ledger, "bob")] == [row[3:5] for row in shown]


def test_what_is_hidden_here_is_not_brought_back_by_an_export(
    opm: Opm, ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, later = tmp_path / "first.jsonl", tmp_path / "later.jsonl"
    opm("export", "--user", STREAM.user_id, "-o", str(first))
    with opened(ledger_path) as ledger:
        here, there, *_ = [memory.memory_id for memory in ledger.persons.memories_before(STREAM.user_id, 2**62, 100)]
        for memory_id in (here, there):
            MemoryCommands(ledger).forget(STREAM.user_id, memory_id)
            MemoryCommands(ledger).restore(STREAM.user_id, memory_id)
    opm("export", "--user", STREAM.user_id, "-o", str(later))
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "elsewhere"))
    assert opm("import", str(first), "--user", "ann").status == 0
    assert opm("forget", here, "--user", "ann").status == 0
    assert opm("import", str(later), "--user", "ann").status == 0
    with opened(tmp_path / "elsewhere" / "ledger.sqlite3") as ledger:
        assert ledger.persons.memory("ann", here) is None
        assert ledger.persons.memory("ann", there) is not None
    again = json.loads(opm("import", str(later), "--user", "ann", "--json").out)
    assert (again["turns"], again["summaries"]) == (0, 0)


def test_an_export_comes_back_after_an_erasure_under_new_ids(opm: Opm, exported: Path, ledger_path: Path) -> None:
    with opened(ledger_path) as ledger:
        before = memories(ledger, STREAM.user_id)
    assert opm("erase", "--user", STREAM.user_id, "--yes").status == 0
    for turns in (3, 0):
        said = json.loads(opm("import", str(exported), "--user", STREAM.user_id, "--json").out)
        assert said["turns"] == turns
        assert "new ids" in said["notes"][0]
    with opened(ledger_path) as ledger:
        came_back = memories(ledger, STREAM.user_id)
        assert [(m[0], *m[2:]) for m in came_back] == [(m[0], *m[2:]) for m in before]
        check_chain_with_erasures(all_stored(ledger))


def test_a_changed_line_of_an_export_is_named_and_its_conversation_refused_whole(
    opm: Opm, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "elsewhere"))
    lines = exported.read_text().split("\n")
    changed = tmp_path / "changed.jsonl"
    changed.write_text("\n".join([*lines[:3], lines[3].replace("Question 0", "Quest 0"), *lines[4:]]))
    ran = opm("import", str(changed), "--user", "cy")
    assert ran.status == 1
    assert "could not be read: changed.jsonl, line 4" in ran.out
    with opened(tmp_path / "elsewhere" / "ledger.sqlite3") as ledger:
        assert {row.conversation_id for row in all_stored(ledger)} == {"other"}


def test_message_lists_can_be_exported_and_come_back(opm: Opm, ledger_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    assert opm("export", "--user", STREAM.user_id, "--format", "openai", "-o", str(path)).status == 0
    [conversation] = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    assert conversation["conversation_id"] == "trip/1"
    assert [m["content"] for m in conversation["messages"]][::2] == [f"Question {n}, 问题 \u2028?" for n in (0, 1, 3)]
    assert json.loads(opm("import", str(path), "--user", "cy", "--json").out)["turns"] == 3
    with opened(ledger_path) as ledger:
        mine, theirs = memories(ledger, "cy"), memories(ledger, STREAM.user_id)
        assert [(m[2], m[3]) for m in mine] == [(m[2], m[3]) for m in theirs], "with their times"


def test_a_list_of_messages_says_what_it_leaves_out(opm: Opm, ledger_path: Path, tmp_path: Path) -> None:
    arguments = ("export", "--user", STREAM.user_id, "--format", "openai", "-o")
    assert "left out: summaries" in opm(*arguments, str(tmp_path / "a.jsonl")).err
    assert "summaries" in json.loads(opm(*arguments, str(tmp_path / "b.jsonl"), "--json").out)["left_out"]
    ran = opm("export", "--user", STREAM.user_id, "--json")
    assert (ran.status, "name a file" in json.loads(ran.out)["error"]["message"]) == (2, True)


def test_when_a_turn_was_recorded_first_survives_every_journey(
    opm: Opm, exported: Path, ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(ledger_path) as ledger:
        first = {row.event_id: row.recorded_at for row in all_stored(ledger) if row.type == TurnRecorded.type}
    for place in ("second", "third"):
        monkeypatch.setenv("STORAGE_DIR", str(tmp_path / place))
        assert opm("import", str(exported), "--user", "ann").status == 0
        exported = tmp_path / f"{place}.jsonl"
        assert opm("export", "--user", "ann", "-o", str(exported)).status == 0
        with opened(tmp_path / place / "ledger.sqlite3") as ledger:
            turns = [e for e in ledger.reader.events_after(0, 100) if isinstance(e.payload, TurnRecorded)]
        assert len(turns) == 4
        for event in turns:
            assert isinstance(event.payload, TurnRecorded)
            assert event.payload.first_recorded_at == datetime.fromisoformat(first[event.event_id])


def test_fields_that_are_not_read_are_named(opm: Opm, storage: Path, tmp_path: Path) -> None:
    files = {
        "lists.json": [
            {"role": "user", "content": "Hello?", "ts": 1_700_000_000, "name": "Ann", "weight": 1, "refusal": None},
            {"role": "assistant", "content": "Yes."},
        ],
        "mem0.json": {"results": [{"id": "1", "memory": "Likes tea.", "hash": "x", "categories": ["drinks"]}]},
    }
    left_out = {"lists.json": {"'name' fields": 1, "'weight' fields": 1}, "mem0.json": {"'categories' fields": 1}}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        assert json.loads(opm("import", str(tmp_path / name), "-u", "ann", "--json").out)["skipped"] == left_out[name]
    assert "left out: 1 'name' fields" in opm("import", str(tmp_path / "lists.json"), "-u", "bob").out
    old = tmp_path / "old" / "conversations" / "trip.jsonl"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({**LINES[0], "mood": "merry"}))
    assert json.loads(opm("import", str(tmp_path / "old"), "-u", "cy", "--json").out)["skipped"] == {"'mood' fields": 1}


def test_what_was_erased_is_not_taken_along(
    opm: Opm, ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(ledger_path) as ledger:
        erased = ledger.persons.memories_before(STREAM.user_id, 2**62, 100)[0].memory_id
    assert opm("erase", "-u", STREAM.user_id, "--memory", erased, "--yes").status == 0
    assert opm("export", "-u", STREAM.user_id, "-o", str(tmp_path / "rest.jsonl")).status == 0
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "elsewhere"))
    said = json.loads(opm("import", str(tmp_path / "rest.jsonl"), "-u", "ann", "--json").out)
    assert (said["turns"], said["summaries"]) == (3, 3)


def test_importing_twice_changes_nothing_and_a_longer_one_adds_the_rest(
    opm: Opm, storage: Path, tmp_path: Path
) -> None:
    file = tmp_path / "old" / "conversations" / "trip.jsonl"
    file.parent.mkdir(parents=True)
    (tmp_path / "old" / "meta.jsonl").write_text(json.dumps({"conv_id": "trip", "turn_id": 1, "summary": "First."}))
    heads = []
    for lines in (LINES[:2] + LINES[:1], LINES[:2] + LINES[:1], LINES[:2] + LINES[:1] + LINES[2:]):
        file.write_text("\n".join(json.dumps(line) for line in lines))
        dry = json.loads(opm("import", str(tmp_path / "old"), "--user", "ann", "--dry-run", "--json").out)
        done = json.loads(opm("import", str(tmp_path / "old"), "--user", "ann", "--json").out)
        assert {**dry, "dry_run": False} == done
        with opened(storage / "ledger.sqlite3") as ledger:
            heads.append((done["turns"], ledger.reader.head_position()))
            check_chain(all_stored(ledger))
            told = memories(ledger, "ann")
    assert heads == [(3, 3), (0, 3), (1, 4)]
    assert [(row[1], row[3]) for row in told] == [
        (4, "Question 3?"),
        (3, "Question 1?"),
        (2, "Question 2?"),
        (1, "Question 1?"),
    ]
    assert told[0][2].isoformat() == "2023-05-03T12:00:00+00:00"


@pytest.mark.parametrize("content", ["", "[1]", "{", '[{"role": "user"}, {"role": 5}]', "\ud800"])
def test_a_bad_file_imports_nothing(opm: Opm, storage: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    for kind in ("auto", "openai", "chatgpt"):
        ran = opm("import", str(path), "--user", "ann", "--format", kind)
        assert ran.status == 2, ran
        assert "bad.json" in ran.err
        assert "Traceback" not in ran.err
    with opened(storage / "ledger.sqlite3") as ledger:
        assert ledger.reader.head_position() == 0


def test_a_path_that_is_not_there_is_a_bad_argument(opm: Opm, storage: Path) -> None:
    migrate(storage / "ledger.sqlite3")
    for kind in ("auto", "export", "openpersistentmemory"):
        assert opm("import", "no/such", "--user", "ann", "--format", kind).status == 2
