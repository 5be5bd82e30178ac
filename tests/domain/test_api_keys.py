"""A key is kept as a hash; its row says for ever which key existed when, and can be revoked and no more."""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from domain import erasure
from domain.api_keys import NewKey, carry_keys, hash_of, keys_in, make_key, note_uses, revoke_key
from domain.key_reader import StoredKey
from domain.ledger import Ledger
from domain.sqlite import DRIVER
from migrations.runner import migrate
from tests.ledgers import STREAM, new_ledger_file, opened, record_turn

CHANGES = (
    "DELETE FROM api_keys",
    "UPDATE api_keys SET user_id = 'bob'",
    "UPDATE api_keys SET user_id = NULL",
    "UPDATE api_keys SET name = 'another'",
    "UPDATE api_keys SET key_hash = 'sha256:0'",
    "UPDATE api_keys SET trust_headers = 1",
    "UPDATE api_keys SET read_only = 0",
    "UPDATE api_keys SET expires_at = NULL",
    "UPDATE api_keys SET created_at = '2000-01-01T00:00:00.000000Z'",
    "UPDATE api_keys SET created_by = 'nobody'",
    "UPDATE api_keys SET user_id = 'erased:1', name = ''",
    "INSERT OR REPLACE INTO api_keys SELECT * FROM api_keys",
    "REPLACE INTO api_keys SELECT '0', key_hash, name, NULL, 1, 0, user_is, created_at, created_by, NULL, NULL, NULL, "
    "NULL FROM api_keys",
)


def in_a_shell(path: Path, statement: str) -> None:
    with closing(DRIVER.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def made(ledger: Ledger, **wanted: object) -> tuple[str, StoredKey]:
    return make_key(ledger, NewKey(**{"user_id": "ann", **wanted}), "account:ann")  # type: ignore[arg-type]


def test_a_key_is_long_random_and_nowhere_in_the_file(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        key, kept = made(ledger)
        other, _ = made(ledger)
        assert key != other
        assert re.fullmatch(r"sk-opm-[0-9a-f]{48}", key)
        assert kept.key_hash == hash_of(key)
        assert ledger.keys.all()[0] == kept
        path = ledger.path
    everything = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    assert hash_of(key).encode() in everything
    assert key.encode() not in everything
    assert key.removeprefix("sk-opm-").encode() not in everything


def test_it_is_revoked_once_and_the_first_time_counts(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        _, kept = made(ledger)
        assert revoke_key(ledger, kept.key_id, "account:bob")
        [first] = ledger.keys.all()
        assert not revoke_key(ledger, kept.key_id, "account:eve")
        assert not revoke_key(ledger, "nothing", "account:eve")
        assert ledger.keys.all() == [first]
        assert (first.revoked_by, first.ended(ledger.clock.now())) == ("account:bob", "was revoked")
        with pytest.raises(DRIVER.IntegrityError, match="can only be revoked"):
            in_a_shell(ledger.path, "UPDATE api_keys SET revoked_at = NULL")


@pytest.mark.parametrize("statement", CHANGES)
def test_no_client_changes_what_a_row_says(tmp_path: Path, statement: str) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        _, kept = made(ledger, name="laptop", read_only=True, expires_at=ledger.clock.now() + timedelta(days=1))
        with pytest.raises(DRIVER.IntegrityError):
            in_a_shell(ledger.path, statement)
        assert ledger.keys.all() == [kept]


def test_it_ends_when_it_expires(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        now = ledger.clock.now()
        _, kept = made(ledger, expires_at=now)
        assert kept.ended(now - timedelta(seconds=1)) is None
        assert kept.ended(now) == "has expired"


def test_the_newest_use_counts_whoever_notes_it_last(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        _, kept = made(ledger)
        now = ledger.clock.now()
        for at in (now, now - timedelta(minutes=1)):
            uses: dict[str, datetime] = {kept.key_id: at}
            ledger.write(lambda connection, uses=uses: note_uses(connection, uses)).result()  # type: ignore[misc]
        assert [key.last_used_at for key in ledger.keys.all()] == [now]


def test_a_person_who_is_erased_is_in_no_key_and_reaches_nothing_with_theirs(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        record_turn(ledger, STREAM)
        _, mine = made(ledger, user_id=STREAM.user_id, name="Ann's laptop")
        _, revoked = made(ledger, user_id=STREAM.user_id, name="Ann's phone")
        revoke_key(ledger, revoked.key_id, "account:bob")
        _, other = made(ledger, user_id="somebody else")
        event_id = ledger.clock.new_id()
        erasure.begin(ledger, STREAM.user_id, event_id)
        erasure.blank(ledger, STREAM.user_id, event_id)
        by_id = {key.key_id: key for key in ledger.keys.all()}
        assert by_id[other.key_id] == other
        for key, by in ((mine, "erasure"), (revoked, "account:bob")):
            found = by_id[key.key_id]
            assert (found.user_id, found.name) == (erasure.pseudonym_of(event_id), "")
            assert (found.revoked_by, found.revoked_at is not None) == (by, True)


def test_the_keys_of_any_ledger_can_be_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    assert not keys_in(path)
    path.touch()
    assert not keys_in(path)
    migrate(path, "0005")
    assert not keys_in(path)
    migrate(path)
    assert not keys_in(path)
    with opened(path) as ledger:
        made(ledger)
    assert keys_in(path)


def test_keys_are_carried_to_another_ledger_with_what_became_of_them(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with opened(new_ledger_file(tmp_path)) as ledger:
        for name in ("kept", "revoked", "used"):
            made(ledger, name=name, read_only=True, expires_at=ledger.clock.now())
        _, revoked, used = ledger.keys.all()
        shutil.copy(ledger.path, tmp_path / "before.sqlite3")
        revoke_key(ledger, revoked.key_id, "account:bob")
        ledger.write(lambda connection: note_uses(connection, {used.key_id: ledger.clock.now()})).result()
        now = ledger.keys.all()
    for other in (new_ledger_file(tmp_path / "new"), tmp_path / "before.sqlite3"):
        for _ in range(2):
            carry_keys(now, other)
            assert keys_in(other) == now
