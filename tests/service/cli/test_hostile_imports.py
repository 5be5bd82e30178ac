"""No file that anybody can write ends in a traceback, costs the good conversations in it, or harms the ledger."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from domain import chain
from domain.identity import StreamId
from domain.memory import day
from projections.verification.storage import verify_ledger_file
from service.importing import documents
from tests.ledgers import one_of_each, opened, record, record_turn, summary_of
from tests.service.cli.conftest import Opm, Ran
from tests.service.importing.exports import chatgpt, claude, librechat, mem0, open_webui, written, zipped

SAID = ("My cat is called Miso.", "Nice.", "Where shall we go?", "To Lisbon.")
BIG, DEEP = "@5000 digits@", "@500 levels@"
"""Stand for what Python's own encoder does not write."""
ODD: tuple[Any, ...] = (
    *(None, True, 7, -1, 1.5, float("nan"), float("-inf"), -0.0, 10**30, BIG, DEEP, [], {}, [[]], {"x": 1}, [None, 7]),
    *("", " ", "\x00", "a\x00b", "\ud800", "\ufeff", "erased:1", "../../x", "0001-01-01T00:00:00Z", "line\nline"),
)


def as_json(value: Any) -> str:
    text = json.dumps(value)
    return text.replace(f'"{BIG}"', "9" * 5000).replace(f'"{DEEP}"', "[" * 500 + "]" * 500)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every field and item in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield (*at, name)
        yield from places(item, (*at, name))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    copy = deepcopy(value)
    inner = copy
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = new
    return copy


def in_order(ran: Ran) -> None:
    """A command that was not content says so in one line."""
    assert ran.status in {0, 1, 2}, ran
    assert ran.err.count("opm: ") == (ran.status != 0), ran
    assert "Traceback" not in ran.err + ran.out


def sound(storage: Path) -> set[str]:
    """Verify a ledger, read all of it as turns and people do, and return what was asked."""
    path = storage / "ledger.sqlite3"
    assert verify_ledger_file(path, deep=True)[1] == []
    asked = set()
    with opened(path) as ledger:
        ledger.reader.facet_texts(None, 0, 100_000)
        ledger.history.conversations("ann", 1000)
        for memory in ledger.persons.memories_before("ann", 2**62, 100_000):
            assert memory.dated(memory.ts.astimezone(UTC)).startswith(day(memory.ts)[:4])
            asked.add(memory.user)
        for stream in ledger.reader.streams_of("ann"):
            ledger.reader.recent_turns(stream, 50)
    return asked


FORMATS: dict[str, Callable[..., dict[str, Any]]] = {
    "chatgpt": chatgpt,
    "claude": claude,
    "openwebui": open_webui,
    "librechat": librechat,
}


