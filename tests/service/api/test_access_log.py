"""The access log holds who was refused and, where it is set so, who read what is kept about a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.sqlite import DRIVER
from service.access_log import AccessEntry, AccessLog
from service.keys import label_of
from tests.ledgers import START, STREAM, new_ledger_file, opened, record_turn
from tests.service.opm import environment, opm
from tests.service.running import Running, running, until
from tests.upstream import ScriptedUpstream

KEY = "a-key-of-ann"


@contextmanager
def keeping(folder: Path, kept: str) -> Iterator[Running]:
    with (
        ScriptedUpstream() as upstream,
        running(upstream, folder, api_keys={KEY: "ann"}, access_log=kept) as service,
    ):
        yield service


def entries(path: Path) -> list[dict[str, Any]]:
    with closing(DRIVER.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        cursor = connection.execute("SELECT * FROM access ORDER BY id")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def call(service: Running, key: str | None, path: str, **params: str) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    return service.client.http.get(path, params=params, headers={"user-agent": "curl/8", **headers})


@pytest.mark.parametrize("kept", ["off", "refused", "reads"])
def test_what_is_kept_is_what_the_setting_says(tmp_path: Path, kept: str) -> None:
    made = opm(environment(tmp_path), "keys", "create", "--user", "bob", "--read-only", "--json").json
    with keeping(tmp_path, kept) as service:
        said = service.client.post({"messages": [{"role": "user", "content": "Hi."}]}, authorization=f"Bearer {KEY}")
        assert said.status == 200
        unknown = call(service, None, "/v1/memories")
        reader = {"authorization": f"Bearer {made['key']}", "user-agent": "curl/8"}
        beyond = service.client.http.delete("/v1/memories/m1", headers=reader)
        read = call(service, KEY, "/v1/memories")
        assert [answer.status_code for answer in (unknown, beyond, read)] == [401, 403, 200]
        call(service, KEY, "/v1/models")
        service.client.http.get("/health")
        expected = {"off": [], "refused": [401, 403], "reads": [401, 403, 200]}[kept]
        if expected:
            until("they are written", lambda: len(entries(service.ledger.path)) == len(expected))
        path = service.ledger.path
    found = entries(path)
    assert [row["status"] for row in found] == expected
    if kept == "reads":
        assert [row["actor"] for row in found] == [None, made["actor"], label_of(KEY)]
        assert [row["user_id"] for row in found] == [None, None, "ann"]
        routes = ["GET /v1/memories", "DELETE /v1/memories/{memory_id}", "GET /v1/memories"]
        assert [row["route"] for row in found] == routes
        assert {row["client"] for row in found} == {"curl/8"}
        assert found[2]["request_id"] == read.headers["x-request-id"]
        assert [row["refused"] for row in found] == [1, 1, 0]


def test_whoever_tries_a_revoked_key_is_named(tmp_path: Path) -> None:
    made = opm(environment(tmp_path), "keys", "create", "--user", "bob", "--json").json
    opm(environment(tmp_path), "keys", "revoke", made["key_id"])
    with keeping(tmp_path, "refused") as service:
        assert call(service, made["key"], "/v1/memories").status_code == 401
        path = service.ledger.path
    assert [(row["status"], row["actor"]) for row in entries(path)] == [(401, made["actor"])]


def test_a_strange_host_is_noted(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, running(upstream, tmp_path) as service:
        service.client.http.get("/v1/memories", headers={"host": "evil.example"})
        path = service.ledger.path
    [row] = entries(path)
    assert (row["status"], row["route"]) == (403, "GET (none)")


def test_an_erased_person_is_in_no_entry(tmp_path: Path) -> None:
    with keeping(tmp_path, "reads") as service:
        service.client.post({"messages": [{"role": "user", "content": "Hi."}]}, authorization=f"Bearer {KEY}")
        call(service, KEY, "/v1/memories")
        until("it is written", lambda: len(entries(service.ledger.path)) == 1)
        path = service.ledger.path
    assert opm(environment(path.parent), "erase", "--user", "ann", "--yes").status == 0
    assert entries(path) == []


async def test_a_read_of_a_person_who_was_erased_since_is_not_kept(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        record_turn(ledger, STREAM)
        kept = AccessLog(ledger, "reads", 30)
        for user in (STREAM.user_id, "somebody erased"):
            kept.note(replace(an_entry(START.isoformat()), user_id=user, status=200))
        await kept.write()
        assert [row["user_id"] for row in entries(ledger.path)] == [STREAM.user_id]


def an_entry(at: str) -> AccessEntry:
    return AccessEntry(at, "req-1", None, None, "GET /v1/memories", 401, None)


async def test_old_entries_go_and_a_flood_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        kept = AccessLog(ledger, "refused", 30)
        now = ledger.clock.now()
        for days in (31, 29):
            kept.note(an_entry((now - timedelta(days=days)).isoformat()))
        await kept.write()
        await kept.prune()
        assert len(entries(ledger.path)) == 1
        for _ in range(20_000):
            kept.note(an_entry(START.isoformat()))
        await kept.write()
        assert len(entries(ledger.path)) == 10_001
        assert "10000 entries of the access log were dropped" in caplog.text


def test_the_settings_that_decide_are_recorded_once_and_without_secrets(tmp_path: Path) -> None:
    for gate in ("llm", "llm", "score"):
        with (
            ScriptedUpstream(api_key="sk-secret") as upstream,
            running(upstream, tmp_path, gate=gate, openai_api_key="sk-secret", api_keys={KEY: "ann"}) as service,
        ):
            path = service.ledger.path
    with closing(DRIVER.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found = [
            json.loads(value)
            for (value,) in connection.execute("SELECT value FROM activations WHERE what = 'settings' ORDER BY 1")
        ]
    gates = [settings["gate"] for settings in found]
    assert sorted(set(gates)) == ["llm", "score"]
    assert "sk-secret" not in json.dumps(found)
    assert KEY not in json.dumps(found)
    assert "ann" not in json.dumps(found)
