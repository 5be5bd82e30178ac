"""Whatever is done to the ledger's rows behind the triggers' back is named, at the event where it was done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from domain import chain
from domain.errors import InvalidInput
from domain.events import BLANK, UserErased
from domain.identity import StreamId, user_stream
from domain.ledger import Ledger
from domain.ledger_reader import LedgerReader
from domain.reader import StoredEvent
from domain.sqlite import DRIVER, open_engine
from domain.verification import ChainCheck, Finding, LedgerHead, parse_head, verified_events
from tests.ledgers import STREAM, all_stored, new_ledger_file, one_of_each, opened, record, record_turn

STREAMS = (STREAM, StreamId("ann", "work"), StreamId("用户", "对话"), user_stream("ann"))
COLUMNS = [field.name for field in fields(StoredEvent)]


@cache
def _ledger_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = new_ledger_file(Path(folder))
        with opened(path) as ledger:
            for stream in STREAMS:
                record(ledger, stream, *[payload for payload in one_of_each() if not isinstance(payload, UserErased)])
        with closing(DRIVER.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        return path.read_bytes()


def rows_of(path: Path) -> list[StoredEvent]:
    engine = open_engine(path, writer=False)
    try:
        return LedgerReader(engine).stored_after(-(2**63), 1_000_000)
    finally:
        engine.dispose()


def found_in(path: Path, since: LedgerHead | None = None) -> list[Finding]:
    engine = open_engine(path, writer=False)
    try:
        found = list(verified_events(LedgerReader(engine), since))
    finally:
        engine.dispose()
    assert isinstance(found[-1], LedgerHead)
    return [finding for finding in found if isinstance(finding, Finding)]


def unguarded(path: Path) -> Any:
    """Open a ledger as somebody who means it harm: nothing that guards the rows, or looks into them, is left."""
    connection = DRIVER.connect(path, isolation_level=None)
    query = "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'index') AND sql IS NOT NULL"
    for kind, name in connection.execute(query).fetchall():
        connection.execute(f"DROP {kind} {name}")
    return connection


def write_all(connection: Any, rows: Sequence[StoredEvent]) -> None:
    connection.execute("DELETE FROM events")
    marks = ", ".join("?" * len(COLUMNS))
    values = [tuple(asdict(row).values()) for row in rows]
    connection.executemany(f"INSERT INTO events VALUES ({marks})", values)  # noqa: S608 - question marks alone


def rehashed(rows: Sequence[StoredEvent]) -> list[StoredEvent]:
    """Give rows the hashes that a forger can compute: those of what stands there now."""
    prev, made = chain.GENESIS, []
    for row in rows:
        identity = chain.identity_hash(row.salt, row.user_id, row.conversation_id)
        row = replace(
            row, prev_hash=prev, identity_hash=identity, payload_hash=chain.payload_hash(row.salt, row.payload)
        )
        prev = chain.event_hash(
            prev_hash=prev,
            position=row.position,
            event_id=row.event_id,
            version=row.version,
            event_type=row.type,
            schema_version=row.schema_version,
            recorded_at=row.recorded_at,
            correlation_id=row.correlation_id,
            causation_id=row.causation_id,
            identity_hash=row.identity_hash,
            payload_hash=row.payload_hash,
        )
        made.append(replace(row, hash=prev))
    return made


ODD = st.one_of(
    st.text(max_size=20), st.integers(-(2**62), 2**62), st.binary(max_size=8), st.none(), st.just(BLANK), st.just("")
)


def change_a_column(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    place = data.draw(st.integers(0, len(rows) - 1), "place")
    column = data.draw(st.sampled_from([name for name in COLUMNS if name != "position"]), "column")
    old = getattr(rows[place], column)
    new = data.draw(ODD.filter(lambda value: value != old and str(value) != str(old)), "new")
    return [*rows[:place], replace(rows[place], **{column: new}), *rows[place + 1 :]], place


def change_a_character(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    place = data.draw(st.integers(0, len(rows) - 1), "place")
    column = data.draw(
        st.sampled_from(["payload", "recorded_at", "event_id", "hash", "payload_hash", "salt"]), "column"
    )
    text = getattr(rows[place], column)
    at = data.draw(st.integers(0, len(text) - 1), "at")
    new = data.draw(st.characters(codec="utf-8", exclude_characters=text[at] + "\x00"), "character")
    return [
        *rows[:place],
        replace(rows[place], **{column: text[:at] + new + text[at + 1 :]}),
        *rows[place + 1 :],
    ], place


def remove_some(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    first = data.draw(st.integers(0, len(rows) - 2), "first")
    last = data.draw(st.integers(first, len(rows) - 2), "last")  # a cut tail is another test's
    return [*rows[:first], *rows[last + 1 :]], first


def close_the_gap(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    """Remove some, and number what follows as if nothing had been there."""
    left, first = remove_some(rows, data)
    return [replace(row, position=place) for place, row in enumerate(left, start=1)], first


def insert_a_forgery(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    place = data.draw(st.integers(0, len(rows) - 1), "place")
    forged = replace(rows[place], event_id="forged", version=rows[place].version + data.draw(st.integers(0, 1)))
    moved = [replace(row, position=row.position + 1, version=row.version + 1000) for row in rows[place:]]
    return [*rows[:place], forged, *moved], place


def insert_below_the_first(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    forged = replace(rows[0], position=data.draw(st.integers(-5, 0)), event_id="forged", conversation_id="forged")
    return [forged, *rows], forged.position - 1


def two_of(rows: list[StoredEvent], data: st.DataObject) -> list[int]:
    places = st.lists(st.integers(0, len(rows) - 1), min_size=2, max_size=2, unique=True)
    return sorted(data.draw(places, "places"))


def swap_two(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    one, other = two_of(rows, data)
    swapped = list(rows)
    swapped[one] = replace(rows[other], position=rows[one].position)
    swapped[other] = replace(rows[one], position=rows[other].position)
    return swapped, one


def swap_two_payloads(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    one, other = two_of(rows, data)
    with_it = data.draw(
        st.sampled_from([("payload",), ("payload", "salt", "payload_hash"), ("payload", "salt", "type")])
    )
    swapped = list(rows)
    swapped[one] = replace(rows[one], **{name: getattr(rows[other], name) for name in with_it})
    swapped[other] = replace(rows[other], **{name: getattr(rows[one], name) for name in with_it})
    return swapped, one


def rehash_one(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    """Change an event and give it a hash of its own, as if nobody looked at the next one's."""
    changed, place = change_a_payload(rows, data, last=len(rows) - 2)
    forged = rehashed(changed)[place]
    return [*rows[:place], forged, *rows[place + 1 :]], place