@pytest.mark.parametrize("kind", [*FORMATS, "mem0", "openai"])
def test_any_value_at_any_place_costs_its_own_conversation_at_most(
    opm: Opm, storage: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "openai":
        messages = [{"role": ("user", "assistant")[n % 2], "content": text, "ts": 1.0} for n, text in enumerate(SAID)]
        example: Any = {"conversation_id": "c", "messages": messages}
        good = {"conversation_id": "good", "messages": [{"role": "user", "content": "A good one?"}]}
    elif kind == "mem0":
        example, good = mem0("c", "Ann has a cat."), mem0("good", "A good one?")
    else:
        example, good = FORMATS[kind]("c", *SAID), FORMATS[kind]("good", "A good one?", "Yes.")
    items = [changed(example, at, new) for at in places(example) for new in ODD]
    # What tells whose memory it is must not differ, or the file is refused as a whole.
    items = [item for item in items if all(item.get(key) == example.get(key) for key in ("account", "user_id"))]
    path = tmp_path / "hostile.json"
    path.write_text(as_json([good, *items, *(item for item in ODD if item != {})]))
    ran = opm("import", str(path), "--user", "ann", "--format", kind)
    in_order(ran)
    assert "could not be read, see above; the rest was imported" in ran.err
    assert "A good one?" in sound(storage)


@pytest.mark.parametrize("name", ["meta.jsonl", "c.jsonl"])
def test_the_same_of_the_earlier_layout(opm: Opm, storage: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "old" / "conversations"
    line = {"turn_id": 1, "ts": "2023-05-04T12:00:00Z", "user": "A good one?", "assistant": "Yes.", "conv_id": "good"}
    meta = {"conv_id": "good", "turn_id": 1, "summary": "Good."}
    written(folder / "good.jsonl", [line])
    for number, new in enumerate(ODD):
        of_meta = name == "meta.jsonl"
        lines = [as_json(changed(meta if of_meta else line, at, new)) for at in places(meta if of_meta else line)]
        written(folder.parent / str(number) / name if of_meta else folder / f"{number}.jsonl", [*lines, as_json(new)])
    ran = opm("import", str(folder.parent), "--user", "ann")
    in_order(ran)
    assert "A good one?" in sound(storage)


def forged(line: str, at: tuple[Any, ...], new: Any) -> str:
    """Change a line of an export and give it the hash that fits."""
    whole = changed(json.loads(line), at, new)
    event = whole.get("event")
    try:
        payload = {name: value for name, value in whole.items() if name != "event"}
        event["payload_hash"] = chain.payload_hash(event["salt"], chain.canonical(payload))
    except (TypeError, KeyError, ValueError):
        pass  # there is no hash of this
    return as_json(whole)


def renamed(line: str, number: int) -> str:
    """Put a line into a conversation of its own."""
    whole = json.loads(line)
    whole["event"] |= {"event_id": f"event-{number}", "conversation_id": f"c-{number}", "version": 1}
    return json.dumps(whole)


def exported(opm: Opm, storage: Path, tmp_path: Path) -> list[str]:
    """Return the lines of an export that has a line of every kind that is taken."""
    stream = StreamId("ann", "c")
    with opened(storage / "ledger.sqlite3") as ledger:
        turn = record_turn(ledger, stream, "A good one?")
        record(ledger, stream, summary_of(turn.event_id), causation_id=turn.event_id)
        record(ledger, stream, *one_of_each())
    assert opm("export", "--user", "ann", "-o", str(tmp_path / "ann.jsonl")).status == 0
    return (tmp_path / "ann.jsonl").read_text().split("\n")[:-1]


def test_no_line_of_an_export_whatever_its_hashes_harms_the_ledger(
    opm: Opm, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = exported(opm, storage, tmp_path)
    hostile = []
    for line in lines:
        for at in places(json.loads(line)):
            for new in ODD:
                if at[-1] in {"user_id", "event_id", "conversation_id"}:
                    hostile.append(forged(line, at, new))
                else:
                    hostile.append(forged(renamed(line, len(hostile)), at, new))
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("STORAGE_DIR", str(elsewhere))
    # A user or an id that differs costs the whole file, so those are tried one by one below.
    kept = [line for line in hostile if '"user_id": "ann"' in line]
    path = written(tmp_path / "hostile.jsonl", [renamed(lines[0], 10**6), *kept])
    ran = opm("import", str(path), "--user", "ann")
    in_order(ran)
    assert ran.status == 1
    assert "A good one?" in sound(elsewhere)
    # It can be taken out and in again like any other.
    assert opm("export", "--user", "ann", "-o", str(tmp_path / "again.jsonl")).status == 0
    assert opm("import", str(tmp_path / "again.jsonl"), "--user", "ann").status == 0


@pytest.mark.parametrize("column", ["event_id", "version", "position", "recorded_at", "user_id", "correlation_id"])
def test_a_value_of_the_wrong_type_in_a_line_is_named(
    opm: Opm, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    [line, *_] = exported(opm, storage, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("STORAGE_DIR", str(elsewhere))
    odd: tuple[Any, ...] = (7 if column not in {"version", "position"} else "7", True, 1.5, [], {}, 2**63, "\ud800")
    for new in odd:
        path = written(tmp_path / "hostile.jsonl", [forged(line, ("event", column), new)])
        ran = opm("import", str(path), "--user", "ann", "--format", "export")
        in_order(ran)
        if new != "\ud800" or column == "event_id":
            assert ran.status == 2, (new, ran)
        assert ran.status == 0 or "hostile.jsonl, line 1" in ran.err
        if (elsewhere / "ledger.sqlite3").exists():
            sound(elsewhere)


def symlinked(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.json").symlink_to("/dev/zero")
    (folder / "b.json").symlink_to(folder / "nowhere")
    (folder / "c.json").symlink_to(folder)
    (folder / "conversations.json").symlink_to("/dev/full")
    return folder


def binary(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


GOOD = json.dumps([chatgpt("good", *SAID)]).encode()
ZIPPED = {"conversations.json": GOOD.decode()}


def cut_zip(path: Path) -> Path:
    zipped(path, ZIPPED)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def broken_member(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", GOOD)
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)
    return path


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "empty": binary(b""),
    "blank": binary(b" \n\n"),
    "only a BOM": binary(b"\xef\xbb\xbf"),
    "invalid UTF-8": binary(b'[{"mapping": "\xff\xfe\xfd"}]'),
    "cut UTF-16": binary("[{}]".encode("utf-16")[:-1]),
    "cut UTF-32": binary("[{}]".encode("utf-32")[:-1]),
    "NUL": binary(b"\x00" * 100),
    "NUL in JSON": binary(b'["\x00"]'),
    "100,000 levels": binary(b"[" * 100_000 + b"]" * 100_000),
    "100,000 objects": binary(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "900 levels": binary(b"[" * 900 + b"]" * 900),
    "5,000 digits": binary(b"9" * 5000),
    "5,000 digits in a list": binary(b"[" + b"9" * 5000 + b"]"),
    "a number": binary(b"7"),
    "a text": binary(b'"x"'),
    "NaN": binary(b"NaN"),
    "a huge exponent": binary(b'[{"messages": [{"role": "user", "content": "?", "ts": 1e999}]}]'),
    "half a pair": binary(b'"\\ud800"'),
    "a list of lists": binary(b"[[[[]]]]"),
    "10 MB of one text": binary(b'"' + b"x" * 10_000_000 + b'"'),
    "10 MB of one key": binary(b'{"' + b"x" * 10_000_000 + b'": 1}'),
    "trailing text": binary(GOOD + b"x"),
    "cut JSON": binary(GOOD[:-20]),
    "not a ZIP": binary(b"PK\x03\x04" + b"x" * 100),
    "a cut ZIP": cut_zip,
    "a broken member": broken_member,
    "an empty ZIP": lambda path: zipped(path, {}),
    "a ZIP without JSON": lambda path: zipped(path, {"x.txt": "x"}),
    "a ZIP of bad JSON": lambda path: zipped(path, {"conversations.json": "{"}),
    "a folder of links": symlinked,
}


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".zip"])
@pytest.mark.parametrize("what", HOSTILE)
def test_no_file_ends_in_a_traceback(opm: Opm, storage: Path, tmp_path: Path, what: str, ending: str) -> None:
    path = HOSTILE[what](tmp_path / f"hostile{ending}")
    for kind in ("auto", "openai", "chatgpt", "export", "openpersistentmemory"):
        ran = opm("import", str(path), "--user", "ann", "--format", kind)
        in_order(ran)
        assert ran.status in {1, 2} or kind in {"openai", "openpersistentmemory"}, (kind, ran)
        assert len(ran.err) < 2000
    assert sound(storage) <= {"?"}


def test_a_zip_is_read_up_to_a_bound_and_writes_nothing(
    opm: Opm, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_UNPACKED_BYTES_MAX", 1_000_000)
    parts = {"../../conversations.json": GOOD.decode(), "/../conversations-001.json": "[]"}
    with zipfile.ZipFile(zipped(tmp_path / "bomb.zip", parts), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z/conversations-999.json", "[" + " " * 5_000_000 + "]")
    before = sorted(tmp_path.iterdir())
    ran = opm("import", str(tmp_path / "bomb.zip"), "--user", "ann")
    in_order(ran)
    assert ran.status == 1
    assert "conversations-999.json" in ran.out
    assert "give a ZIP that holds at most 1000000 bytes" in ran.out
    assert sorted(tmp_path.iterdir()) == before
    assert SAID[0] in sound(storage)


def test_a_link_in_a_folder_costs_nothing_but_itself(opm: Opm, storage: Path, tmp_path: Path) -> None:
    folder = symlinked(tmp_path / "hostile")
    (folder / "d.json").write_bytes(GOOD)
    (folder / "e.json").write_bytes(b"{")
    ran = opm("import", str(folder), "--user", "ann")
    in_order(ran)
    assert ran.status == 1
    assert "e.json" in ran.out
    assert SAID[0] in sound(storage)
