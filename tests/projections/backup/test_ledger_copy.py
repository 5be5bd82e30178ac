"""A backup gets its name only when it is whole, whatever is written meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from domain.errors import InvalidInput, LedgerSchemaError
from domain.ledger import Ledger
from domain.settings import StorageSettings
from domain.sqlite import DRIVER
from projections.backup.known_backups import Backup, copying, known_backups, partial_of, remove_partials
from projections.backup.ledger_copy import BackupFailed, back_up
from tests.ledgers import ROOT, STREAM, all_stored, check_chain, one_of_each, opened, record, record_turn


@pytest.fixture
def settings(storage_dir: Path) -> StorageSettings:
    return StorageSettings(storage_dir=storage_dir)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    return shelf


def test_it_holds_every_event_and_is_one_file(ledger: Ledger, settings: StorageSettings, shelf: Path) -> None:
    record(ledger, STREAM, *one_of_each())
    made = back_up(settings, shelf / "copy.sqlite3")
    rows = all_stored(ledger)
    assert list(shelf.iterdir()) == [shelf / "copy.sqlite3"]
    assert (made.position, made.hash) == (rows[-1].position, rows[-1].hash)
    assert known_backups(settings.storage_dir) == [made]
    with opened(shelf / "copy.sqlite3") as copy:
        assert all_stored(copy) == rows
        record_turn(copy, STREAM)
        check_chain(all_stored(copy))


def test_an_empty_ledger_has_a_backup_too(ledger: Ledger, settings: StorageSettings, shelf: Path) -> None:
    assert back_up(settings, shelf / "copy.sqlite3").position == 0


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_nobody_else_can_read_it(ledger: Ledger, settings: StorageSettings, shelf: Path, umask: int) -> None:
    ledger.path.chmod(0o644)
    before = os.umask(umask)
    try:
        back_up(settings, shelf / "copy.sqlite3")
    finally:
        os.umask(before)
    assert (shelf / "copy.sqlite3").stat().st_mode & 0o777 == 0o600


def test_while_a_writer_hammers_every_copy_is_a_beginning_of_the_ledger(
    ledger: Ledger, settings: StorageSettings, shelf: Path
) -> None:
    command = [sys.executable, "-m", "tests.domain.appender", str(ledger.path), "ann", "trip", "100000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        made = [back_up(settings, shelf / f"{number}.sqlite3") for number in range(4)]
        for _ in range(made[-1].position):  # it was still writing when the last copy was made
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.stdout.read()
    rows = all_stored(ledger)
    assert 0 < made[0].position < made[-1].position < len(rows)
    for number, backup in enumerate(made):
        with opened(shelf / f"{number}.sqlite3") as copy:
            assert all_stored(copy) == rows[: backup.position]
    check_chain(rows)


class TestPlaces:
    def refused(self, settings: StorageSettings, target: Path, match: str) -> None:
        with pytest.raises(InvalidInput, match=match):
            back_up(settings, target)
        assert known_backups(settings.storage_dir) == []

    def test_what_is_there_is_kept_unless_told_otherwise(
        self, ledger: Ledger, settings: StorageSettings, shelf: Path
    ) -> None:
        target = shelf / "copy.sqlite3"
        target.write_text("something else")
        self.refused(settings, target, r"^PATH = .*: exists: .*--force")
        assert target.read_text() == "something else"
        back_up(settings, target, force=True)
        record_turn(ledger, STREAM)
        made = back_up(settings, target, force=True)
        assert known_backups(settings.storage_dir) == [made]
        with opened(target) as copy:
            assert copy.reader.head_position() == 1

    @pytest.mark.parametrize("inside", ["copy.sqlite3", "ledger.sqlite3", "users/copy.sqlite3", "../{name}/x.sqlite3"])
    def test_not_beside_what_it_protects(self, ledger: Ledger, settings: StorageSettings, inside: str) -> None:
        (settings.storage_dir / "users").mkdir()
        target = settings.storage_dir / inside.format(name=settings.storage_dir.name)
        self.refused(settings, target, "lies in STORAGE_DIR")

    def test_not_through_a_link_either(self, ledger: Ledger, settings: StorageSettings, shelf: Path) -> None:
        (shelf / "link").symlink_to(settings.storage_dir)
        self.refused(settings, shelf / "link" / "copy.sqlite3", "lies in STORAGE_DIR")

    def test_a_folder_is_no_file(self, ledger: Ledger, settings: StorageSettings, shelf: Path) -> None:
        self.refused(settings, shelf, "is a folder: name the file")

    def test_a_folder_is_not_made_up(self, ledger: Ledger, settings: StorageSettings, shelf: Path) -> None:
        self.refused(settings, shelf / "no" / "copy.sqlite3", "there is no such folder")
        assert list(shelf.iterdir()) == []


class TestFailures:
    def test_a_ledger_whose_end_was_changed_is_not_copied(
        self, ledger: Ledger, settings: StorageSettings, shelf: Path
    ) -> None:
        record(ledger, STREAM, *one_of_each())
        with closing(DRIVER.connect(ledger.path, isolation_level=None)) as connection:
            connection.execute("DROP TRIGGER events_no_update")
            connection.execute("UPDATE events SET recorded_at = '' WHERE position = (SELECT max(position) FROM events)")
        with pytest.raises(BackupFailed, match="run `opm verify`"):
            back_up(settings, shelf / "copy.sqlite3")
        assert list(shelf.iterdir()) == []
        assert known_backups(settings.storage_dir) == []

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE events SET payload = replace(payload, 'Lisbon', 'Porto') WHERE position = 2",
            "UPDATE events SET user_id = 'eve' WHERE position = 3",
        ],
    )
    def test_a_good_backup_is_not_replaced_by_a_broken_ledger(
        self, ledger: Ledger, settings: StorageSettings, shelf: Path, damage: str
    ) -> None:
        for _ in range(5):
            record_turn(ledger, STREAM)
        back_up(settings, shelf / "copy.sqlite3")
        good, known = (shelf / "copy.sqlite3").read_bytes(), known_backups(settings.storage_dir)
        with closing(DRIVER.connect(ledger.path, isolation_level=None)) as connection:
            (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'events_no_update'").fetchone()
            connection.execute("DROP TRIGGER events_no_update")
            connection.execute(damage)
            connection.execute(sql)
        with pytest.raises(BackupFailed, match=r"not as it was written \(event \d: .*none was replaced") as failed:
            back_up(settings, shelf / "copy.sqlite3", force=True)
        assert "Porto" not in str(failed.value)
        assert (shelf / "copy.sqlite3").read_bytes() == good
        assert known_backups(settings.storage_dir) == known
        assert list(shelf.iterdir()) == [shelf / "copy.sqlite3"]

    def test_a_killed_backup_is_known_and_removed_by_the_next(
        self, ledger: Ledger, settings: StorageSettings, shelf: Path
    ) -> None:
        """Killed at many moments: whatever copy is there afterwards, the list names it until it is removed."""
        for _ in range(300):
            record_turn(ledger, STREAM)
        target = shelf / "copy.sqlite3"
        program = (
            "import sys; from pathlib import Path; from domain.settings import StorageSettings; "
            "from projections.backup.ledger_copy import back_up; print('go', flush=True); "
            "back_up(StorageSettings(storage_dir=Path(sys.argv[1])), Path(sys.argv[2]), force=True)"
        )
        seen = set()
        for delay_ms in (1, 3, 6, 10, 15, 25, 40):
            command = [sys.executable, "-c", program, str(settings.storage_dir), str(target)]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                threading.Event().wait(delay_ms / 1000)
                process.kill()
            there = {str(path) for path in shelf.iterdir() if not path.name.endswith("-journal")}
            assert there <= {known.path for known in known_backups(settings.storage_dir)}
            seen |= there
            remove_partials(settings.storage_dir)
            assert set(shelf.iterdir()) <= {target}
            assert {known.path for known in known_backups(settings.storage_dir)} <= {str(target)}
        assert str(partial_of(target)) in seen, "it was killed while it copied at least once"
        back_up(settings, target, force=True)
        assert list(shelf.iterdir()) == [target]

    def test_one_that_is_being_written_is_left_alone(
        self, ledger: Ledger, settings: StorageSettings, shelf: Path
    ) -> None:
        begun = Backup(path=str(partial_of(shelf / "x")), made_at=ledger.clock.now(), position=0, hash="")
        with copying(settings.storage_dir, begun):
            Path(begun.path).write_bytes(b"half")
            remove_partials(settings.storage_dir)
            assert Path(begun.path).exists()
            assert known_backups(settings.storage_dir) == [begun]
        assert list(shelf.iterdir()) == []
        assert known_backups(settings.storage_dir) == []

    def test_a_damaged_file_is_not_copied(self, ledger: Ledger, settings: StorageSettings, shelf: Path) -> None:
        for _ in range(20):
            record(ledger, STREAM, *one_of_each())
        ledger.close()
        content = bytearray(ledger.path.read_bytes())
        content[40_000:80_000] = os.urandom(40_000)
        ledger.path.write_bytes(content)
        with pytest.raises((BackupFailed, LedgerSchemaError)):
            back_up(settings, shelf / "copy.sqlite3")
        assert list(shelf.iterdir()) == []

    def test_no_ledger_no_backup(self, settings: StorageSettings, shelf: Path) -> None:
        settings.ledger_path.unlink()
        with pytest.raises(LedgerSchemaError, match="there is no ledger"):
            back_up(settings, shelf / "copy.sqlite3")
        assert list(shelf.iterdir()) == []
