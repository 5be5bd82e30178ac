"""A file gives back the events written to it, and drops a line that a crash left incomplete."""

from __future__ import annotations

import json
from dataclasses import asdict
from dataclasses import replace as replace_fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import chain
from domain.events import CATALOGUE
from domain.ledger import Ledger
from domain.reader import StoredEvent
from projections.mirror.event_file import MirrorLineCorrupt, Tail, append, event_of, line_of, read_tail, replace
from tests.ledgers import STREAM, all_stored, check_chain, one_of_each, record, record_turn

KEYS = st.text().filter(lambda key: key != "event")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def stored(payload: object, version: int = 1) -> StoredEvent:
    text = chain.canonical(payload)
    return StoredEvent(
        position=version,
        event_id=f"e{version}",
        user_id="ann",
        conversation_id="trip",
        version=version,
        type="TurnRecorded",
        schema_version=1,
        recorded_at="2026-01-02T03:04:05.678901Z",
        correlation_id=None,
        causation_id=None,
        payload=text,
        salt="5a17",
        identity_hash=chain.identity_hash("5a17", "ann", "trip"),
        payload_hash=chain.payload_hash("5a17", text),
        prev_hash=chain.GENESIS,
        hash=f"sha256:{version}",
    )


def blanked() -> StoredEvent:
    """Return an event as an erasure leaves it: only hashes remain."""
    return replace_fields(
        stored({"text": "gone"}), user_id="erased:1", conversation_id="erased:2", payload="{}", salt=""
    )


class TestLines:
    def test_a_ledger_can_be_rebuilt_from_its_lines(self, ledger: Ledger) -> None:
        record(ledger, STREAM, *one_of_each())
        rows = all_stored(ledger)
        assert {row.type for row in rows} == set(CATALOGUE)
        again = [event_of(line_of(row)) for row in rows]
        assert again == rows
        check_chain(again)

    def test_a_turns_line_reads_without_its_envelope(self, ledger: Ledger) -> None:
        record_turn(ledger, STREAM, "用户?", "Yes.")
        row = all_stored(ledger)[0]
        line = line_of(row)
        fields = json.loads(line)
        assert (fields["turn_id"], fields["user"], fields["assistant"]) == (1, "用户?", "Yes.")
        assert fields["ts"] == json.loads(row.payload)["ts"]
        assert fields["event"] == {key: value for key, value in asdict(row).items() if key != "payload"}
        assert "用户?" in line
        assert "\n" not in line

    def test_an_event_without_a_time_of_its_own_shows_when_it_was_recorded(self) -> None:
        row = stored({"summary": "s"})
        assert json.loads(line_of(row))["ts"] == row.recorded_at
        assert event_of(line_of(row)) == row

    def test_that_time_too_cannot_be_changed(self) -> None:
        fields = json.loads(line_of(stored({"summary": "s"})))
        with pytest.raises(MirrorLineCorrupt, match="was changed in the mirror"):
            event_of(json.dumps({**fields, "ts": "2026-01-02T03:04:06Z"}))
        del fields["ts"]
        with pytest.raises(MirrorLineCorrupt, match="not a line of the mirror"):
            event_of(json.dumps(fields))

    @settings(deadline=None, max_examples=100)
    @given(st.dictionaries(KEYS | st.just("ts"), JSON, max_size=5))
    def test_any_payload_comes_back(self, payload: dict[str, object]) -> None:
        line = line_of(stored(payload))
        assert event_of(line) == stored(payload)
        assert "\n" not in line

    def test_a_blanked_event_comes_back_blank(self) -> None:
        row = blanked()
        assert event_of(line_of(row)) == row

    @pytest.mark.parametrize(
        ("edit", "value"),
        [
            ("salt", "5a17"),
            ("user_id", "ann"),
            ("conversation_id", "trip"),
            ("ts", "2026-01-02T03:04:06Z"),
            ("text", "something"),
        ],
    )
    def test_only_what_is_blank_throughout_passes_as_blanked(self, edit: str, value: str) -> None:
        fields = json.loads(line_of(blanked()))
        (fields["event"] if edit in fields["event"] else fields)[edit] = value
        with pytest.raises(MirrorLineCorrupt, match="was changed in the mirror"):
            event_of(json.dumps(fields))

    def test_a_line_with_columns_too_few_or_too_many_is_none(self) -> None:
        for edit in ({"more": 1}, {"hash": None}):
            fields = json.loads(line_of(stored({"a": 1})))
            fields["event"] = {key: value for key, value in (fields["event"] | edit).items() if value is not None}
            with pytest.raises(MirrorLineCorrupt, match="not a line of the mirror"):
                event_of(json.dumps(fields))

    def test_no_event_type_uses_the_envelopes_name(self) -> None:
        assert [kind for kind, model in CATALOGUE.items() if "event" in model.model_fields] == []

    @pytest.mark.parametrize("line", ["", "{", "[]", "1", "{}", '{"event": 1}', '{"event": {}}'])
    def test_what_is_no_line_is_said(self, line: str) -> None:
        with pytest.raises(MirrorLineCorrupt, match="not a line"):
            event_of(line)

    def test_a_changed_line_is_said_without_its_text(self) -> None:
        line = line_of(stored({"user": "in Lisbon"})).replace("Lisbon", "London")
        with pytest.raises(MirrorLineCorrupt, match="'e1' was changed") as raised:
            event_of(line)
        assert "London" not in str(raised.value)


