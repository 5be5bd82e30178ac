"""A part of a memory is erased beside a running service, which goes on as if it had never been said."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path

import pytest

from domain.events import MessagesSent, TurnFailed
from domain.identity import StreamId
from domain.settings import StorageSettings
from domain.sqlite import DRIVER
from service.retention import keep_for_days
from tests.byte_search import traces
from tests.ledgers import opened, record_turn, until
from tests.service.cli.conftest import Opm
from tests.service.running import running, someone
from tests.upstream import Fault, ScriptedUpstream

SECRET = "The vault opens with Zanzibarquest."
WORDS = ("Zanzibarquest", "zanzibarquest")


def test_one_memory_beside_the_service(opm: Opm, storage: Path) -> None:
    ann = someone()
    with ScriptedUpstream() as upstream, running(upstream, storage, gate_reasons=True) as service:
        told = service.client.tell(SECRET, ann, "one").memory("turn")["memory_id"]
        service.client.tell("The kitchen is blue.", ann, "one")
        answer = service.client.tell("What opens the vault?", ann, "two")
        assert "Zanzibarquest" in answer.text
        service.settle()
        assert traces(storage, WORDS)
        counted = json.loads(opm("erase", "-u", ann, "--memory", told, "--dry-run", "--json").out)
        assert (counted["dry_run"], counted["memories"]) == (True, 1)
        assert traces(storage, WORDS), "a dry run changes nothing"

        ran = opm("erase", "-u", ann, "--memory", told, "--yes", "--json")
        assert ran.status == 0, ran.err
        done = json.loads(ran.out)
        # The answer that repeated it is named, and can be erased as well.
        assert answer.memory("turn")["memory_id"] in done["said_in"]
        also = [part for each in done["said_in"] for part in ("--memory", each)]
        assert opm("erase", "-u", ann, *also, "--yes").status == 0
        service.settle()
        assert traces(storage, WORDS) == []
        assert opm("verify").status == 0, opm("verify").out
        after = service.client.tell("What opens the vault?", ann, "three")
        assert "Zanzibarquest" not in json.dumps([after.body, after.events])
        assert "Zanzibarquest" not in service.client.get("/v1/memories", user=ann).text
        for path in ("/v1/turns", "/v1/conversations"):
            response = service.client.get(path, user=ann, conversation_id="one")
            assert (response.status_code, "Zanzibarquest" in response.text) == (200, False)
        service.settle()
        assert opm("verify").status == 0, opm("verify").out
        assert opm("explain", answer.id).status in (0, 1, 2)
        assert opm("recall", "vault", "-u", ann, "--no-embed", "--json").status == 0


def test_a_failed_attempt_that_repeats_it_goes_too(opm: Opm, storage: Path) -> None:
    with ScriptedUpstream() as upstream, running(upstream, storage) as service:
        upstream.fail("answer", Fault(status=500))
        assert service.client.ask(SECRET, "ann", "one").status >= 400
        upstream.heal()
        told = service.client.tell(SECRET, "ann", "one").memory("turn")["memory_id"]
        assert service.ledger.all(TurnFailed, "ann", "one")
        service.settle()
        assert opm("erase", "-u", "ann", "--memory", told, "--yes").status == 0
        service.settle()
        assert traces(storage, WORDS) == []


def test_a_conversation_can_go_on(opm: Opm, storage: Path) -> None:
    with ScriptedUpstream() as upstream, running(upstream, storage) as service:
        service.client.tell(SECRET, "ann", "one")
        service.settle()
        assert opm("erase", "-u", "ann", "--conversation", "one", "--yes").status == 0
        assert traces(storage, WORDS) == []
        assert service.client.tell("Hello.", "ann", "one").memory("turn")["turn_id"] == 1
        service.settle()
        assert opm("verify").status == 0, opm("verify").out
    assert opm("erase", "-u", "ann", "--conversation", "nothing", "--yes").status == 2
    assert opm("erase", "-u", "ann", "--memory", "x", "--conversation", "one", "--yes").status == 2


class TestRetention:
    def test_it_is_off_unless_it_is_set(self, opm: Opm, storage: Path) -> None:
        ran = opm("retention")
        assert (ran.status, "RETENTION_DAYS" in ran.err) == (2, True)

    def test_what_is_older_is_counted_and_then_erased(
        self,
        opm: Opm,
        storage: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with opened(storage / "ledger.sqlite3") as ledger:
            record_turn(ledger, StreamId("ann", "c"), SECRET)  # its time is in January 2026
        monkeypatch.setenv("RETENTION_DAYS", "7")
        counted = json.loads(opm("retention", "--dry-run", "--json").out)
        assert (counted["memories"], counted["dry_run"]) == (1, True)
        assert traces(storage, WORDS)
        assert json.loads(opm("retention", "--json").out)["memories"] == 1
        assert traces(storage, WORDS) == []
        assert json.loads(opm("retention", "--json").out)["events"] == 0

    async def test_the_service_does_it_by_itself(self, storage: Path) -> None:
        with opened(storage / "ledger.sqlite3") as ledger:
            record_turn(ledger, StreamId("ann", "c"), SECRET)
            settings = StorageSettings(storage_dir=storage, retention_days=7)
            task = asyncio.create_task(keep_for_days(ledger, settings, first_s=0))
            done = "SELECT 1 FROM events WHERE type = 'ErasureCompleted'"
            with closing(DRIVER.connect(ledger.path)) as connection:
                await until(lambda: connection.execute(done).fetchone() is not None)
            task.cancel()
        assert traces(storage, WORDS) == []


def test_what_a_client_sent_again_goes_with_the_memory(opm: Opm, storage: Path) -> None:
    """A client that changes what it resends leaves copies of it beside the turns."""
    with ScriptedUpstream() as upstream, running(upstream, storage) as service:
        upstream.say("answer", "Noted.")
        messages = [{"role": "user", "content": SECRET}]
        first = service.client.post({"messages": messages, "user": "ann", "metadata": {"conversation_id": "one"}})
        messages += [{"role": "assistant", "content": "**Noted.**"}, {"role": "user", "content": "Go on."}]
        second = service.client.post({"messages": messages, "user": "ann", "metadata": {"conversation_id": "one"}})
        assert len(service.ledger.all(MessagesSent, "ann", "one")) == 1
        service.settle()
        told = first.memory("turn")["memory_id"]
        assert opm("erase", "-u", "ann", "--memory", told, "--yes").status == 0
        service.settle()
        assert traces(storage, WORDS) == []
        assert opm("verify").status == 0, opm("verify").out
        messages += [{"role": "assistant", "content": second.text}, {"role": "user", "content": "And on."}]
        third = service.client.post({"messages": messages[2:], "user": "ann", "metadata": {"conversation_id": "one"}})
        assert third.status == 200
        assert "not_possible" in opm("explain", second.id, "--json").out
