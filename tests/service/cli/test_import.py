"""People bring along what other programs kept, once, and what they forgot here stays forgotten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from domain.events import SummaryRecorded, TurnRecorded
from domain.identity import StreamId
from domain.ledger import Ledger
from tests.ledgers import all_stored, check_chain, new_ledger_file, opened, record, turn
from tests.service.cli.conftest import Opm, Ran
from tests.service.importing.exports import NOON, chatgpt, claude, librechat, mem0, open_webui, written, zipped

CAT, TRIP = ("My cat is called Miso.", "Nice."), ("Where shall we go?", "To Lisbon.")


def imported(opm: Opm, path: Path, *more: str, status: int = 0) -> Any:
    ran = opm("import", str(path), "--user", "ann", "--json", *more)
    assert ran.status == status, ran
    return json.loads(ran.out)


def counted(opm: Opm, path: Path) -> tuple[int, int]:
    """Import, and return how many turns were added and how many were known."""
    done = imported(opm, path)
    return done["turns"], done["known"]


def turns(storage: Path) -> list[TurnRecorded]:
    with opened(storage / "ledger.sqlite3") as ledger:
        check_chain(all_stored(ledger))
        payloads = [event.payload for event in ledger.reader.events_after(0, 1000)]
    return [payload for payload in payloads if isinstance(payload, TurnRecorded)]


def remembered(ledger: Ledger) -> list[str]:
    return [memory.user for memory in ledger.persons.memories_before("ann", 2**62, 100)]


def forget(opm: Opm, storage: Path, question: str) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        memories = ledger.persons.memories_before("ann", 2**62, 100)
    [memory_id] = [memory.memory_id for memory in memories if memory.user == question]
    assert opm("forget", memory_id).status == 0


def test_one_odd_conversation_is_named_and_the_rest_comes_in(opm: Opm, storage: Path, tmp_path: Path) -> None:
    parts = {
        "conversations-000.json": [chatgpt("a", *CAT), {"id": "x", "title": "Broken 一"}],
        "conversations-001.json": [chatgpt("b", *TRIP)],
    }
    ran = opm("import", str(zipped(tmp_path / "export.zip", parts)), "--user", "ann")
    assert ran.status == 1
    assert "chatgpt: 2 turns and 0 summaries imported" in ran.out
    assert "could not be read: 'Broken 一': export.zip/conversations-000.json, conversation 2" in ran.out
    assert ran.err == "opm: 1 of the conversations could not be read, see above; the rest was imported\n"
    assert [turn.user for turn in turns(storage)] == [CAT[0], TRIP[0]]


@pytest.mark.parametrize("make", [chatgpt, claude, open_webui, librechat])
def test_an_import_repeated_adds_nothing(opm: Opm, storage: Path, tmp_path: Path, make: Any) -> None:
    path = written(tmp_path / "export.json", [make("a", *CAT, *TRIP)])
    assert [counted(opm, path), counted(opm, path)] == [(2, 0), (0, 2)]
    assert [turn.source_ids for turn in turns(storage)] == [("a-0", "a-1"), ("a-2", "a-3")]


def test_the_same_message_ids_in_two_conversations_are_two_messages(opm: Opm, storage: Path, tmp_path: Path) -> None:
    same = [chatgpt("a", *CAT), {**chatgpt("a", *TRIP), "id": "b", "conversation_id": "b"}]
    assert imported(opm, written(tmp_path / "export.json", same))["turns"] == 2
    assert len(turns(storage)) == 2


def test_after_a_regenerate_only_what_is_new_is_added(opm: Opm, storage: Path, tmp_path: Path) -> None:
    imported(opm, written(tmp_path / "export.json", [chatgpt("a", *CAT, *TRIP)]))
    again = chatgpt("a", *CAT, TRIP[0], "To Rome.", "When?", "In May.", answer_ids={3: "again"})
    dry = imported(opm, written(tmp_path / "export.json", [again]), "--dry-run")
    done = imported(opm, tmp_path / "export.json")
    assert (done["turns"], done["known"]) == (2, 1)
    assert {**dry, "dry_run": False} == done
    assert [turn.assistant for turn in turns(storage)] == ["Nice.", "To Lisbon.", "To Rome.", "In May."]
    assert done["again"] == 1
    last = imported(opm, tmp_path / "export.json")
    assert (last["turns"], last["again"]) == (0, 0)


def test_an_answer_that_was_asked_again_is_said_to_stay_beside_the_new_one(opm: Opm, tmp_path: Path) -> None:
    first = opm("import", str(written(tmp_path / "export.json", [chatgpt("a", *TRIP)])), "--user", "ann")
    assert "note:" not in first.out
    again = written(tmp_path / "export.json", [chatgpt("a", TRIP[0], "To Rome.", answer_ids={1: "again"})])
    for options, told in ((("--dry-run",), "would be imported"), ((), "were imported")):
        said = " ".join(opm("import", str(again), "--user", "ann", *options).out.split())
        assert f"note: 1 turns {told} with a new answer to a known question; the earlier answers stay" in said


def test_files_beside_the_conversations_are_named(opm: Opm, tmp_path: Path) -> None:
    members = {"conversations.json": [claude("a", *CAT)], "users.json": [], "projects.json": [], "memories.json": []}
    for path in (zipped(tmp_path / "claude.zip", members), tmp_path / "folder"):
        if path.suffix != ".zip":
            for name, content in members.items():
                written(path / name, content)
        done = imported(opm, path, "--dry-run")
        assert done["turns"] == 1
        assert done["notes"] == ["not read, since only conversations are: memories.json, projects.json, users.json"]
    alone = imported(opm, written(tmp_path / "conversations.json", [claude("a", *CAT)]), "--dry-run")
    assert alone["notes"] == []


def test_a_text_that_is_written_otherwise_is_the_same_message(opm: Opm, storage: Path, tmp_path: Path) -> None:
    imported(opm, written(tmp_path / "export.json", [chatgpt("a", *CAT)]))
    changed = chatgpt("a", CAT[0], "Nice.\ue200cite\ue202turn0search0\ue201\n\nReally.")
    assert imported(opm, written(tmp_path / "export.json", [changed]))["turns"] == 0
    assert len(turns(storage)) == 1


def test_what_an_earlier_version_imported_without_ids_is_known_by_its_text(
    opm: Opm, storage: Path, tmp_path: Path
) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        marked = "Nice. \ue200cite\ue202turn0search0\ue201"
        record(ledger, StreamId("ann", "a"), turn(1, CAT[0], marked).model_copy(update={"imported_from": "chatgpt"}))
    exported = [chatgpt("a", CAT[0], marked, *TRIP)]
    assert counted(opm, written(tmp_path / "export.json", exported)) == (1, 1)


@pytest.mark.parametrize("make", [chatgpt, mem0])
def test_what_was_forgotten_stays_forgotten(opm: Opm, storage: Path, tmp_path: Path, make: Any) -> None:
    one = [chatgpt("a", *CAT, *TRIP)] if make is chatgpt else [mem0("m1", CAT[0]), mem0("m2", TRIP[0])]
    path = written(tmp_path / "export.json", one)
    imported(opm, path)
    forget(opm, storage, CAT[0])
    again = imported(opm, path)
    assert (again["turns"], again["known"], again["forgotten"]) == (0, 2, 1)
    changed = [chatgpt("a", CAT[0], "Lovely!", *TRIP, answer_ids={1: "again"})]
    if make is mem0:
        changed = [mem0("m1", "My cat is called Mochi.", updated_at=NOON.isoformat()), mem0("m2", TRIP[0])]
    ran = opm("import", str(written(path, changed)), "--user", "ann")
    assert "0 turns and 0 summaries imported" in ran.out
    assert "forgotten, and stay so: 1 of these" in ran.out
    with opened(storage / "ledger.sqlite3") as ledger:
        assert remembered(ledger) == [TRIP[0]]


def test_a_forgotten_answer_that_was_asked_again_leaves_the_kept_one(opm: Opm, storage: Path, tmp_path: Path) -> None:
    imported(opm, written(tmp_path / "export.json", [chatgpt("a", *TRIP)]))
    imported(opm, written(tmp_path / "export.json", [chatgpt("a", TRIP[0], "To Rome.", answer_ids={1: "again"})]))
    with opened(storage / "ledger.sqlite3") as ledger:
        first = ledger.persons.memories_before("ann", 2**62, 100)[-1]
    assert opm("forget", first.memory_id).status == 0
    again = imported(opm, tmp_path / "export.json")
    assert (again["turns"], again["known"], again["forgotten"]) == (0, 1, 0)


def test_memories_of_mem0_are_found_and_get_no_other_summary(opm: Opm, storage: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "memories.json", {"results": [mem0("m1", "Likes tuna"), mem0("m2", "Lives in Rome")]})
    done = imported(opm, path)
    assert (done["format"], done["turns"], done["summaries"]) == ("mem0", 2, 2)
    with opened(storage / "ledger.sqlite3") as ledger:
        summaries = [e.payload for e in ledger.reader.events_after(0, 100) if isinstance(e.payload, SummaryRecorded)]
    assert [summary.summary for summary in summaries] == ["Likes tuna", "Lives in Rome"]
    assert {(turn.imported_from, turn.assistant) for turn in turns(storage)} == {("mem0", "")}
    moved = [mem0("m1", "Likes tuna"), mem0("m2", "Lives in Vienna", updated_at="2024-01-01T00:00:00Z")]
    assert imported(opm, written(path, moved))["turns"] == 1


def test_conversations_come_in_in_the_order_of_time(opm: Opm, storage: Path, tmp_path: Path) -> None:
    later = claude("b", *TRIP)
    for message in later["chat_messages"]:
        message["created_at"] = "2024-01-01T00:00:00Z"
    imported(opm, written(tmp_path / "export.json", [later, claude("a", *CAT)]))
    assert [turn.user for turn in turns(storage)] == [CAT[0], TRIP[0]]


def test_a_time_to_come_is_not_believed(opm: Opm, storage: Path, tmp_path: Path) -> None:
    exported = claude("a", *CAT)
    exported["chat_messages"][0]["created_at"] = "2098-01-01T00:00:00Z"
    imported(opm, written(tmp_path / "export.json", [exported]))
    with opened(storage / "ledger.sqlite3") as ledger:
        [event] = ledger.reader.events_after(0, 10)
    assert isinstance(event.payload, TurnRecorded)
    assert abs((event.payload.ts - event.recorded_at).total_seconds()) < 60


class TestANewLedger:
    @pytest.fixture
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "wrong"))
        return tmp_path / "wrong"

    def test_it_is_announced_once(self, opm: Opm, elsewhere: Path, tmp_path: Path) -> None:
        path = written(tmp_path / "export.json", [chatgpt("a", *CAT)])
        said = opm("import", str(path), "--user", "ann").err
        assert f"a new, empty ledger was made at {elsewhere / 'ledger.sqlite3'}" in said
        assert "STORAGE_DIR" in said
        assert opm("import", str(path), "--user", "ann").err == ""

    def test_a_dry_run_makes_none_and_counts(self, opm: Opm, elsewhere: Path, tmp_path: Path) -> None:
        path = written(tmp_path / "export.json", [chatgpt("a", *CAT)])
        ran = opm("import", str(path), "--user", "ann", "--dry-run", "--json")
        assert f"there is no ledger at {elsewhere / 'ledger.sqlite3'}" in ran.err
        assert (json.loads(ran.out)["turns"], json.loads(ran.out)["new_ledger"]) == (1, True)
        assert not elsewhere.exists()

    def test_neither_does_a_file_that_cannot_be_read(self, opm: Opm, elsewhere: Path, tmp_path: Path) -> None:
        assert opm("import", str(written(tmp_path / "bad.json", "[{")), "--user", "ann").status == 2
        assert not elsewhere.exists()

    def test_no_other_command_makes_one(self, opm: Opm, elsewhere: Path, tmp_path: Path) -> None:
        commands = (
            ("recall", "-u", "ann", "--no-embed", "my cat"),
            ("explain", "--last", "-u", "ann"),
            ("forget", "x"),
            ("edit", "x", "--summary", "y"),
            ("erase", "-u", "ann", "--dry-run"),
            ("export", "-u", "ann"),
            ("verify",),
            ("backup", str(tmp_path / "copy.sqlite3")),
        )
        for command in commands:
            ran = opm(*command)
            assert ran.status == 1, (command, ran)
            assert "there is no ledger at" in ran.err
        assert not (elsewhere / "ledger.sqlite3").exists()

    def test_a_restore_into_an_empty_folder_says_so(
        self, opm: Opm, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert opm("backup", str(tmp_path / "copy.sqlite3")).status == 0
        monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "wrong"))
        ran = opm("restore", str(tmp_path / "copy.sqlite3"))
        assert ran.status == 0
        assert f"there was no ledger before at {tmp_path / 'wrong' / 'ledger.sqlite3'}" in ran.err


def test_a_dry_run_writes_nothing_to_a_ledger_that_is_there(opm: Opm, storage: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "export.json", [chatgpt("a", *CAT)])
    before = (storage / "ledger.sqlite3").read_bytes()
    assert imported(opm, path, "--dry-run")["turns"] == 1
    assert (storage / "ledger.sqlite3").read_bytes() == before
    assert turns(storage) == []


@pytest.mark.parametrize("encoding", ["ascii", "cp1252:strict"])
class TestConsoles:
    """Each command is a process of its own: what is tested is its standard output."""

    CHINESE = ("我的猫叫什么名字？🐈", "她叫味噌。")

    def ran(self, storage: Path, encoding: str, *arguments: str) -> Ran:
        environment = {**os.environ, "STORAGE_DIR": str(storage), "PYTHONIOENCODING": encoding}
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments], env=environment, capture_output=True, check=False
        )
        name = encoding.partition(":")[0]
        return Ran(done.returncode, done.stdout.decode(name), done.stderr.decode(name))

    def test_every_text_can_be_printed(self, tmp_path: Path, encoding: str) -> None:
        new_ledger_file(tmp_path)
        odd = {"id": "x", "title": "坏的"}
        path = written(tmp_path / "export.json", [chatgpt("旅行", *self.CHINESE), odd])
        ran = self.ran(tmp_path, encoding, "import", str(path), "-u", "安")
        assert ran.status == 1, ran
        assert "conversation 2" in ran.out
        ran = self.ran(tmp_path, encoding, "export", "-u", "安", "--format", "openai")
        assert ran.status == 0, ran
        assert json.loads(ran.out)["messages"][0]["content"] == self.CHINESE[0]
        events = self.ran(tmp_path, encoding, "export", "-u", "安")
        (tmp_path / "again.jsonl").write_text(events.out, encoding="utf-8")
        ran = self.ran(tmp_path, encoding, "import", str(tmp_path / "again.jsonl"), "-u", "安", "--json")
        assert json.loads(ran.out)["known"] == 1, ran
        for command in (("explain", "--last"), ("recall", "--no-embed", "猫叫什么名字")):
            ran = self.ran(tmp_path, encoding, *command, "-u", "安")
            assert ran.status == 0, ran
            assert r"\u" in ran.out
        ran = self.ran(tmp_path, encoding, "forget", "没有")
        assert ran.status == 1
        assert r"\u6ca1\u6709" in ran.err