def blank_without_an_erasure(rows: list[StoredEvent], data: st.DataObject) -> tuple[list[StoredEvent], int]:
    """Blank a whole conversation in just the form an erasure leaves."""
    stream = data.draw(st.sampled_from(STREAMS[:3]), "stream")
    blanked = [
        replace(row, user_id="erased:1", conversation_id="erased:2", payload=BLANK, salt="")
        if (row.user_id, row.conversation_id) == (stream.user_id, stream.conversation_id)
        else row
        for row in rows
    ]
    return blanked, next(place for place, row in enumerate(blanked) if row.salt == "")


def change_a_payload(
    rows: list[StoredEvent], data: st.DataObject, last: int | None = None
) -> tuple[list[StoredEvent], int]:
    place = data.draw(st.integers(0, len(rows) - 1 if last is None else last), "place")
    other = data.draw(st.sampled_from([row.payload for row in rows if row.payload != rows[place].payload]))
    return [*rows[:place], replace(rows[place], payload=other), *rows[place + 1 :]], place


TAMPERINGS = (
    change_a_column,
    change_a_character,
    remove_some,
    close_the_gap,
    insert_a_forgery,
    insert_below_the_first,
    swap_two,
    swap_two_payloads,
    rehash_one,
    blank_without_an_erasure,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "ledger.sqlite3"
    target.write_bytes(_ledger_bytes())
    return target


class TestTampering:
    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_tampering_with_rows_is_named(self, data: st.DataObject) -> None:
        """The rule itself, over rows as the table would give them back."""
        tamper = data.draw(st.sampled_from(TAMPERINGS), "tampering")
        rows, place = tamper(_rows(), data)
        assume(rows != _rows())  # two payloads may be the same to begin with
        check = ChainCheck()
        found = [finding for row in rows for finding in check.check(row)] + list(check.finish())
        assert found, tamper.__name__
        # Rows after the tampering carry on from it, so nothing before it may be blamed.
        assert min(finding.position for finding in found if finding.position is not None) >= place + 1

    @pytest.mark.parametrize("tamper", TAMPERINGS)
    def test_tampering_with_a_file_is_named(self, tmp_path_factory: pytest.TempPathFactory, tamper: Any) -> None:
        folder = tmp_path_factory.mktemp("tampered")

        @settings(deadline=None, max_examples=3)
        @given(st.data())
        def in_a_file(data: st.DataObject) -> None:
            target = folder / "ledger.sqlite3"
            target.write_bytes(_ledger_bytes())
            rows, _ = tamper(_rows(), data)
            assume(rows != _rows())
            with closing(unguarded(target)) as connection:
                try:
                    write_all(connection, rows)
                except DRIVER.IntegrityError:
                    return  # the table's own keys would not have it
            assert found_in(target)

        in_a_file()

    def test_an_untouched_ledger_has_no_findings(self, path: Path) -> None:
        assert found_in(path) == []

    def test_an_empty_ledger_has_no_findings(self, ledger_path: Path) -> None:
        assert found_in(ledger_path) == []

    def test_bytes_that_are_not_text_are_named(self, path: Path) -> None:
        with closing(unguarded(path)) as connection:
            connection.execute("UPDATE events SET payload = CAST(x'ff22' AS TEXT) WHERE position = 7")
            connection.execute("UPDATE events SET payload = CAST(x'ff23' AS TEXT) WHERE position = 9")
        assert [(finding.position, finding.what) for finding in found_in(path)] == [
            (7, "its payload was changed"),
            (9, "its payload was changed"),
        ]

    def test_an_event_of_a_type_that_nobody_knows_is_named(self, path: Path) -> None:
        rows = rows_of(path)
        rows[4] = replace(rows[4], type="TurnDreamt")
        with closing(unguarded(path)) as connection:
            write_all(connection, rehashed(rows))
        assert [(finding.position, "not in the catalogue" in finding.what) for finding in found_in(path)] == [(5, True)]

    @pytest.mark.parametrize("payload", ["[]", "no json", "{}", '{"candidates": 1}'])
    def test_a_payload_of_another_shape_is_named(self, path: Path, payload: str) -> None:
        rows = rows_of(path)
        place = next(place for place, row in enumerate(rows) if row.type == "RetrievalRecorded")
        for schema_version in (1, 2):
            rows[place] = replace(rows[place], payload=payload, schema_version=schema_version)
            found = list(_checked(rehashed(rows)))
            assert [finding.position for finding in found] == [place + 1]


@cache
def _stored() -> tuple[StoredEvent, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        path.write_bytes(_ledger_bytes())
        return tuple(rows_of(path))


def _rows() -> list[StoredEvent]:
    return list(_stored())


def _checked(rows: Sequence[StoredEvent]) -> Iterator[Finding]:
    check = ChainCheck()
    for row in rows:
        yield from check.check(row)
    yield from check.finish()


class TestSince:
    @settings(deadline=None, max_examples=10)
    @given(st.data())
    def test_only_an_older_head_shows_a_rehashed_ledger(self, data: st.DataObject) -> None:
        rows, place = change_a_payload(_rows(), data)
        donor = next(row for row in _stored() if row.payload == rows[place].payload)
        rows[place] = replace(rows[place], type=donor.type, schema_version=donor.schema_version)
        forged = rehashed(rows)
        noted = data.draw(st.sampled_from(_stored()), "noted")
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "ledger.sqlite3"
            target.write_bytes(_ledger_bytes())
            with closing(unguarded(target)) as connection:
                write_all(connection, forged)
            assert found_in(target) == []
            found = found_in(target, LedgerHead(noted.position, noted.hash))
        assert bool(found) == (noted.position > place)

    def test_a_cut_tail_is_noticed(self, path: Path) -> None:
        rows = rows_of(path)
        head = LedgerHead(rows[-1].position, rows[-1].hash)
        assert found_in(path, head) == []
        with closing(unguarded(path)) as connection:
            connection.execute("DELETE FROM events WHERE position > ?", (len(rows) - 3,))
        assert found_in(path) == []
        assert [(finding.position, "tail was cut off" in finding.what) for finding in found_in(path, head)] == [
            (len(rows) - 3, True)
        ]

    def test_all_heads_of_the_past_are_contained(self, path: Path) -> None:
        for row in rows_of(path):
            assert found_in(path, LedgerHead(row.position, row.hash)) == []

    def test_the_head_of_an_empty_ledger_is_contained_in_every_ledger(self, path: Path) -> None:
        assert found_in(path, LedgerHead(0, chain.GENESIS)) == []

    def test_a_head_is_read_as_it_is_printed(self) -> None:
        head = LedgerHead(17, chain.digest("x"))
        assert parse_head(str(head)) == head

    @pytest.mark.parametrize(
        "text", ["", "17", "17:", "x:sha256:" + "0" * 64, "17:md5:" + "0" * 64, "1:sha256:00", "-1:"]
    )
    def test_a_malformed_head_is_refused_by_name(self, text: str) -> None:
        with pytest.raises(InvalidInput, match=r"^--since = .*POSITION:HASH"):
            parse_head(text)


class TestErasure:
    @pytest.fixture
    def erased(self, path: Path) -> Path:
        """A ledger in which ``ann`` was erased, through the triggers."""
        with opened(path) as ledger:
            record(ledger, user_stream("ann"), UserErased(events=24, conversations=2))
        with closing(DRIVER.connect(path, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE events SET payload = '{}', salt = '', user_id = 'erased:1', conversation_id = "
                "CASE conversation_id WHEN '' THEN '' ELSE 'erased:' || hex(conversation_id) END WHERE user_id = 'ann'"
            )
        return path

    def test_blanked_events_are_no_finding(self, erased: Path) -> None:
        assert sum(row.salt == "" for row in rows_of(erased)) > 0
        assert found_in(erased) == []

    @pytest.mark.parametrize(
        "change",
        [
            "payload = '{\"a\":1}'",
            "salt = 'ab'",
            "user_id = 'ann'",
            "conversation_id = 'trip'",
            "type = 'TurnFailed'",
            "recorded_at = ''",
            "identity_hash = 'sha256:0'",
            "payload_hash = 'sha256:0'",
        ],
    )
    def test_a_change_of_a_blanked_event_is_named(self, erased: Path, change: str) -> None:
        with closing(unguarded(erased)) as connection:
            connection.execute(f"UPDATE events SET {change} WHERE position = 1")  # noqa: S608
        assert found_in(erased)[0].position == 1

    def test_an_unfinished_erasure_is_reported_as_such(self, path: Path) -> None:
        """Interrupted within a conversation: its first events are blanked, and the rest has lost its beginning."""
        with opened(path) as ledger:
            begun = record(ledger, user_stream("ann"), UserErased(events=24, conversations=2))[0]
        with closing(DRIVER.connect(path, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE events SET payload = '{}', salt = '', user_id = 'erased:' || ?, conversation_id = 'erased:1' "
                "WHERE user_id = 'ann' AND conversation_id = 'trip' AND version < 5",
                (begun.event_id,),
            )
        [found] = found_in(path)
        assert (found.position, "is not finished" in found.what) == (begun.position, True)

    def test_a_conversation_without_its_beginning_is_named(self) -> None:
        rows = [row for row in _rows() if row.conversation_id != "work" or row.version > 3]
        moved = [replace(row, position=place) for place, row in enumerate(rows, start=1)]
        [found] = _checked(rehashed(moved))
        assert (moved[(found.position or 0) - 1].version, "version 4 here where 1 follows" in found.what) == (4, True)

    def test_the_erasure_event_may_not_be_missing(self, erased: Path) -> None:
        with closing(unguarded(erased)) as connection:
            connection.execute("DELETE FROM events WHERE type = 'UserErased'")
        assert "no UserErased event of its user says why" in found_in(erased)[-1].what


def test_a_ledger_that_grows_meanwhile_is_checked_to_the_head_it_had(ledger: Ledger) -> None:
    for _ in range(3):
        record_turn(ledger, STREAM)
    found = verified_events(ledger.reader)
    record_turn(ledger, STREAM)
    assert list(found) == [LedgerHead(4, all_stored(ledger)[-1].hash)]
