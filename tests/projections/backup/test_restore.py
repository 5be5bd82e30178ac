"""A restore gives the same ledger, from a backup or from the mirror, and keeps what was there before."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from domain import chain
from domain.api_keys import NewKey, keys_in, make_key, revoke_key
from domain.clock import Clock
from domain.errors import InvalidInput, LedgerLocked, LedgerSchemaError, OpmError
from domain.events import UserErased
from domain.identity import SYSTEM_STREAM, StreamId, user_stream
from domain.ledger import Ledger
from domain.reader import StoredEvent
from domain.settings import StorageSettings
from domain.sqlite import DRIVER, open_engine
from domain.verification import LedgerHead, hash_of
from migrations.runner import migrate
from projections.backup.known_backups import known_backups
from projections.backup.ledger_copy import back_up
from projections.backup.restore import RestoreRefused, restore_backup, restore_from_mirror
from projections.dense.projection import DenseProjection
from projections.erasure import erase_user
from projections.mirror.event_file import line_of
from projections.mirror.ledger_from_mirror import MirrorIncomplete
from projections.mirror.mirror import Mirror, mirror_path
from projections.verification.storage import head_of, verify_ledger_file, verify_storage
from tests.ledgers import ROOT, STREAM, all_stored, one_of_each, opened, record, record_turn
from tests.projections.world import FACTS, remember, settings_for
from tests.projections.world import opened as world_opened
from tests.upstream import ScriptedUpstream

STREAMS = (STREAM, StreamId("ann", "a/b"), StreamId("用户", "对话"), StreamId("bob", "c"), SYSTEM_STREAM)
PAYLOADS = [payload for payload in one_of_each() if not isinstance(payload, UserErased)]
NOW = Clock(now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
def settings(storage_dir: Path) -> StorageSettings:
    return StorageSettings(storage_dir=storage_dir)


@pytest.fixture
async def kept(settings: StorageSettings) -> StorageSettings:
    """The storage of a stopped service: events of every kind, an erased user, a mirror."""
    with opened(settings.ledger_path) as ledger:
        for _ in range(2):
            for stream in STREAMS:
                record(ledger, stream, *PAYLOADS)
        record(ledger, user_stream("bob"), UserErased(events=20, conversations=1))
        with closing(DRIVER.connect(ledger.path, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE events SET payload = '{}', salt = '', user_id = 'erased:1', "
                "conversation_id = CASE conversation_id WHEN '' THEN '' ELSE 'erased:2' END WHERE user_id = 'bob'"
            )
        await mirror(ledger, settings)
    return settings


async def mirror(ledger: Ledger, settings: StorageSettings) -> None:
    keeper = Mirror(ledger.reader, settings.storage_dir)
    while await keeper.advance():
        pass


def rows_of(path: Path) -> list[StoredEvent]:
    engine = open_engine(path, writer=False)
    try:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT * FROM events ORDER BY position").all()
            return [StoredEvent(*tuple(row)) for row in rows]
    finally:
        engine.dispose()


def only_ledger_of(folder: Path) -> Path:
    return folder / "ledger.sqlite3"


class TestFromABackup:
    async def test_the_ledger_is_the_backups_and_the_projections_follow(
        self, kept: StorageSettings, tmp_path: Path
    ) -> None:
        back_up(kept, tmp_path / "copy.sqlite3")
        then = rows_of(kept.ledger_path)
        with opened(kept.ledger_path) as ledger:
            record_turn(ledger, STREAM)
            record_turn(ledger, StreamId("later", "later"))
            await mirror(ledger, kept)
        now = rows_of(kept.ledger_path)
        restored = restore_backup(kept, tmp_path / "copy.sqlite3", NOW)
        assert rows_of(kept.ledger_path) == then
        assert restored.head == LedgerHead(then[-1].position, then[-1].hash)
        with opened(kept.ledger_path) as ledger:
            await mirror(ledger, kept)
        # A conversation that is no longer in the ledger has no file either.
        assert verify_storage(kept).findings == ()
        with opened(kept.ledger_path) as ledger:
            assert record_turn(ledger, STREAM).position == len(then) + 1
        assert restored.put_aside == kept.storage_dir / "before-restore-20260102T030405.000000Z"
        aside = StorageSettings(storage_dir=restored.put_aside)
        assert rows_of(aside.ledger_path) == now
        assert verify_storage(aside).findings == ()

    def test_an_erasure_can_learn_of_what_was_put_aside(self, kept: StorageSettings, tmp_path: Path) -> None:
        made = back_up(kept, tmp_path / "copy.sqlite3")
        aside = restore_backup(kept, tmp_path / "copy.sqlite3", NOW).put_aside
        assert [known.path for known in known_backups(kept.storage_dir)] == [made.path, str(aside)]
        assert known_backups(kept.storage_dir)[1].hash == made.hash

    def test_who_was_erased_after_the_copy_is_counted(self, kept: StorageSettings, tmp_path: Path) -> None:
        copy = tmp_path / "copy.sqlite3"
        back_up(kept, copy)
        assert restore_backup(kept, copy).erasures_undone == 0
        with opened(kept.ledger_path) as ledger:
            erase_user(ledger, kept.storage_dir, "ann")
        after = tmp_path / "after.sqlite3"
        back_up(kept, after)
        assert restore_backup(kept, after).erasures_undone == 0
        assert restore_backup(kept, copy).erasures_undone == 1

    def test_into_an_empty_place(self, kept: StorageSettings, tmp_path: Path) -> None:
        back_up(kept, tmp_path / "copy.sqlite3")
        elsewhere = StorageSettings(storage_dir=tmp_path / "new" / "storage")
        restored = restore_backup(elsewhere, tmp_path / "copy.sqlite3")
        assert restored.put_aside is None
        assert rows_of(elsewhere.ledger_path) == rows_of(kept.ledger_path)
        assert sorted(path.name for path in elsewhere.storage_dir.iterdir()) == [
            "backups.json",
            "backups.lock",
            "ledger.lock",
            "ledger.sqlite3",
        ]
        # Whoever is erased here is in the file that was read, too.
        [source] = known_backups(elsewhere.storage_dir)
        assert (source.path, source.hash) == (str(tmp_path / "copy.sqlite3"), restored.head.hash)

    @pytest.mark.parametrize("damage", [b"", b"nothing that SQLite knows" * 1000])
    def test_over_a_ledger_that_is_broken(self, kept: StorageSettings, tmp_path: Path, damage: bytes) -> None:
        back_up(kept, tmp_path / "copy.sqlite3")
        rows = rows_of(kept.ledger_path)
        kept.ledger_path.write_bytes(damage)
        restored = restore_backup(kept, tmp_path / "copy.sqlite3")
        assert rows_of(kept.ledger_path) == rows
        assert restored.put_aside is not None
        assert only_ledger_of(restored.put_aside).read_bytes() == damage

    def test_a_copy_made_by_hand_with_its_newest_events_beside_it(self, kept: StorageSettings, tmp_path: Path) -> None:
        with opened(kept.ledger_path) as ledger:
            record_turn(ledger, STREAM)
            for part in ("", "-wal"):
                shutil.copy(f"{kept.ledger_path}{part}", tmp_path / f"by-hand.sqlite3{part}")
            rows = all_stored(ledger)
        restore_backup(kept, tmp_path / "by-hand.sqlite3")
        assert rows_of(kept.ledger_path) == rows

    async def test_new_memories_are_embedded_again(
        self, storage_dir: Path, upstream: ScriptedUpstream, tmp_path: Path
    ) -> None:
        settings = settings_for(storage_dir, upstream)

        async def follow(said: list[str]) -> list[tuple[int, float]]:
            async with world_opened(settings) as world:
                await world.index.space_of("ann")
                remember(world.ledger, "ann", said)
                follower = DenseProjection(world.ledger, world.index, world.cache)
                while await follower.advance():
                    pass
                # By the follower, not by the search, which would embed a few texts along with the question.
                upstream.forget_calls()
                found = await world.found("ann", FACTS[0], 3)
                assert [len(call.body["input"]) for call in upstream.calls_of("embed")] == [1]
                return found

        await follow(list(FACTS[:2]))
        back_up(settings, tmp_path / "copy.sqlite3")
        await follow([f"Something else, number {number}." for number in range(20)])
        restore_backup(settings, tmp_path / "copy.sqlite3")
        found = await follow(list(FACTS[2:6]))
        assert found[0][1] > 0.5
        fresh = StorageSettings(storage_dir=tmp_path / "fresh")
        restore_backup(fresh, settings.ledger_path)
        async with world_opened(settings_for(fresh.storage_dir, upstream)) as world:
            await world.index.maintain("ann")
            assert await world.found("ann", FACTS[0], 3) == found


class TestRefusals:
    def unchanged(self, settings: StorageSettings, backup: Path, kind: type[Exception], match: str) -> None:
        before = rows_of(settings.ledger_path)
        files = sorted(path for path in settings.storage_dir.rglob("*") if path.suffix == ".jsonl")
        with pytest.raises(kind, match=match):
            restore_backup(settings, backup)
        assert rows_of(settings.ledger_path) == before
        assert sorted(path for path in settings.storage_dir.rglob("*") if path.suffix == ".jsonl") == files
        assert [path for path in settings.storage_dir.iterdir() if "restor" in path.name] == []

    def test_while_a_service_has_it_open(self, kept: StorageSettings, tmp_path: Path) -> None:
        back_up(kept, tmp_path / "copy.sqlite3")
        with opened(kept.ledger_path):
            self.unchanged(kept, tmp_path / "copy.sqlite3", LedgerLocked, "in use by a service or another command")

    def test_while_somebody_without_the_lock_has_it_open(self, kept: StorageSettings, tmp_path: Path) -> None:
        back_up(kept, tmp_path / "copy.sqlite3")
        with closing(DRIVER.connect(kept.ledger_path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("SELECT * FROM events").fetchone()
            self.unchanged(kept, tmp_path / "copy.sqlite3", LedgerLocked, "is open in another program")

    @pytest.mark.parametrize(
        ("statement", "kind", "match"),
        [
            ("UPDATE alembic_version SET version_num = '9999'", LedgerSchemaError, r"copy\.sqlite3 has schema '9999'"),
            ("DROP TRIGGER events_no_delete", RestoreRefused, r"copy\.sqlite3 is not a ledger as it was written"),
            (
                "DROP TRIGGER events_no_delete; DELETE FROM events WHERE position = 5;",
                RestoreRefused,
                "the trigger events_no_delete is missing",
            ),
            ("DROP TABLE alembic_version", LedgerSchemaError, r"copy\.sqlite3 is a database of something else"),
        ],
    )
    def test_what_is_no_whole_ledger(
        self, kept: StorageSettings, tmp_path: Path, statement: str, kind: type[Exception], match: str
    ) -> None:
        back_up(kept, tmp_path / "copy.sqlite3")
        with closing(DRIVER.connect(tmp_path / "copy.sqlite3", isolation_level=None)) as connection:
            connection.executescript(statement)
        self.unchanged(kept, tmp_path / "copy.sqlite3", kind, match)

    def test_a_backup_whose_events_were_changed(self, kept: StorageSettings, tmp_path: Path) -> None:
        back_up(kept, tmp_path / "copy.sqlite3")
        with closing(DRIVER.connect(tmp_path / "copy.sqlite3", isolation_level=None)) as connection:
            (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'events_no_update'").fetchone()
            connection.execute("DROP TRIGGER events_no_update")
            connection.execute("UPDATE events SET payload = replace(payload, 'stop', 'length') WHERE position = 1")
            connection.execute(sql)
        self.unchanged(kept, tmp_path / "copy.sqlite3", RestoreRefused, "event 1: its payload was changed")

    @pytest.mark.parametrize("content", [None, b"", b"nothing that SQLite knows" * 1000])
    def test_what_is_no_database(self, kept: StorageSettings, tmp_path: Path, content: bytes | None) -> None:
        backup = tmp_path / "copy.sqlite3"
        if content is not None:
            backup.write_bytes(content)
        kind = InvalidInput if content is None else LedgerSchemaError
        self.unchanged(kept, backup, kind, "there is no such file" if content is None else r"copy\.sqlite3")
        if content is not None:
            assert backup.read_bytes() == content

    def test_a_backup_with_a_torn_page(self, kept: StorageSettings, tmp_path: Path) -> None:
        back_up(kept, tmp_path / "copy.sqlite3")
        content = bytearray((tmp_path / "copy.sqlite3").read_bytes())
        content[len(content) // 2 : len(content) // 2 + 8192] = os.urandom(8192)
        (tmp_path / "copy.sqlite3").write_bytes(content)
        self.unchanged(kept, tmp_path / "copy.sqlite3", OpmError, r"copy\.sqlite3|cannot be read")


class TestFromTheMirror:
    def test_the_same_events_with_the_same_hashes(self, kept: StorageSettings) -> None:
        rows = rows_of(kept.ledger_path)
        assert any(row.salt == "" for row in rows)
        kept.ledger_path.unlink()
        restored = restore_from_mirror(kept)
        assert rows_of(kept.ledger_path) == rows
        assert restored.head == head_of(kept.ledger_path) == LedgerHead(rows[-1].position, rows[-1].hash)

    async def test_it_goes_on_where_it_was(self, kept: StorageSettings) -> None:
        restore_from_mirror(kept)
        with opened(kept.ledger_path) as ledger:
            record_turn(ledger, STREAM)
            await mirror(ledger, kept)
        assert verify_storage(kept).findings == ()

    def test_a_head_noted_earlier_must_be_in_it(self, kept: StorageSettings) -> None:
        head = head_of(kept.ledger_path)
        path = mirror_path(kept.storage_dir, StreamId("erased:1", ""))
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]))  # only a noted head can tell that there was one more event
        with pytest.raises(MirrorIncomplete) as refused:
            restore_from_mirror(kept, head)
        assert any("tail was cut off" in finding.what for finding in refused.value.findings)
        assert head_of(kept.ledger_path) == head

    @hypothesis_settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_what_is_missing_or_torn_is_named_and_nothing_is_written(
        self, kept: StorageSettings, data: st.DataObject
    ) -> None:
        stream = data.draw(st.sampled_from((*STREAMS[:3], StreamId("erased:1", "erased:2"))), "stream")
        path = mirror_path(kept.storage_dir, stream)
        before = path.read_bytes()
        lines = before.splitlines(keepends=True)
        place = data.draw(st.integers(0, len(lines) - 1), "line")
        at = data.draw(st.integers(0, len(lines[place]) - 2), "byte")
        edits: dict[str, bytes | None] = {
            "gone": None,
            "removed": b"".join([*lines[:place], *lines[place + 1 :]]),
            "edited": b"".join(
                [*lines[:place], lines[place][:at] + b"#" + lines[place][at + 1 :], *lines[place + 1 :]]
            ),
            "torn": b"".join([*lines[:place], lines[place][:at]]),
            "duplicated": before + lines[place],
            "foreign": before + mirror_path(kept.storage_dir, SYSTEM_STREAM).read_bytes(),
        }
        edit = data.draw(st.sampled_from(sorted(edits)), "edit")
        after = edits[edit]
        assume(after != before)
        rows = rows_of(kept.ledger_path)
        try:
            if after is None:
                path.unlink()
            else:
                path.write_bytes(after)
            with pytest.raises(MirrorIncomplete, match="nothing was written") as refused:
                restore_from_mirror(kept)
        finally:
            path.write_bytes(before)
        found = refused.value.findings
        shown = str(path.relative_to(kept.storage_dir))
        named = [finding for finding in found if finding.path == shown or finding.position is not None]
        assert named
        if edit in ("edited", "torn") and at > 0:  # nothing is left of a line cut at its start
            assert (shown, place + 1) in [(finding.path, finding.line) for finding in found]
        assert rows_of(kept.ledger_path) == rows
        assert [path for path in kept.storage_dir.iterdir() if "restor" in path.name] == []

    @pytest.mark.parametrize("names", [("payload_hash",), ("payload_hash", "hash")])
    def test_a_line_forged_with_hashes_of_its_own_is_named(self, kept: StorageSettings, names: tuple[str, ...]) -> None:
        path = mirror_path(kept.storage_dir, STREAM)
        lines = path.read_text("utf-8").split("\n")
        row = rows_of(kept.ledger_path)[0]
        payload = row.payload.replace("🙂", "🙃")
        assert payload != row.payload
        forged = replace(row, payload=payload, payload_hash=chain.payload_hash(row.salt, payload))
        if "hash" in names:
            forged = replace(forged, hash=hash_of(forged))
        path.write_text("\n".join([line_of(forged), *lines[1:]]), "utf-8")
        with pytest.raises(MirrorIncomplete) as refused:
            restore_from_mirror(kept)
        first = refused.value.findings[0]
        # If the line is consistent in itself, the next event does not follow it.
        assert first.position == 2 if "hash" in names else first.line == 1

    @pytest.mark.parametrize(
        ("column", "value"),
        [("position", "7"), ("position", 99), ("user_id", 7), ("conversation_id", None), ("salt", []), ("hash", {})],
    )
    def test_a_line_of_odd_columns_is_named(self, kept: StorageSettings, column: str, value: object) -> None:
        path = mirror_path(kept.storage_dir, STREAM)
        lines = path.read_text("utf-8").split("\n")
        fields = json.loads(lines[0])
        fields["event"][column] = value
        path.write_text("\n".join([json.dumps(fields, ensure_ascii=False), *lines[1:]]), "utf-8")
        with pytest.raises(MirrorIncomplete) as refused:
            restore_from_mirror(kept)
        assert refused.value.findings[0].line == 1

    def test_a_mirror_of_nothing_is_no_ledger(self, settings: StorageSettings) -> None:
        with pytest.raises(MirrorIncomplete) as refused:
            restore_from_mirror(settings)
        assert refused.value.findings[0].what == "there is no event in any file of the mirror"
        assert settings.ledger_path.exists()


@pytest.mark.parametrize("source", ["backup", "mirror"])
async def test_killed_at_any_point_there_is_the_old_ledger_or_the_new_one(
    kept: StorageSettings, tmp_path: Path, source: str
) -> None:
    back_up(kept, tmp_path / "copy.sqlite3")
    with opened(kept.ledger_path) as ledger:
        record_turn(ledger, STREAM)
        if source == "backup":
            await mirror(ledger, kept)
    old = rows_of(kept.ledger_path)
    new = old[:-1]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    given = str(tmp_path / "copy.sqlite3") if source == "backup" else "mirror"
    command = [sys.executable, "-m", "tests.projections.restoring", str(kept.storage_dir), given, str(scratch)]
    ran = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    killed = int(ran.stdout)
    assert killed > 5
    seen: list[list[StoredEvent]] = []
    for name in (*map(str, range(killed)), "whole"):
        rows = rows_of(only_ledger_of(scratch / name))
        assert rows in (old, new), name
        seen.append(rows)
    assert seen[0] == old
    assert seen[-1] == new
    assert [rows == new for rows in seen] == sorted(rows == new for rows in seen)
    # A killed restore blocks neither the next one nor a start.
    last_old = StorageSettings(storage_dir=scratch / str(max(n for n in range(killed) if seen[n] == old)))
    with opened(last_old.ledger_path) as ledger:
        await mirror(ledger, last_old)
    assert verify_storage(last_old).findings == ()
    restore_backup(last_old, tmp_path / "copy.sqlite3")
    assert rows_of(last_old.ledger_path) == new


class TestKeys:
    """A restore brings back what people said, and no way in that was closed since."""

    @staticmethod
    def left(settings: StorageSettings) -> list[tuple[str, bool]]:
        return [(key.name, key.revoked_at is None) for key in keys_in(settings.ledger_path)]

    @pytest.mark.parametrize("source", ["backup", "mirror"])
    def test_those_of_now_count(self, kept: StorageSettings, tmp_path: Path, source: str) -> None:
        copy = tmp_path / "copy.sqlite3"
        with opened(kept.ledger_path) as ledger:
            _, stolen = make_key(ledger, NewKey("ann", name="stolen"), "account:ann")
        back_up(kept, copy)
        with opened(kept.ledger_path) as ledger:
            make_key(ledger, NewKey("ann", name="later"), "account:ann")
            revoke_key(ledger, stolen.key_id, "account:ann")
        restored = restore_backup(kept, copy) if source == "backup" else restore_from_mirror(kept)
        assert restored.keys_kept
        assert self.left(kept) == [("stolen", False), ("later", True)]
        assert list(verify_ledger_file(kept.ledger_path, deep=True)[1]) == []

    def test_where_they_cannot_be_read_it_says_so(self, kept: StorageSettings, tmp_path: Path) -> None:
        copy = tmp_path / "copy.sqlite3"
        with opened(kept.ledger_path) as ledger:
            make_key(ledger, NewKey("ann", name="before"), "account:ann")
        back_up(kept, copy)
        kept.ledger_path.write_bytes(b"no database any more" * 1000)
        assert not restore_backup(kept, copy).keys_kept
        assert self.left(kept) == [("before", True)]

    def test_a_copy_from_before_there_were_keys_takes_them(self, kept: StorageSettings, tmp_path: Path) -> None:
        old = tmp_path / "old.sqlite3"
        migrate(old, "0005")
        with opened(kept.ledger_path) as ledger:
            make_key(ledger, NewKey("ann", name="now"), "account:ann")
        assert restore_backup(kept, old).keys_kept
        assert self.left(kept) == [("now", True)]
