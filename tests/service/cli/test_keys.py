"""``opm keys`` makes keys that are shown once, lists what is known of them, and revokes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.api_keys import hash_of
from domain.sqlite import DRIVER
from migrations.runner import migrate
from tests.ledgers import new_ledger_file, opened
from tests.service.opm import environment, opm

KEY = re.compile(r"sk-opm-[0-9a-f]{48}")


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    new_ledger_file(tmp_path)
    return environment(tmp_path)


def test_a_key_is_printed_alone_and_once(variables: dict[str, str], tmp_path: Path) -> None:
    made = opm(variables, "keys", "create", "--user", "ann", "--name", "laptop")
    assert made.status == 0
    key = made.out.strip()
    assert KEY.fullmatch(key)
    assert key not in made.err
    assert "not shown again" in made.err
    listed = opm(variables, "keys", "list")
    assert "laptop" in listed.out
    assert "active" in listed.out
    assert key not in listed.out + opm(variables, "keys", "list", "--json").out
    with opened(tmp_path / "ledger.sqlite3") as ledger:
        assert [kept.key_hash for kept in ledger.keys.all()] == [hash_of(key)]


def test_what_a_key_may_do_is_kept_with_it(variables: dict[str, str]) -> None:
    asked = ("--any", "--trust-headers", "--read-only", "--user-is", "conversation", "--expires", "90d", "--json")
    made = opm(variables, "keys", "create", *asked).json
    assert KEY.fullmatch(made.pop("key"))
    [listed] = opm(variables, "keys", "list", "--json").json["keys"]
    assert listed == made
    told = {name: made[name] for name in ("user_id", "trust_headers", "read_only", "user_is", "active", "revoked_at")}
    assert told == {
        "user_id": None,
        "trust_headers": True,
        "read_only": True,
        "user_is": "conversation",
        "active": True,
        "revoked_at": None,
    }
    assert made["created_by"].startswith("account:")
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90)
    shown = " ".join(opm(variables, "keys", "list").out.split())
    assert "anybody, by headers too, read only, user is the conversation" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--user"),
        (("--user", "ann", "--any"), "--user"),
        (("--user", "ann", "--trust-headers"), "--trust-headers"),
        (("--user", "an\u200bn"), "--user"),
        (("--user", ""), "--user"),
        (("--user", "ann", "--expires", "2020-01-01"), "still to come"),
        (("--user", "ann", "--expires", "soon"), "give a span such as 90d, or a date"),
        (("--user", "ann", "--name", "a\nb"), "--name"),
        (("--user", "ann", "--user-is", "robot"), "--user-is"),
    ],
)
def test_what_makes_no_sense_is_refused_and_makes_none(
    variables: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    refused = opm(variables, "keys", "create", *arguments)
    assert refused.status == 2
    assert said in refused.err
    assert opm(variables, "keys", "list", "--json").json == {"keys": []}


def test_a_key_is_revoked_by_its_id_its_label_or_its_name(variables: dict[str, str]) -> None:
    for how in ("key_id", "actor", "name"):
        made = opm(variables, "keys", "create", "--user", "ann", "--name", f"by {how}", "--json").json
        revoked = opm(variables, "keys", "revoke", made[how], "--json").json
        assert revoked == {"key_id": made["key_id"], "revoked": True, "changed": True}
        assert opm(variables, "keys", "revoke", made[how], "--json").json["changed"] is False
    keys = opm(variables, "keys", "list", "--json").json["keys"]
    assert [key["active"] for key in keys] == [False] * 3
    assert all(key["revoked_by"].startswith("account:") for key in keys)


def test_a_name_that_two_keys_have_means_the_one_that_is_left(variables: dict[str, str]) -> None:
    first, second = (
        opm(variables, "keys", "create", "--user", "ann", "--name", "laptop", "--json").json["key_id"] for _ in range(2)
    )
    unclear = opm(variables, "keys", "revoke", "laptop")
    assert unclear.status == 2
    assert first in unclear.err
    assert second in unclear.err
    assert opm(variables, "keys", "revoke", first).status == 0
    assert opm(variables, "keys", "revoke", "laptop", "--json").json["key_id"] == second
    assert opm(variables, "keys", "revoke", "nobody's").status == 2


def test_whoever_revokes_the_last_key_is_told_that_one_is_still_asked_for(variables: dict[str, str]) -> None:
    first, second = (
        opm(variables, "keys", "create", "--user", name, "--json").json["key_id"] for name in ("ann", "bob")
    )
    assert "last key" not in opm(variables, "keys", "revoke", first).err
    assert "last key" in opm(variables, "keys", "revoke", second).err


def test_a_first_key_can_be_made_before_the_first_start(tmp_path: Path) -> None:
    made = opm(environment(tmp_path / "new"), "keys", "create", "--user", "ann")
    assert made.status == 0
    assert KEY.fullmatch(made.out.strip())
    assert "a new, empty ledger was made" in made.err


def test_a_ledger_of_an_earlier_version_has_none_to_list(tmp_path: Path) -> None:
    migrate(tmp_path / "ledger.sqlite3", "0005")
    assert opm(environment(tmp_path), "keys", "list", "--json").json == {"keys": []}
    with DRIVER.connect(tmp_path / "ledger.sqlite3") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0005",)]
