"""The list of copies is durable, keeps every entry, and is never guessed when damaged."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from projections.backup.known_backups import Backup, BackupsUnreadable, known_backups, remember_backup

MADE_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def backup(path: str, minutes: int = 0) -> Backup:
    return Backup(path=path, made_at=MADE_AT + timedelta(minutes=minutes), position=7, hash="sha256:aa")


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    assert known_backups(tmp_path) == []


def test_what_was_remembered_comes_back_in_order(tmp_path: Path) -> None:
    for made in (backup("/b/用户.sqlite3"), backup("/a.sqlite3", 1)):
        remember_backup(tmp_path, made)
    assert known_backups(tmp_path) == [backup("/b/用户.sqlite3"), backup("/a.sqlite3", 1)]


def test_a_copy_over_a_copy_takes_its_place(tmp_path: Path) -> None:
    for made in (backup("/a"), backup("/b"), backup("/a", 5)):
        remember_backup(tmp_path, made)
    assert known_backups(tmp_path) == [backup("/b"), backup("/a", 5)]


def test_two_at_once_are_both_remembered(tmp_path: Path) -> None:
    threads = [threading.Thread(target=remember_backup, args=(tmp_path, backup(f"/{name}"))) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {known.path for known in known_backups(tmp_path)} == {f"/{name}" for name in range(8)}


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[{"path": "/a"}]', b"\xff"])
def test_a_damaged_list_is_said_and_not_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "backups.json").write_bytes(content)
    with pytest.raises(BackupsUnreadable, match=r"backups\.json cannot be read"):
        remember_backup(tmp_path, backup("/a"))
    assert (tmp_path / "backups.json").read_bytes() == content