class TestFiles:
    EVENTS = tuple(stored({"text": f"第{version} " + "x" * 40 * version}, version) for version in range(1, 5))

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "a" / "b" / "c.jsonl"

    def test_nothing_has_no_tail(self, path: Path) -> None:
        assert read_tail(path) is None
        append(path, [])
        assert read_tail(path) is None

    def test_every_cut_leaves_the_lines_in_front_of_it(self, path: Path) -> None:
        append(path, self.EVENTS)
        whole = path.read_bytes()
        ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
        near_an_end = {end + near for end in ends for near in (-2, -1, 0, 1)} & set(range(len(whole) + 1))
        for size in sorted(near_an_end | set(range(0, len(whole), 53))):
            path.write_bytes(whole[:size])
            complete = sum(end <= size for end in ends)
            expected = Tail(complete, f"sha256:{complete}") if complete else None
            assert read_tail(path) == expected
            assert path.read_bytes() == whole[: ends[complete - 1] if complete else 0]
            append(path, self.EVENTS[complete:])
            assert path.read_bytes() == whole

    def test_a_line_longer_than_a_block_is_one_line(self, path: Path) -> None:
        events = [stored({"text": "x" * size}, version) for version, size in enumerate((8_000, 100_000, 9_000), 1)]
        append(path, events)
        assert read_tail(path) == Tail(3, "sha256:3")
        path.write_bytes(path.read_bytes()[:-1])
        assert read_tail(path) == Tail(2, "sha256:2")

    @pytest.mark.parametrize("tail", [b"\n", b"{}\n", b"[]\n", b"\x00" * 30 + b"\n", b"\xff\n", b'{"event":{}}\n'])
    def test_a_last_line_that_is_none_of_ours_is_said(self, path: Path, tail: bytes) -> None:
        append(path, self.EVENTS)
        with path.open("ab") as file:
            file.write(tail)
        with pytest.raises(MirrorLineCorrupt, match=r"c\.jsonl"):
            read_tail(path)

    def test_replacing_leaves_one_file(self, path: Path) -> None:
        append(path, self.EVENTS)
        path.with_name("c.jsonl.new").write_bytes(b"left by a crash, and longer than what comes" * 100)
        replace(path, self.EVENTS[:2])
        assert [event_of(line) for line in path.read_text("utf-8").split("\n")[:-1]] == list(self.EVENTS[:2])
        assert list(path.parent.iterdir()) == [path]
